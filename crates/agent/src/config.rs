//! Where things are on the machine and what the agent does when its machine's time is over. Nothing here is
//! read from the environment: a machine is set up by its identity file alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// All settings. Tests point [`Paths`] into a directory of their own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where files are.
    pub paths: Paths,
    /// The programs that are run.
    pub tools: Tools,
    /// What happens at the end.
    pub end: End,
    /// How long things may take.
    pub timing: Timing,
}

/// Where files are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Who this machine is; see [`crate::identity`].
    pub identity: PathBuf,
    /// Kept over reboots: key, credential, checkouts.
    pub state: PathBuf,
    /// On a tmpfs: secrets while they are needed.
    pub run: PathBuf,
    /// Docker's configuration: `daemon.json`, `certs.d`.
    pub docker_etc: PathBuf,
    /// Docker's process id, for telling it to read its configuration again.
    pub docker_pid: PathBuf,
    /// The Engine API's socket.
    pub docker_socket: PathBuf,
}

/// Where the Docker client looks for plugins that were installed for everybody.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// The programs that are run, by path or by a name to look up.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The Docker client.
    pub docker: PathBuf,
    /// Where its plugins compose and buildx are looked for, in this order.
    pub plugins: Vec<PathBuf>,
    /// Git.
    pub git: PathBuf,
}

impl Tools {
    /// The program of a plugin of the Docker client, if it is found. Called through the client, each call starts two more
    /// programs: the client, and the plugin once for who it is.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<PathBuf> {
        self.plugins.iter().map(|directory| directory.join(format!("docker-{name}"))).find(|path| path.is_file())
    }
}

/// What the agent does once the machine must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power the machine off.
    PowerOff,
    /// Say so in the log and stop: for tests on a machine that must stay.
    Observe,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The first wait between connections; it doubles up to 32 times this.
    pub retry: Duration,
    /// A connection that is silent for so long is dead.
    pub silence: Duration,
    /// TCP, TLS and WebSocket handshakes and the hub's greeting, each.
    pub handshake: Duration,
    /// How often running services are looked at.
    pub watch: Duration,
    /// How often starting services are looked at.
    pub poll: Duration,
    /// The lease of a restarted agent until the hub says otherwise.
    pub first_lease: Duration,
    /// How long a machine may be there without being enrolled.
    pub enrolment: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            paths: Paths {
                identity: "/etc/stagely/agent.json".into(),
                state: "/var/lib/stagely".into(),
                run: "/run/stagely".into(),
                docker_etc: "/etc/docker".into(),
                docker_pid: "/run/docker.pid".into(),
                docker_socket: "/var/run/docker.sock".into(),
            },
            tools: Tools { docker: "docker".into(), plugins: PLUGINS.map(PathBuf::from).to_vec(), git: "git".into() },
            end: End::PowerOff,
            timing: Timing::default(),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(1),
            silence: Duration::from_secs(40),
            handshake: Duration::from_secs(10),
            watch: Duration::from_secs(5),
            poll: Duration::from_millis(500),
            first_lease: Duration::from_secs(900),
            enrolment: Duration::from_secs(600),
        }
    }
}

impl Paths {
    /// Every path inside `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            identity: root.join("etc/agent.json"),
            state: root.join("state"),
            run: root.join("run"),
            docker_etc: root.join("docker"),
            docker_pid: root.join("docker.pid"),
            docker_socket: root.join("docker.sock"),
        }
    }
}

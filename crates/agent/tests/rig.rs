//! One agent on a machine of its own directory.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stagely_agent::agent::{self, Ended, Signals};
use stagely_agent::config::{Config, End, Paths, Timing, Tools};
use stagely_agent::identity::{Identity, Role};
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake_hub::FakeHub;

pub struct Rig {
    pub root: tempfile::TempDir,
    pub machine: MachineId,
    pub hub: FakeHub,
    pub tasks: TaskTracker,
    pub config: Config,
}

pub struct Running {
    pub task: JoinHandle<anyhow::Result<Ended>>,
    pub cancel: CancellationToken,
    pub woken: Arc<Notify>,
    pub ingress: watch::Receiver<Option<SocketAddr>>,
}

impl Rig {
    pub async fn new() -> Self {
        // Several tests in one process: the second install is refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = tempfile::tempdir().unwrap();
        let tasks = TaskTracker::new();
        let hub = FakeHub::start(&tasks).await;
        let config = Config {
            paths: Paths::under(root.path()),
            tools: Tools { docker: root.path().join("docker-client"), plugins: Vec::new(), git: "git".into() },
            end: End::Observe,
            timing: Timing {
                retry: Duration::from_millis(20),
                watch: Duration::from_millis(100),
                poll: Duration::from_millis(50),
                ..Timing::default()
            },
        };
        let rig = Self { root, machine: MachineId::generate(), hub, tasks, config };
        let identity = Identity {
            hub_url: format!("https://{}", rig.hub.address),
            machine_id: rig.machine,
            enrolment_token: Some(Secret::new("one-time")),
            ca_pem: rig.hub.authority.pem.clone(),
            role: Role::Preview,
            ingress_port: 0,
        };
        identity.write(&rig.config.paths.identity).unwrap();
        rig
    }

    pub fn start(&self) -> Running {
        let identity = Identity::find(&self.config.paths.identity).unwrap().unwrap();
        let cancel = CancellationToken::new();
        let (sender, ingress) = watch::channel(None);
        let woken = Arc::new(Notify::new());
        let signals = Signals { woken: woken.clone(), ingress: Some(sender) };
        let agent = agent::run(self.config.clone(), identity, signals, cancel.clone());
        Running { task: self.tasks.spawn(agent), cancel, woken, ingress }
    }

    /// A program in the place of the Docker client: notes its arguments, then runs `script`.
    pub fn fake_docker(&self, script: &str) {
        let calls = self.calls_file();
        let text = format!(
            "#!/bin/bash\nprintf '%s\\x1f' \"$@\" >> {0}; printf '\\n' >> {0}\nargs=\" $* \"\n{script}\n",
            calls.display()
        );
        let path = self.root.path().join("docker-client");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The argument lists of all calls, in order.
    pub fn calls(&self) -> Vec<Vec<String>> {
        std::fs::read_to_string(self.calls_file())
            .unwrap_or_default()
            .split("\x1f\n")
            .filter(|line| !line.is_empty())
            .map(|line| line.split('\x1f').map(str::to_owned).collect())
            .collect()
    }

    fn calls_file(&self) -> PathBuf {
        self.root.path().join("calls")
    }
}

impl Running {
    pub async fn stop(self) -> Ended {
        self.cancel.cancel();
        self.ended().await
    }

    pub async fn ended(self) -> Ended {
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("the agent ends in time")
            .unwrap()
            .unwrap()
    }
}

/// Looks every few milliseconds, for at most 20 s.
pub async fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let looking = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// A repository with `files`; answers its URL and its commit.
pub fn repository(directory: &Path, files: &[(&str, &str)]) -> (String, String) {
    std::fs::create_dir_all(directory).unwrap();
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git")
            .current_dir(directory)
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "--allow-empty", "-m", "x"]);
    git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    (format!("file://{}", directory.display()), git(&["rev-parse", "HEAD"]))
}

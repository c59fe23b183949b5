//! The control plane: `stagelyd up`, or the six services as processes of their own.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One process.
    Together,
    /// Six.
    Separate,
}

impl Mode {
    /// The mode of a command line.
    pub const fn of(separate: bool) -> Self {
        if separate { Self::Separate } else { Self::Together }
    }
}

/// The services' programs, in the order in which they are started.
pub const SERVICES: [&str; 6] = [
    "stagely-agent-hub",
    "stagely-orchestrator",
    "stagely-builder-scheduler",
    "stagely-edge-proxy",
    "stagely-reaper",
    "stagely-api",
];
/// Those that seal and open what is kept sealed; the others run without the key for that.
const WITH_THE_KEY: [&str; 3] = ["stagely-agent-hub", "stagely-orchestrator", "stagely-api"];
const READY: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(30);

/// The running processes.
pub struct ControlPlane {
    /// Where the programs are.
    programs: PathBuf,
    config: PathBuf,
    /// Where each process writes `<program>.log`.
    logs: PathBuf,
    /// Where `stagelyd` keeps the secrets that were not given.
    secrets: PathBuf,
    running: Vec<(&'static str, Child)>,
}

impl ControlPlane {
    /// Starts it and waits until every service is ready.
    pub async fn start(stagelyd: &Path, config: &Path, state: &Path, mode: Mode) -> anyhow::Result<Self> {
        let parent = |path: &Path| path.parent().map(Path::to_owned).context("a file is in a directory");
        let mut this = Self {
            programs: parent(stagelyd)?,
            config: config.to_owned(),
            logs: parent(config)?,
            secrets: state.join("secrets"),
            running: Vec::new(),
        };
        this.spawn(mode)?;
        this.ready().await?;
        Ok(this)
    }

    /// Ends what runs, gracefully, and starts the other way; machines go on.
    pub async fn switch(&mut self, mode: Mode) -> anyhow::Result<()> {
        self.stop().await;
        self.spawn(mode)?;
        self.ready().await
    }

    /// SIGKILL for one service, and a new process in its place, as a supervisor would start.
    pub async fn kill(&mut self, service: &'static str) -> anyhow::Result<()> {
        let place = self.running.iter().position(|(name, _)| *name == service);
        let (_, mut child) = self.running.remove(place.with_context(|| format!("{service} does not run"))?);
        child.kill().await.with_context(|| format!("kill {service}"))?;
        self.spawn_one(service)
    }

    /// SIGTERM, a time to drain, SIGKILL.
    pub async fn stop(&mut self) {
        for (_, child) in &self.running {
            if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for (_, mut child) in self.running.drain(..) {
            if timeout(DRAIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    /// One command of `stagelyd` under the same configuration; what it printed.
    pub async fn command(stagelyd: &Path, config: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(stagelyd);
        command.args(arguments).env("STAGELY_CONFIG", config).stdin(Stdio::null());
        let output = command.output().await.context("run stagelyd")?;
        if !output.status.success() {
            bail!("stagelyd {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn spawn(&mut self, mode: Mode) -> anyhow::Result<()> {
        match mode {
            Mode::Together => self.spawn_one("stagelyd"),
            Mode::Separate => SERVICES.into_iter().try_for_each(|service| self.spawn_one(service)),
        }
    }

    fn spawn_one(&mut self, program: &'static str) -> anyhow::Result<()> {
        let path = self.logs.join(format!("{program}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        let mut command = Command::new(self.programs.join(program));
        command.env("STAGELY_CONFIG", &self.config).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(log.try_clone()?).stderr(log);
        if program == "stagelyd" {
            command.arg("up");
        } else {
            // What `stagelyd` makes up for itself, services that run alone must be given.
            command.env("STAGELY_SERVICE_TOKEN", self.secret("service-token")?);
            if WITH_THE_KEY.contains(&program) {
                command.env("ENCRYPTION_KEY", self.secret("encryption-key")?);
            }
        }
        self.running.push((program, command.spawn().with_context(|| format!("start {program}"))?));
        Ok(())
    }

    fn secret(&self, file: &str) -> anyhow::Result<String> {
        let path = self.secrets.join(file);
        let secret = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(secret.trim().to_owned())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let (until, stagelyd) = (Instant::now() + READY, self.programs.join("stagelyd"));
        while let Err(error) = Self::command(&stagelyd, &self.config, &["healthcheck"]).await {
            for (name, child) in &mut self.running {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended ({status}): see {}", self.logs.join(format!("{name}.log")).display());
                }
            }
            if Instant::now() > until {
                bail!("not ready after a minute: {error}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

//! One machine: its directory, from nothing to nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};
use stagely_domain::machine::Size;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::qemu::hypervisor::{self, Start};
use crate::qemu::qmp::Qmp;
use crate::qemu::{Config, accel, seed, template};
use crate::request::AgentConfig;
use crate::{CloudError, CreateRequest, Created, ErrorKind, ProviderId, Result, Vm, VmState};

/// How long a restored agent may take to take its identity.
const IDENTITY: Duration = Duration::from_secs(60);
/// How long a process that has started may take to listen.
const LISTENING: Duration = Duration::from_secs(10);
/// How long memory may take to be written or read.
const MEMORY: Duration = Duration::from_secs(120);

/// A machine's directory, which may not exist.
pub(super) struct Directory(PathBuf);

/// `machine.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    machine: MachineId,
    installation: InstallationId,
    environment: Option<EnvironmentId>,
    size: Size,
    port: u16,
    expires_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    /// The template it is a copy of; its identity must then be given, and memory and seed are found there.
    pub(super) template: Option<PathBuf>,
    /// Its processor where it is emulated.
    #[serde(default = "first_cpu")]
    emulated_cpu: String,
    /// Whether it has its identity: before that a create may be taken up or begun anew.
    identified: bool,
}

/// That of machines that were made before it was written down.
fn first_cpu() -> String {
    "max".to_owned()
}

impl Directory {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps other processes away from this machine until the file is dropped.
    pub(super) async fn lock(&self) -> Result<File> {
        let path = self.lock_file();
        let taken = tokio::task::spawn_blocking(move || -> std::io::Result<File> {
            let file = File::create(path)?;
            file.lock()?;
            Ok(file)
        });
        match timeout(Duration::from_secs(180), taken).await {
            Ok(Ok(Ok(file))) => Ok(file),
            Ok(Ok(Err(error))) => Err(CloudError::io("lock a machine", &error)),
            Ok(Err(_)) | Err(_) => Err(CloudError::new(ErrorKind::Conflict, "lock a machine", "another call holds it")),
        }
    }

    /// The machine as it stands; `None` when there is none.
    pub(super) async fn inspect(&self) -> Result<Option<Vm>> {
        let Some(facts) = self.facts().await? else { return Ok(None) };
        let running = hypervisor::pid(&self.0).is_some();
        let state = match (running, facts.identified, self.memory().exists()) {
            (true, true, _) => VmState::Running,
            (true, false, _) => VmState::Pending,
            (false, _, true) => VmState::Hibernated,
            (false, ..) => VmState::Stopped,
        };
        Ok(Some(Vm {
            id: ProviderId(facts.machine.label()),
            machine: facts.machine,
            installation: facts.installation,
            environment: facts.environment,
            address: (state == VmState::Running).then(|| address(facts.port)),
            state,
            expires_at: facts.expires_at,
            created_at: Some(facts.created_at),
            hold: self.0.join("hold").exists(),
        }))
    }

    /// Takes up a create that began before: finishes it, or answers `None` when it must begin anew.
    pub(super) async fn adopt(&self, config: &AgentConfig) -> Result<Option<Created>> {
        let Some(facts) = self.facts().await? else { return Ok(None) };
        if facts.identified {
            return Ok(Some(Created { id: ProviderId(facts.machine.label()), address: Some(address(facts.port)) }));
        }
        if hypervisor::pid(&self.0).is_none() {
            return Ok(None);
        }
        self.qmp().await?.wait_running(MEMORY).await?;
        self.identify(facts, config).await.map(Some)
    }

    /// Makes the machine: a copy of the template where there is one, a cold boot elsewhere.
    pub(super) async fn create(&self, config: &Config, request: &CreateRequest, now: DateTime<Utc>) -> Result<Created> {
        hypervisor::end(&self.0).await?;
        remove_if_there(&self.0).await?;
        std::fs::create_dir_all(&self.0).map_err(|error| CloudError::io("make a machine's directory", &error))?;
        let template = if config.templates { template::find(config, request.size) } else { None };
        let facts = Facts {
            machine: request.machine,
            installation: request.installation,
            environment: request.environment,
            size: request.size,
            port: hypervisor::free_port()?,
            expires_at: request.expires_at,
            created_at: now,
            emulated_cpu: hypervisor::EMULATED_CPU.to_owned(),
            identified: template.is_none(),
            template,
        };
        // The facts come before the process: what runs is always known.
        self.write(&facts).await?;
        let base =
            facts.template.as_ref().map_or(config.image_dir.join("disk.qcow2"), |template| template.join("disk.qcow2"));
        hypervisor::overlay(&base, &self.0.join("disk.qcow2")).await?;
        if facts.template.is_none() {
            let name = request.machine.label();
            seed::write(&self.seed(), &name, &seed::Boot::Machine(&request.config), &config.agent_binary)?;
        }
        self.start(config, &facts, facts.template.as_ref().map(|template| template.join("memory"))).await?;
        if facts.identified {
            return Ok(Created { id: ProviderId(facts.machine.label()), address: Some(address(facts.port)) });
        }
        self.identify(facts, &request.config).await
    }

    /// Saves the memory and ends the process.
    pub(super) async fn hibernate(&self) -> Result<()> {
        if hypervisor::pid(&self.0).is_none() {
            if self.memory().exists() {
                return Ok(());
            }
            return Err(CloudError::new(ErrorKind::NotFound, "hibernate a machine", "it does not run"));
        }
        let partial = self.0.join("memory.partial");
        let mut qmp = self.qmp().await?;
        qmp.resume(MEMORY).await?;
        qmp.save(&partial, MEMORY).await?;
        std::fs::rename(&partial, self.memory()).map_err(|error| CloudError::io("keep a machine's memory", &error))?;
        hypervisor::end(&self.0).await
    }

    /// Starts it from its saved memory.
    pub(super) async fn wake(&self, config: &Config, now: DateTime<Utc>) -> Result<Vm> {
        let missing = || CloudError::new(ErrorKind::NotFound, "wake a machine", "there is none");
        let mut facts = self.facts().await?.ok_or_else(missing)?;
        if hypervisor::pid(&self.0).is_none() {
            if !self.memory().exists() {
                return Err(missing());
            }
            facts.port = hypervisor::free_port()?;
            self.write(&facts).await?;
            self.start(config, &facts, Some(self.memory())).await?;
            // Its clock stood still while it slept; without an answer the agent finds out by itself.
            let line = json!({"now": now.timestamp()});
            if let Err(error) = tell(&self.0.join("identity.sock"), &line, Duration::from_secs(5)).await {
                tracing::warn!(machine.id = %facts.machine, %error, "the clock of {} was not set", facts.machine);
            }
        } else {
            self.qmp().await?.resume(MEMORY).await?;
        }
        // From here on the memory on disk is of the past.
        let _ = std::fs::remove_file(self.memory());
        self.inspect().await?.ok_or_else(missing)
    }

    /// Ends the process and removes everything. Renamed first, so that a crash in between leaves no half machine.
    pub(super) async fn remove(&self, trash: &Path) -> Result<()> {
        hypervisor::end(&self.0).await?;
        let grave = trash.join(self.0.file_name().unwrap_or_default());
        // A call before this one may have ended between the rename and the removal.
        remove_if_there(&grave).await?;
        match std::fs::rename(&self.0, &grave) {
            Ok(()) => remove_if_there(&grave).await?,
            // There is none, or the wrapper of the process was quicker.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CloudError::io("remove a machine", &error)),
        }
        let _ = std::fs::remove_file(self.lock_file());
        Ok(())
    }

    async fn start(&self, config: &Config, facts: &Facts, memory: Option<PathBuf>) -> Result<()> {
        for stale in ["pid", "qmp.sock", "identity.sock"] {
            let _ = std::fs::remove_file(self.0.join(stale));
        }
        let restored = memory.is_some();
        let start = Start {
            directory: &self.0,
            image_dir: &config.image_dir,
            accel: accel::choose(&config.state_dir, &config.image_dir).await,
            emulated_cpu: &facts.emulated_cpu,
            size: facts.size,
            seed: facts.template.as_ref().map_or(self.seed(), |template| template.join("seed.img")),
            memory,
            port: facts.port,
            ephemeral: true,
        };
        start.spawn().await?;
        if restored {
            self.qmp().await?.wait_running(MEMORY).await?;
        }
        Ok(())
    }

    async fn identify(&self, mut facts: Facts, config: &AgentConfig) -> Result<Created> {
        let mut seed = [0; 64];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| CloudError::new(ErrorKind::Unavailable, "identify a machine", "no randomness"))?;
        let mut identity = serde_json::to_value(config.file())
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "identify a machine", error.to_string()))?;
        identity["hostname"] = json!(facts.machine.label());
        identity["seed"] = json!(hex::encode(seed));
        identity["now"] = json!(facts.created_at.timestamp());
        tell(&self.0.join("identity.sock"), &identity, IDENTITY).await?;
        facts.identified = true;
        self.write(&facts).await?;
        Ok(Created { id: ProviderId(facts.machine.label()), address: Some(address(facts.port)) })
    }

    /// `<state>/locks/<label>`: outside the directory, which comes and goes.
    fn lock_file(&self) -> PathBuf {
        let locks = self.0.ancestors().nth(2).unwrap_or(&self.0).join("locks");
        locks.join(self.0.file_name().unwrap_or_default())
    }

    async fn qmp(&self) -> Result<Qmp> {
        let (socket, until) = (self.0.join("qmp.sock"), Instant::now() + LISTENING);
        // The pid file is there a moment before it.
        while !socket.exists() && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        Qmp::connect(&socket).await
    }

    fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    fn seed(&self) -> PathBuf {
        self.0.join("seed.img")
    }

    /// `machine.json`; `None` when there is no machine.
    pub(super) async fn facts(&self) -> Result<Option<Facts>> {
        match tokio::fs::read(self.0.join("machine.json")).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| CloudError::new(ErrorKind::Protocol, "read machine.json", error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CloudError::io("read machine.json", &error)),
        }
    }

    async fn write(&self, facts: &Facts) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(facts)
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "write machine.json", error.to_string()))?;
        let partial = self.0.join("machine.json.partial");
        let io = |error: std::io::Error| CloudError::io("write machine.json", &error);
        tokio::fs::write(&partial, bytes).await.map_err(io)?;
        tokio::fs::rename(&partial, self.0.join("machine.json")).await.map_err(io)
    }
}

/// Sends one line to the agent's port and waits for its `ok`.
pub(super) async fn tell(socket: &Path, line: &Value, deadline: Duration) -> Result<()> {
    let doing = "identify a machine";
    let until = Instant::now() + deadline;
    let spoken = async {
        let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        let mut lines = BufReader::new(reader).lines();
        loop {
            match lines.next_line().await? {
                Some(answer) if answer.trim() == "ok" => return Ok(()),
                // What the agent said before it was asked.
                Some(_) => {}
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            }
        }
    };
    match tokio::time::timeout_at(until, spoken).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(CloudError::io(doing, &error)),
        Err(_) => Err(CloudError::new(ErrorKind::Timeout, doing, "its agent does not answer").ambiguous()),
    }
}

/// Waits for a word from the agent's port.
pub(super) async fn hear(socket: &Path, word: &str, deadline: Duration) -> Result<()> {
    let doing = "wait for a machine's agent";
    let heard = async {
        loop {
            if let Ok(stream) = UnixStream::connect(socket).await {
                let mut lines = BufReader::new(stream).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.trim() == word {
                        return;
                    }
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(deadline, heard)
        .await
        .map_err(|_| CloudError::new(ErrorKind::Timeout, doing, "it did not say that it is ready"))
}

pub(super) async fn remove_if_there(path: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CloudError::io("remove a directory", &error)),
        _ => Ok(()),
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

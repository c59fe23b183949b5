//! A private Postgres and Redis, on free ports, gone when the task ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::packages;
use xtask::registry::free_address;

/// Where Debian has Postgres' programs, clients too.
pub const BIN: &str = "/usr/lib/postgresql/15/bin";

/// The running services.
pub struct Services {
    /// The address of a database in which databases may be made.
    pub postgres_url: String,
    /// The address of an empty Redis.
    pub redis_url: String,
    directory: PathBuf,
    children: Vec<Child>,
}

impl Services {
    /// Installs what is missing and starts both.
    pub async fn start() -> anyhow::Result<Self> {
        packages::ensure(packages::SERVICES).await?;
        // The postgres user must reach it, which it cannot below a home directory.
        let directory = tempdir()?;
        let mut services =
            Self { postgres_url: String::new(), redis_url: String::new(), directory, children: Vec::new() };
        services.postgres().await?;
        services.redis().await?;
        Ok(services)
    }

    async fn postgres(&mut self) -> anyhow::Result<()> {
        let data = self.directory.join("postgres");
        let port = free_address().await?.port();
        let mut init = as_postgres(&format!("{BIN}/initdb"));
        init.args(["-U", "postgres", "-A", "trust", "--no-sync", "-D"]).arg(&data).stdout(Stdio::null());
        let status = init.status().await.context("run initdb")?;
        if !status.success() {
            bail!("initdb failed ({status})");
        }
        let log = std::fs::File::create(self.directory.join("postgres.log")).context("make a log")?;
        let mut server = as_postgres(&format!("{BIN}/postgres"));
        server.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]);
        server.args(["-c", "max_connections=400", "-k"]).arg(&self.directory);
        server.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).kill_on_drop(true);
        self.children.push(server.spawn().context("start postgres")?);
        self.postgres_url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        listening(port, "Postgres").await
    }

    async fn redis(&mut self) -> anyhow::Result<()> {
        let port = free_address().await?.port();
        let mut server = Command::new("redis-server");
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        server.arg(&self.directory).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).kill_on_drop(true);
        self.children.push(server.spawn().context("start redis-server")?);
        self.redis_url = format!("redis://127.0.0.1:{port}");
        listening(port, "Redis").await
    }

    /// Stops both and removes what they kept.
    pub async fn stop(mut self) {
        for child in &mut self.children {
            if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
                // SIGINT is Postgres' fast shutdown, and ends Redis too.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
            let _ = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Postgres refuses to run as root.
fn as_postgres(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

fn tempdir() -> anyhow::Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("stagely-services-{}", std::process::id()));
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    if rustix::process::geteuid().is_root() {
        let status =
            std::process::Command::new("chown").arg("postgres").arg(&directory).status().context("run chown")?;
        if !status.success() {
            bail!("chown of {} failed", directory.display());
        }
    }
    Ok(directory)
}

async fn listening(port: u16, name: &str) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if Instant::now() > until {
            bail!("{name} does not listen after thirty seconds");
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Whether a path is a directory with something in it.
pub fn occupied(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

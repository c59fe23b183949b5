//! Image registries of one's own: CNCF distribution (`docker-registry`, from Debian's package) on this machine,
//! configured by the files in `deploy/registry/`, with what differs from machine to machine in its environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The program, from the package of the same name.
const PROGRAM: &str = "docker-registry";

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A certificate and its key, PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Whom the registry serves.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody may read and nobody may write: `deploy/registry/base-images.yml`.
    BaseImages,
    /// Who shows a token of ours: `deploy/registry/images.yml`.
    Images {
        /// The token endpoint as clients reach it, machines among them.
        realm: String,
        /// The certificate of the key that signs tokens.
        root_bundle: PathBuf,
    },
}

/// One registry to be.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it keeps images.
    pub store: PathBuf,
    /// Its log; what was in it is kept.
    pub log: PathBuf,
    /// Its certificate. Docker wants one from every registry that is not on its own loopback.
    pub tls: Tls,
    /// Whom it serves.
    pub access: Access,
}

/// A registry that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Registry {
    /// Starts it and waits until it listens. `workspace` is the repository's root.
    ///
    /// # Errors
    /// When the program is not installed, or ends at once; the message has the end of its log.
    pub async fn start(&self, workspace: &Path) -> anyhow::Result<Running> {
        let (file, mut environment) = match &self.access {
            Access::BaseImages => ("base-images.yml", Vec::new()),
            Access::Images { realm, root_bundle } => {
                let token = |name: &str, value: String| (format!("REGISTRY_AUTH_TOKEN_{name}"), value);
                let bundle = root_bundle.display().to_string();
                ("images.yml", vec![token("REALM", realm.clone()), token("ROOTCERTBUNDLE", bundle)])
            }
        };
        environment.extend([
            ("REGISTRY_HTTP_ADDR".to_owned(), self.listen.to_string()),
            ("REGISTRY_HTTP_TLS_CERTIFICATE".to_owned(), self.tls.certificate.display().to_string()),
            ("REGISTRY_HTTP_TLS_KEY".to_owned(), self.tls.key.display().to_string()),
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY".to_owned(), self.store.display().to_string()),
        ]);
        let config = workspace.join("deploy/registry").join(file);
        start(&config, environment, self.listen, &self.store, &self.log).await
    }

    /// Frees the space of images that no tag names. The registry must not run meanwhile: what is being pushed has
    /// no tag yet.
    ///
    /// # Errors
    /// When the program fails; the message has what it printed.
    pub async fn collect_garbage(&self, workspace: &Path) -> anyhow::Result<()> {
        if !self.store.join("docker").is_dir() {
            return Ok(());
        }
        let output = Command::new(PROGRAM)
            .args(["garbage-collect", "--delete-untagged"])
            .arg(workspace.join("deploy/registry/images.yml"))
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", &self.store)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            timeout(Duration::from_secs(300), output).await.context("the registry's garbage collection hangs")?;
        let output = output.with_context(|| format!("run {PROGRAM}: apt-get install docker-registry"))?;
        if !output.status.success() {
            bail!("{PROGRAM} garbage-collect: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Running {
    /// Asks it to end, and waits for it.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Starts a registry that anybody on this machine may write to, without TLS, for as long as it takes to fill it.
pub(crate) async fn start_for_filling(store: &Path, scratch: &Path) -> anyhow::Result<(Running, SocketAddr)> {
    std::fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
    let listen = free_address().await?;
    let config = scratch.join("filling.yml");
    let settings = serde_json::json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": store}},
        "http": {"addr": listen.to_string()},
    });
    // JSON is YAML.
    std::fs::write(&config, settings.to_string()).with_context(|| format!("write {}", config.display()))?;
    let running = start(&config, Vec::new(), listen, store, &scratch.join("filling.log")).await?;
    Ok((running, listen))
}

/// A loopback address on which nobody listens just now; the registry cannot choose one and tell.
///
/// # Errors
/// When there is none.
pub async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("look for a free port")?;
    Ok(listener.local_addr()?)
}

/// Every repository of a store with its tags, read from the registry's own files; none for a store that is not
/// there. A repository without tags is left out.
///
/// # Errors
/// When the files cannot be read.
pub fn repositories_and_tags(store: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let root = store.join("docker/registry/v2/repositories");
    let mut found = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for name in names(&directory)? {
            let path = directory.join(&name);
            if name == "_manifests" {
                let tags: BTreeSet<_> = names(&path.join("tags"))?.into_iter().collect();
                let repository = directory.strip_prefix(&root).unwrap_or(&directory).display().to_string();
                if !tags.is_empty() {
                    found.insert(repository, tags);
                }
            } else if !name.starts_with('_') && path.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(found)
}

/// The digest that a tag of a store names.
pub(crate) fn find_digest(store: &Path, repository: &str, tag: &str) -> Option<String> {
    let path = format!("docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
    std::fs::read_to_string(store.join(path)).ok().map(|text| text.trim().to_owned())
}

async fn start(
    config: &Path,
    environment: Vec<(String, String)>,
    listen: SocketAddr,
    store: &Path,
    log: &Path,
) -> anyhow::Result<Running> {
    std::fs::create_dir_all(store).with_context(|| format!("make {}", store.display()))?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let file = file.with_context(|| format!("open {}", log.display()))?;
    let mut child = Command::new(PROGRAM)
        .arg("serve")
        .arg(config)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share the log")?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {PROGRAM}: apt-get install docker-registry"))?;
    let listens = async {
        loop {
            // Its end is looked at first: somebody else may listen at the address.
            if let Some(status) = child.try_wait().context("wait for the registry")? {
                bail!("the registry at {listen} ended with {status}: {}", tail(log));
            }
            if TcpStream::connect(listen).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(30)).await;
        }
    };
    timeout(START, listens)
        .await
        .with_context(|| format!("the registry at {listen} does not listen: {}", tail(log)))??;
    Ok(Running { child })
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// The names in a directory; none when it is not there.
fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", directory.display()))?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

//! Checking a commit out. The exact commit is fetched, shallow, and nothing else: branch names are not used. The
//! token goes to git through its environment, for the one repository's URL alone, so it is in no argument list
//! and in no file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use stagely_domain::failure::Code;
use stagely_proto::agent;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::Tools;
use crate::fault::{self, Fault, Stop};
use crate::files;
use crate::logs::Writer;
use crate::process::Command;

const PHASE: &str = "checkout";
const FETCH_DEADLINE: Duration = Duration::from_secs(900);

/// Brings `directory` to the commit. Files that git does not know are left alone: running containers may keep
/// their data there.
///
/// # Errors
/// If the commit cannot be fetched, or the work is called off.
pub async fn ensure(
    tools: &Tools,
    checkout: &agent::Checkout,
    directory: &Path,
    log: &mut Writer,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let git = Git::new(tools, checkout, directory.join(".git"))?;
    git.fetch(log, cancel).await?;
    let args = ["checkout", "--force", "--detach", checkout.sha.as_str()];
    git.run(git.command(args).cwd(directory), log, cancel).await?;
    if directory.join(".gitmodules").is_file() {
        let args = ["submodule", "update", "--init", "--recursive", "--depth", "1"];
        let command = git.command(args).cwd(directory).deadline(FETCH_DEADLINE);
        git.run(command, log, cancel).await?;
    }
    Ok(())
}

/// Git objects of earlier commits, one mirror for each repository's URL.
pub struct Store {
    directory: PathBuf,
    turn: Mutex<()>,
}

impl Store {
    /// The store in `directory`, which is made when it is needed.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, turn: Mutex::new(()) }
    }
}

/// Writes the commit's files to `directory`, from `store`, which is kept between commits, so
/// that the next commit only fetches what changed. There is no `.git` in `directory`.
///
/// # Errors
/// If the commit cannot be fetched, or the work is called off.
pub async fn export(
    tools: &Tools,
    checkout: &agent::Checkout,
    store: &Store,
    directory: &Path,
    log: &mut Writer,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let name = hex::encode(digest(&SHA256, checkout.url.as_bytes()));
    let mirror = store.directory.join(format!("{}.git", &name[..32]));
    let git = Git::new(tools, checkout, mirror)?;
    {
        // Git itself refuses two fetches into one shallow store.
        let _turn = tokio::select! {
            () = cancel.cancelled() => return Err(Stop::Cancelled),
            turn = store.turn.lock() => turn,
        };
        git.fetch(log, cancel).await?;
    }
    std::fs::create_dir_all(directory).map_err(|error| failed(error.to_string()))?;
    // An index of its own lets several commits be written at once.
    let index = directory.with_extension("index");
    let command = git
        .command(["checkout", "--force", checkout.sha.as_str(), "--", "."])
        .env("GIT_WORK_TREE", directory.display().to_string())
        .env("GIT_INDEX_FILE", index.display().to_string())
        .cwd(directory);
    let done = git.run(command, log, cancel).await;
    let _ = files::drop_file(&index);
    done
}

struct Git<'a> {
    tools: &'a Tools,
    checkout: &'a agent::Checkout,
    directory: PathBuf,
}

impl<'a> Git<'a> {
    fn new(tools: &'a Tools, checkout: &'a agent::Checkout, directory: PathBuf) -> Result<Self, Stop> {
        let sha = &checkout.sha;
        if !matches!(sha.len(), 40 | 64) || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(failed(format!("{sha:?} is not a full commit id")));
        }
        Ok(Self { tools, checkout, directory })
    }

    async fn fetch(&self, log: &mut Writer, cancel: &CancellationToken) -> Result<(), Stop> {
        if !self.directory.join("HEAD").is_file() {
            let directory = self.directory.display().to_string();
            std::fs::create_dir_all(&self.directory).map_err(|error| failed(error.to_string()))?;
            let init = Command::new(&self.tools.git, ["init", "--quiet", "--bare", &directory]);
            self.run(init, log, cancel).await?;
            // A checkout's store is made like a bare one and then told that it has files beside it.
            if self.directory.ends_with(".git") {
                let args = ["config", "core.bare", "false"];
                self.run(self.command(args), log, cancel).await?;
            }
        }
        let sha = self.checkout.sha.as_str();
        let known = format!("{sha}^{{commit}}");
        let look = self.command(["cat-file", "-e", known.as_str()]);
        if look.capture(cancel).await.is_ok_and(|ended| ended.code == 0) {
            return Ok(());
        }
        let args = ["fetch", "--quiet", "--no-tags", "--depth", "1", "--", self.checkout.url.as_str(), sha];
        let command = self.command(args).deadline(FETCH_DEADLINE);
        self.run(command, log, cancel).await
    }

    fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut settings = vec![
            ("safe.directory".to_owned(), "*".to_owned()),
            ("protocol.ext.allow".to_owned(), "never".to_owned()),
            ("gc.auto".to_owned(), "0".to_owned()),
            ("advice.detachedHead".to_owned(), "false".to_owned()),
        ];
        if !self.checkout.token.is_empty() {
            let user = match self.checkout.username.as_str() {
                "" => "x-access-token",
                name => name,
            };
            let basic = STANDARD.encode(format!("{user}:{}", self.checkout.token));
            // For this repository's host alone: a redirect or a submodule elsewhere gets nothing.
            settings.push((
                format!("http.{}.extraHeader", origin(&self.checkout.url)),
                format!("Authorization: Basic {basic}"),
            ));
        }
        let mut command = Command::new(&self.tools.git, args)
            .env("GIT_DIR", self.directory.display().to_string())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (key, value)) in settings.into_iter().enumerate() {
            command = command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command
    }

    async fn run(&self, command: Command, log: &mut Writer, cancel: &CancellationToken) -> Result<(), Stop> {
        let ended =
            command.log(log, cancel).await.map_err(|error| fault::of_process(error, Code::CheckoutFailed, PHASE))?;
        if ended.code == 0 {
            return Ok(());
        }
        let message = format!("git could not get commit {} from {}", self.checkout.sha, origin(&self.checkout.url));
        Err(Fault::new(Code::CheckoutFailed, PHASE, message).exit(ended.code).tail(ended.tail).into())
    }
}

/// Scheme, host and port of a URL, with the slash.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find('/') {
        Some(at) => &url[..=start + at],
        None => url,
    }
}

fn failed(message: String) -> Stop {
    Fault::new(Code::CheckoutFailed, PHASE, message).into()
}

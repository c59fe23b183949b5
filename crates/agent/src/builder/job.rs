//! One build: checkout, `docker build` with BuildKit, `docker push`, and the digest under which the registry has
//! the image.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stagely_domain::failure::Code;
use stagely_proto::agent::build_status::State;
use stagely_proto::agent::{Build, Checkout};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context;
use super::progress::Progress;
use crate::fault::{self, Fault, Stop};
use crate::machine::Machine;
use crate::process::{Command, Finished};
use crate::{checkout, files, registry};

const PHASE: &str = "build";
const DEADLINE: Duration = Duration::from_secs(3600);

/// Builds and pushes; answers the digest. `see` hears of state, cached and all steps.
pub async fn run(
    machine: &Machine,
    store: &checkout::Store,
    build: &Build,
    see: &impl Fn(State, u32, u32),
    cancel: &CancellationToken,
) -> Result<String, Stop> {
    let job = Job::new(machine, build)?;
    see(State::Building, 0, 0);
    let result = job.build_and_push(store, see, cancel).await;
    // The workspace goes in any case; what stays is the store of git objects and Docker's own cache.
    let _ = std::fs::remove_dir_all(&job.directory);
    let _ = std::fs::remove_dir_all(&job.secrets);
    result
}

struct Job<'a> {
    machine: &'a Machine,
    build: &'a Build,
    directory: PathBuf,
    secrets: PathBuf,
    give_up: Instant,
}

impl<'a> Job<'a> {
    fn new(machine: &'a Machine, build: &'a Build) -> Result<Self, Stop> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if build.job_id.is_empty() || !build.job_id.chars().all(plain) {
            return Err(failed(format!("{:?} is no job id", build.job_id)).into());
        }
        let deadline = match build.timeout_secs {
            0 => DEADLINE,
            secs => Duration::from_secs(u64::from(secs)),
        };
        let paths = &machine.config.paths;
        Ok(Self {
            machine,
            build,
            directory: paths.state.join("builds").join(&build.job_id),
            secrets: paths.run.join("build-secrets").join(&build.job_id),
            give_up: Instant::now() + deadline,
        })
    }

    async fn build_and_push(
        &self,
        store: &checkout::Store,
        see: &impl Fn(State, u32, u32),
        cancel: &CancellationToken,
    ) -> Result<String, Stop> {
        let stream = format!("build/{}", self.build.job_id);
        let mut log = self.machine.logs.writer(&stream);
        let nothing = Checkout::default();
        let commit = self.build.checkout.as_ref().unwrap_or(&nothing);
        let tools = &self.machine.config.tools;
        checkout::export(tools, commit, store, &self.directory, &mut log, cancel).await?;
        self.machine.engine.wait_ready(Duration::from_secs(120)).await.map_err(|error| failed(error.to_string()))?;

        let command = self.build_command()?;
        let mut progress = Progress::default();
        let ended = command
            .watch(cancel, |bytes| {
                log.write(bytes);
                let before = progress.counts();
                progress.push(bytes);
                let (cached, total) = progress.counts();
                if (cached, total) != before {
                    see(State::Building, cached, total);
                }
            })
            .await
            .map_err(|error| match fault::of_process(error, Code::BuildFailed, PHASE) {
                Stop::Failed(fault) => fault.tail(std::mem::take(&mut progress).tail()).into(),
                Stop::Cancelled => Stop::Cancelled,
            })?;
        if ended.code != 0 {
            let (message, code) = progress.failure();
            let code = code.unwrap_or(ended.code);
            return Err(failed(message).exit(code).tail(progress.tail()).into());
        }
        let (cached, total) = progress.counts();
        see(State::Pushing, cached, total);
        let ended = self
            .client(self.machine.config.tools.docker.clone(), ["push", self.build.image.as_str()])
            .log(&mut log, cancel)
            .await
            .map_err(|error| fault::of_process(error, Code::RegistryFailed, "push"))?;
        self.digest(&ended).await
    }

    /// The engine's own record first: it is kept under the repository's name after a push. The client's output
    /// is the second source.
    async fn digest(&self, pushed: &Finished) -> Result<String, Stop> {
        let image = &self.build.image;
        let refuse = |message: String| {
            Fault::new(Code::RegistryFailed, "push", message)
                .of_service(image)
                .exit(pushed.code)
                .tail(pushed.tail.clone())
        };
        if pushed.code != 0 {
            return Err(refuse("the image could not be pushed".to_owned()).into());
        }
        let found = self.machine.engine.find_image(image).await;
        let known = found.ok().flatten();
        let digest = known
            .as_ref()
            .and_then(|image| image.digest_in(&self.build.image))
            .or_else(|| digest_in_output(&pushed.tail));
        match digest {
            Some(digest) => Ok(digest.to_owned()),
            None => Err(refuse("the registry gave no digest".to_owned()).into()),
        }
    }

    fn build_command(&self) -> Result<Command, Stop> {
        let build = self.build;
        let directory = context::inside(&self.directory, &build.context, "context")?;
        // As `docker build -f`: relative to the repository, else to the context.
        let name = match build.dockerfile.as_str() {
            "" => "Dockerfile",
            name => name,
        };
        let root = self.directory.canonicalize().unwrap_or_default();
        let in_context = directory.strip_prefix(&root).unwrap_or(Path::new("")).join(name);
        let dockerfile = context::inside(&self.directory, &in_context.display().to_string(), "dockerfile")
            .or_else(|fault| context::inside(&self.directory, name, "dockerfile").map_err(|_| fault))?;
        let mut args: Vec<String> = ["build", "--progress", "plain", "--file"].map(str::to_owned).into();
        args.push(dockerfile.display().to_string());
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--tag", build.image.clone());
        option("--label", format!("com.stagely.job={}", build.job_id));
        if let Some(commit) = &build.checkout {
            option("--label", format!("org.opencontainers.image.revision={}", commit.sha));
        }
        if !build.platform.is_empty() {
            option("--platform", build.platform.clone());
        }
        if !build.stage.is_empty() {
            option("--target", build.stage.clone());
        }
        let mut names: Vec<_> = build.args.iter().collect();
        names.sort();
        for (name, value) in names {
            option("--build-arg", format!("{name}={value}"));
        }
        for (at, (name, value)) in build.secrets.iter().enumerate() {
            if name.contains([',', '=', '\n']) {
                return Err(failed(format!("{name:?} is no name for a secret")).into());
            }
            let path = self.secrets.join(at.to_string());
            files::write_private(&path, value.as_bytes()).map_err(|error| failed(error.to_string()))?;
            option("--secret", format!("id={name},src={}", path.display()));
        }
        args.push(directory.display().to_string());
        let tools = &self.machine.config.tools;
        let program = tools.plugin("buildx").unwrap_or_else(|| tools.docker.clone());
        // What is built is an export of a commit: there is no repository to be asked about it.
        Ok(self.client(program, args).env("DOCKER_BUILDKIT", "1").env("BUILDX_GIT_INFO", "false"))
    }

    /// A command of the Docker client or of its plugins.
    fn client<A: Into<String>>(&self, program: PathBuf, args: impl IntoIterator<Item = A>) -> Command {
        let config = &self.machine.config;
        Command::new(program, args)
            .env("DOCKER_CONFIG", registry::client_directory(&config.paths).display().to_string())
            .env("DOCKER_HOST", format!("unix://{}", config.paths.docker_socket.display()))
            .deadline(self.give_up.saturating_duration_since(Instant::now()))
    }
}

/// `pr-1: digest: sha256:… size: 1234`.
fn digest_in_output(tail: &str) -> Option<&str> {
    let (_, rest) = tail.rsplit_once("digest: ")?;
    rest.split_whitespace().next()
}

fn failed(message: impl Into<String>) -> Fault {
    Fault::new(Code::BuildFailed, PHASE, message)
}

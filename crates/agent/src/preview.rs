//! A pull request's compose project: bringing it to what the hub wishes, and watching over it afterwards.

use std::path::PathBuf;
use std::time::Duration;

use stagely_domain::failure::Code;
use stagely_proto::agent::preview::Wish;
use stagely_proto::agent::{Checkout, Phase, Preview};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::compose::Compose;
use crate::fault::{self, Fault, Stop};
use crate::machine::{Machine, Report};
use crate::process::Command;
use crate::{checkout, registry};

mod hooks;
mod listening;
mod ready;
mod service_logs;
mod watch;

pub use service_logs::ServiceLogs;

const PULL_DEADLINE: Duration = Duration::from_secs(1800);
const UP_DEADLINE: Duration = Duration::from_secs(900);

/// Works towards `preview`, reports how it went, and stays to watch over what runs until called off.
pub async fn run(
    machine: &Machine,
    service_logs: &ServiceLogs,
    generation: u64,
    preview: &Preview,
    cancel: &CancellationToken,
) {
    hide(machine, preview);
    let mut report = Report::begin(machine, generation);
    let stopping = preview.wish() == Wish::Stopped;
    let result = if stopping {
        stop(machine, preview, &mut report, cancel).await
    } else {
        start(machine, service_logs, preview, &mut report, cancel).await
    };
    match result {
        Err(Stop::Cancelled) => info!("generation {generation} was superseded"),
        Err(Stop::Failed(fault)) => {
            report.fail(&fault);
            if !stopping {
                watch::run(machine, service_logs, preview, &mut report, cancel).await;
            }
        }
        Ok(()) if stopping => {
            info!("generation {generation} is stopped");
            report.end(Phase::Stopped);
        }
        Ok(()) => {
            info!("generation {generation} is running");
            report.end(Phase::Running);
            watch::run(machine, service_logs, preview, &mut report, cancel).await;
        }
    }
}

/// What must not leave the machine: what the hub says, and the tokens it gave us.
fn hide(machine: &Machine, preview: &Preview) {
    let tokens = [
        preview.checkout.as_ref().map(|checkout| &checkout.token),
        preview.registry.as_ref().map(|registry| &registry.password),
    ];
    let tokens = tokens.into_iter().flatten();
    machine.logs.hide(preview.masked.iter().chain(tokens).map(String::as_str));
}

async fn start(
    machine: &Machine,
    service_logs: &ServiceLogs,
    preview: &Preview,
    report: &mut Report,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let mut log = machine.logs.writer("compose");
    let directory = directory(machine);
    let nothing = Checkout::default();
    let commit = preview.checkout.as_ref().unwrap_or(&nothing);
    let tools = &machine.config.tools;
    let fetch = checkout::ensure(tools, commit, &directory, &mut log, cancel);
    report.step("checkout", fetch).await?;

    let compose = Compose::of_preview(&machine.config, preview, &directory)?;
    let pulling = pull(machine, &compose, preview, &mut log, cancel);
    let build = report.step("pull", pulling).await?;
    let mut args = vec!["up", "--detach", "--remove-orphans"];
    if !build {
        args.push("--no-build");
    }
    let up = async {
        let ended = compose
            .command(&args, UP_DEADLINE)
            .log(&mut log, cancel)
            .await
            .map_err(|error| fault::of_process(error, Code::ComposeFailed, "up"))?;
        if ended.code == 0 {
            return Ok(());
        }
        Err(ready::blame(machine, compose.project(), ended.code, ended.tail).await)
    };
    let result = report.step("up", up).await;
    // Also after a failure: what the services printed says why.
    service_logs.attach(machine, &preview.project_name).await;
    result?;
    let on_start = hooks::run(machine, compose.project(), &preview.on_start, "on_start", cancel);
    report.step("on_start", on_start).await?;
    let healthy = ready::wait(machine, preview, cancel);
    let services = report.step("healthy", healthy).await?;
    report.services(services);
    Ok(())
}

/// Asks the engine for the images that Stagely built, until called off. One that fails is tried again, and told of, by
/// compose.
async fn fetch_built(machine: &Machine, preview: &Preview, cancel: &CancellationToken) {
    let _ = cancel.run_until_cancelled(fetch_each_built(machine, preview)).await;
}

async fn fetch_each_built(machine: &Machine, preview: &Preview) {
    let Some(access) = preview.registry.as_ref().filter(|access| !access.host.is_empty()) else { return };
    // The hub writes the override as JSON, which is YAML.
    let overlaid: serde_json::Value = serde_json::from_str(&preview.override_yaml).unwrap_or_default();
    let services = overlaid["services"].as_object().into_iter().flat_map(|services| services.values());
    let mut images: Vec<&str> = services.filter_map(|service| service["image"].as_str()).collect();
    images.sort_unstable();
    images.dedup();
    let login = registry::login(access);
    for image in images.into_iter().filter(|image| image.starts_with(&format!("{}/", access.host))) {
        let Some((repository, digest)) = image.split_once('@') else { continue };
        if matches!(machine.engine.find_image(image).await, Ok(None))
            && let Err(error) = machine.engine.pull(repository, digest, &login, PULL_DEADLINE).await
        {
            tracing::debug!(%error, "left to compose");
        }
    }
}

/// Gets the images that are not here yet. Answers whether compose has to build some itself.
async fn pull(
    machine: &Machine,
    compose: &Compose,
    preview: &Preview,
    log: &mut crate::logs::Writer,
    cancel: &CancellationToken,
) -> Result<bool, Stop> {
    registry::ensure(&machine.config.paths, preview.registry.as_ref())?;
    let engine_failed = |error: crate::docker::Error| Stop::from(Fault::new(Code::Internal, "pull", error.to_string()));
    machine.engine.wait_ready(Duration::from_secs(120)).await.map_err(engine_failed)?;
    // Starting the client takes longer than getting one changed layer, so both go on at once.
    let (services, ()) = tokio::join!(compose.services(cancel), fetch_built(machine, preview, cancel));
    let services = services?;
    let mut build = false;
    let mut args = vec!["pull".to_owned(), "--quiet".to_owned()];
    for (name, service) in &services {
        if service.build.is_some() && !service.image.contains('@') {
            build = true;
            continue;
        }
        if service.image.is_empty() {
            continue;
        }
        let here = machine.engine.find_image(&service.image).await;
        if here.map_err(engine_failed)?.is_none() {
            args.push(name.clone());
        }
    }
    if args.len() > 2 {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ended = compose
            .command(&args, PULL_DEADLINE)
            .log(log, cancel)
            .await
            .map_err(|error| fault::of_process(error, Code::RegistryFailed, "pull"))?;
        if ended.code != 0 {
            let service = services
                .iter()
                .find(|(name, service)| {
                    ended.tail.lines().any(|line| {
                        line.contains("rror")
                            && (line.split_whitespace().any(|word| word == name.as_str())
                                || line.contains(&service.image))
                    })
                })
                .map(|(name, _)| name.clone())
                .unwrap_or_default();
            let message = "an image could not be pulled".to_owned();
            return Err(Fault::new(Code::RegistryFailed, "pull", message)
                .of_service(service)
                .exit(ended.code)
                .tail(ended.tail)
                .into());
        }
    }
    Ok(build)
}

/// Runs the `on_stop` hooks, then ends everything. A hook that fails does not keep the machine.
async fn stop(
    machine: &Machine,
    preview: &Preview,
    report: &mut Report,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    machine.targets.replace(std::collections::HashMap::new());
    let directory = directory(machine);
    let mut compose = match Compose::of_preview(&machine.config, preview, &directory) {
        Ok(compose) => compose,
        // Never checked out, or gone: the labels of what runs are enough.
        Err(_) => Compose::by_name(&machine.config, &preview.project_name)?,
    };
    let hooks = hooks::run(machine, compose.project(), &preview.on_stop, "on_stop", cancel);
    match report.step("on_stop", hooks).await {
        Err(Stop::Failed(fault)) => {
            machine.logs.writer("compose").line(&fault.message);
        }
        other => other?,
    }
    let mut log = machine.logs.writer("compose");
    let grace = preview.stop_grace_secs.to_string();
    let deadline = Duration::from_secs(u64::from(preview.stop_grace_secs) + 300);
    let down = async {
        let stop = ["stop", "--timeout", &grace];
        if finish(compose.command(&stop, deadline), &mut log, cancel).await?.code != 0 {
            // Compose does not take the files, or what runs is not of them any more: the labels are enough.
            compose = Compose::by_name(&machine.config, &preview.project_name)?;
            let _ = finish(compose.command(&stop, deadline), &mut log, cancel).await?;
        }
        let down = ["down", "--volumes", "--remove-orphans", "--timeout", &grace];
        let ended = finish(compose.command(&down, deadline), &mut log, cancel).await?;
        if ended.code == 0 {
            return Ok(());
        }
        let message = "docker compose down failed";
        Err(Fault::new(Code::ComposeFailed, "down", message).exit(ended.code).tail(ended.tail).into())
    };
    report.step("down", down).await
}

async fn finish(
    command: Command,
    log: &mut crate::logs::Writer,
    cancel: &CancellationToken,
) -> Result<crate::process::Finished, Stop> {
    command.log(log, cancel).await.map_err(|error| fault::of_process(error, Code::ComposeFailed, "down"))
}

fn directory(machine: &Machine) -> PathBuf {
    machine.config.paths.state.join("checkout")
}

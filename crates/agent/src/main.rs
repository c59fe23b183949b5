//! `stagely-agent`: see the library.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use stagely_agent::agent::{self, Ended, Signals};
use stagely_agent::config::{Config, End};
use stagely_agent::docker::Engine;
use stagely_agent::identity::{Identity, handover, port};
use tokio::io::BufReader;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

const USAGE: &str = "usage: stagely-agent [--wait-for-identity] [--observe-end]";

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO).init();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let mut config = Config::default();
    let mut wait = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--wait-for-identity" => wait = true,
            // Stops the workload when the machine's time is over but leaves the machine on.
            "--observe-end" => config.end = End::Observe,
            _ => anyhow::bail!("unknown argument {argument:?}; {USAGE}"),
        }
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider is installed already");
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(run(config, wait))
}

async fn run(config: Config, wait: bool) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stop = cancel.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        stop.cancel();
    });

    let signals = Signals::default();
    let path = Path::new(port::PATH);
    let has_port = wait && path.exists();
    let found = Identity::find(&config.paths.identity)?;
    let identity = match found {
        Some(identity) => {
            if has_port {
                let stream = BufReader::new(port::Port::open(path).context("open the host's port")?);
                let woken = signals.woken.clone();
                tasks.spawn(handover::listen(stream, handover::Host::default(), woken, cancel.clone()));
            }
            identity
        }
        None if has_port => {
            let engine = Engine::new(&config.paths.docker_socket, tasks.clone());
            engine.wait_ready(Duration::from_secs(600)).await.context("wait for Docker")?;
            let mut stream = BufReader::new(port::Port::open(path).context("open the host's port")?);
            announce();
            let host = handover::Host::default();
            let identity = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                // A copy of a template whose control plane died before it said whose machine this is.
                () = tokio::time::sleep(config.timing.enrolment) => {
                    agent::over(&config, agent::unenrolled(&config)).await;
                    return Ok(());
                }
                identity = handover::receive(&mut stream, &config, &host) => identity?,
            };
            let woken = signals.woken.clone();
            tasks.spawn(handover::listen(stream, host, woken, cancel.clone()));
            identity
        }
        None => anyhow::bail!("there is no identity at {}", config.paths.identity.display()),
    };
    let ended = agent::run(config, identity, signals, cancel.clone()).await?;
    cancel.cancel();
    if let Ended::MachineOver(reason) = ended {
        info!("done: {reason}");
    }
    Ok(())
}

/// Says on the journal and the console that the template is complete: whoever saves it waits for this line.
fn announce() {
    let line = b"stagely-agent: waiting for identity\n";
    // Without a console nobody waits for the line.
    let _ = std::io::stdout().write_all(line);
    if let Ok(mut console) = std::fs::OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(line);
    }
}

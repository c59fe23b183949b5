//! The agent as a whole: identity, enrolment, connection, work, ingress, lease - and the end of the machine.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use stagely_domain::clock::{Clock as _, SystemClock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::config::{Config, End};
use crate::credentials::{Credentials, Granted};
use crate::docker::Engine;
use crate::identity::Identity;
use crate::ingress::Ingress;
use crate::lease::Lease;
use crate::link::{Link, Over};
use crate::logs::LogBook;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::process::Command;
use crate::targets::Targets;
use crate::{enrol, files, sync};

/// How the agent's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop; the machine goes on.
    Stopped,
    /// The machine's time is over, and why.
    MachineOver(String),
}

/// What the agent and those who run it tell each other meanwhile.
#[derive(Default)]
pub struct Signals {
    /// Given by who listens to the host: the machine woke from hibernation, and the agent connects anew.
    pub woken: Arc<Notify>,
    /// Given by the agent: the ingress's address, once it listens. Only tests ask for it.
    pub ingress: Option<watch::Sender<Option<std::net::SocketAddr>>>,
}

/// Runs until `cancel`, or until the machine must end.
///
/// # Errors
/// If the machine's own files cannot be used.
pub async fn run(
    config: Config,
    mut identity: Identity,
    signals: Signals,
    cancel: CancellationToken,
) -> anyhow::Result<Ended> {
    files::ensure_private_dir(&config.paths.run).context("use the run directory")?;
    let tasks = TaskTracker::new();
    let credentials =
        Arc::new(Credentials::open(&config.paths.state, identity.machine_id).context("open credentials")?);
    let resumed = credentials.find_granted().context("read credentials")?;
    let renewal_due = resumed.is_some();
    let granted = match resumed {
        Some(granted) => granted,
        None => match enrolled(&config, &identity, &credentials, &tasks, &cancel).await? {
            Enrolment::Granted(granted) => granted,
            Enrolment::Stopped => return Ok(Ended::Stopped),
            Enrolment::Never(reason) => return Ok(over(&config, reason).await),
        },
    };
    identity.forget_token(&config.paths.identity).context("forget the enrolment token")?;
    // Cloud-init's dead-man's switch looks for this file.
    files::write_public(&config.paths.run.join("enrolled"), b"").context("say that the machine is enrolled")?;

    let work = cancel.child_token();
    let machine = Machine {
        engine: Engine::new(&config.paths.docker_socket, tasks.clone()),
        logs: LogBook::default(),
        outbox: Outbox::new(credentials.count_start().context("count starts")?),
        targets: Targets::default(),
        tasks: tasks.clone(),
        cancel: work.clone(),
        started: SystemClock.now().timestamp(),
        config: config.clone(),
    };
    let (wish, wishes) = mpsc::channel(16);
    let granted = watch::Sender::new(granted);
    let ingress = Ingress::bind(
        identity.ingress_port,
        identity.machine_id,
        credentials.key_der(),
        granted.subscribe(),
        machine.targets.clone(),
    )
    .await?;
    if let Some(sender) = &signals.ingress {
        sender.send_replace(ingress.address());
    }
    let lease = Lease::new(config.timing.first_lease);
    let link = Link {
        identity,
        credentials,
        granted,
        outbox: machine.outbox.clone(),
        logs: machine.logs.clone(),
        desired: wish,
        lease: lease.clone(),
        woken: signals.woken,
        timing: config.timing,
        renewal_due,
    };
    let syncing = tasks.spawn(sync::run(machine.clone(), wishes, work.clone()));
    tasks.spawn(serve(ingress, tasks.clone(), work.clone()));

    let ended = tokio::select! {
        over = link.run(work.clone()) => match over {
            Over::Stopped => Ended::Stopped,
            Over::NotWanted(reason) => Ended::MachineOver(format!("not wanted any more: {reason}")),
        },
        () = lease.lapsed() => Ended::MachineOver("its lease lapsed".to_owned()),
    };
    work.cancel();
    let _ = syncing.await;
    if let Ended::MachineOver(reason) = &ended {
        end_machine(&machine, reason).await;
    }
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    Ok(ended)
}

async fn serve(ingress: Ingress, tasks: TaskTracker, cancel: CancellationToken) {
    if let Err(error) = ingress.run(tasks, cancel).await {
        error!(%error, "the ingress cannot serve");
    }
}

/// How asking to be enrolled ended.
enum Enrolment {
    Granted(Granted),
    Stopped,
    /// And why: nobody can ever reach this machine, so it must not stay.
    Never(String),
}

/// Asks until the hub answers, but not for ever; a refusal is final.
async fn enrolled(
    config: &Config,
    identity: &Identity,
    credentials: &Credentials,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<Enrolment> {
    let mut backoff = Backoff::new(config.timing.retry);
    let deadline = Instant::now() + config.timing.enrolment;
    loop {
        let asked = tokio::select! {
            () = cancel.cancelled() => return Ok(Enrolment::Stopped),
            asked = enrol::enrol(identity, credentials, tasks) => asked,
        };
        match asked {
            Ok(granted) => {
                credentials.keep(&granted).context("keep the credential")?;
                info!(machine.id = %identity.machine_id, "machine {} enrolled", identity.machine_id);
                return Ok(Enrolment::Granted(granted));
            }
            Err(error @ (enrol::Error::Refused { .. } | enrol::Error::NoToken)) => {
                return Ok(Enrolment::Never(error.to_string()));
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                warn!(error = format!("{error:#}"), "cannot enrol yet");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(Enrolment::Stopped),
            () = tokio::time::sleep_until(deadline) => return Ok(Enrolment::Never(unenrolled(config))),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Why a machine ends that nobody enrolled in time.
#[must_use]
pub fn unenrolled(config: &Config) -> String {
    format!("not enrolled within {} s", config.timing.enrolment.as_secs())
}

/// Ends a machine that does nothing yet.
pub async fn over(config: &Config, reason: String) -> Ended {
    warn!("this machine ends: {reason}");
    power_off(config).await;
    Ended::MachineOver(reason)
}

/// Stops the workload, then the machine.
async fn end_machine(machine: &Machine, reason: &str) {
    warn!("this machine ends: {reason}");
    machine.stop_workload().await;
    power_off(&machine.config).await;
}

async fn power_off(config: &Config) {
    match config.end {
        End::Observe => info!("the machine stays on, as configured"),
        End::PowerOff => {
            // Of its own token: the work's is cancelled already.
            let ended = Command::new("systemctl", ["poweroff"]).capture(&CancellationToken::new()).await;
            match ended {
                Ok(ended) if ended.code == 0 => {}
                Ok(ended) => error!(tail = ended.tail, "systemctl did not power off"),
                Err(error) => error!(%error, "cannot power off"),
            }
        }
    }
}

//! What all work on this machine shares.

use std::time::Duration;

use rustix::fs::statvfs;
use stagely_domain::error_chain::chain;
use stagely_proto::agent::{Observed, Phase, ServiceStatus, Step};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::config::Config;
use crate::docker::Engine;
use crate::fault::{Fault, Stop};
use crate::logs::LogBook;
use crate::outbox::Outbox;
use crate::targets::Targets;

/// What all work on this machine shares. Cheap to clone.
#[derive(Clone)]
pub struct Machine {
    /// Settings.
    pub config: Config,
    /// The Docker engine.
    pub engine: Engine,
    /// Logs to send.
    pub logs: LogBook,
    /// Facts to send.
    pub outbox: Outbox,
    /// Where the ingress finds the exposed ports.
    pub targets: Targets,
    /// Every task of the agent.
    pub tasks: TaskTracker,
    /// Ends what follows the logs of running services and watches over them.
    pub cancel: CancellationToken,
    /// When the agent started, Unix seconds: older container output was sent by an earlier run.
    pub started: i64,
}

impl Machine {
    /// Ends everything that runs in containers, for good: the machine's time is over.
    pub async fn stop_workload(&self) {
        let containers = match self.engine.list_all_containers().await {
            Ok(containers) => containers,
            Err(error) => {
                warn!(error = %chain(&error), "cannot list the containers to stop");
                return;
            }
        };
        let drops = containers.iter().map(|container| async {
            let grace = Duration::from_secs(10);
            if let Err(error) = self.engine.drop_container(&container.id, grace).await {
                warn!(error = %chain(&error), container.name = %container.name, "cannot stop a container");
            }
        });
        futures::future::join_all(drops).await;
    }

    /// Bytes free where Docker keeps its data; 0 when that cannot be told.
    #[must_use]
    pub fn disk_free(&self) -> u64 {
        ["/var/lib/docker", "/"]
            .iter()
            .find_map(|path| statvfs(*path).ok())
            .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// The report on one generation: steps with their times, and where it stands.
pub struct Report {
    machine: Machine,
    began: Instant,
    observed: Observed,
}

impl Report {
    /// Work on `generation` begins.
    #[must_use]
    pub fn begin(machine: &Machine, generation: u64) -> Self {
        let report = Self {
            machine: machine.clone(),
            began: Instant::now(),
            observed: Observed {
                generation,
                phase: Phase::Working.into(),
                disk_free_bytes: machine.disk_free(),
                ..Observed::default()
            },
        };
        report.publish();
        report
    }

    /// Runs one step and notes its times.
    ///
    /// # Errors
    /// The step's.
    pub async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        self.observed.steps.push(Step { name: name.to_owned(), started_ms: self.elapsed(), finished_ms: 0 });
        self.publish();
        let result = work.await;
        let finished = self.elapsed().max(1);
        if let Some(step) = self.observed.steps.last_mut() {
            step.finished_ms = finished;
        }
        result
    }

    /// The services as they are now; reported at once only when they changed.
    pub fn services(&mut self, services: Vec<ServiceStatus>) {
        self.observed.services = services;
        self.publish();
    }

    /// The end of the work.
    pub fn end(&mut self, phase: Phase) {
        self.observed.phase = phase.into();
        self.observed.disk_free_bytes = self.machine.disk_free();
        self.publish();
    }

    /// The work failed.
    pub fn fail(&mut self, fault: &Fault) {
        let failure = fault.report(&self.machine.logs);
        warn!(
            code = failure.code,
            step = failure.phase,
            service = failure.service,
            "generation {} failed",
            self.observed.generation
        );
        self.observed.failure = Some(failure);
        self.end(Phase::Failed);
    }

    fn publish(&self) {
        self.machine.outbox.publish(self.observed.clone());
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

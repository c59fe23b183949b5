//! Image builds: as many at once as there are processors. Builds are known by job id, so a new generation starts
//! what is new, stops what is cancelled or gone, and leaves the rest alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stagely_proto::agent::build_status::State;
use stagely_proto::agent::{Build, BuildStatus, Builder, Observed, Phase};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::checkout::Store;
use crate::fault::Stop;
use crate::machine::Machine;
use crate::registry;

mod context;
mod job;
mod progress;

/// All builds of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Builds {
    machine: Machine,
    room: Arc<Semaphore>,
    store: Arc<Store>,
    state: Arc<Mutex<Jobs>>,
}

#[derive(Default)]
struct Jobs {
    generation: u64,
    jobs: HashMap<String, Job>,
}

struct Job {
    cancel: CancellationToken,
    status: BuildStatus,
}

impl Builds {
    /// None yet.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let store = Store::new(machine.config.paths.state.join("mirrors"));
        Self { machine, store: Arc::new(store), room: Arc::new(Semaphore::new(processors)), state: Arc::default() }
    }

    /// Works towards `wish` of `generation`.
    pub fn apply(&self, generation: u64, wish: Builder) {
        let access = wish.registry;
        let ready = registry::ensure(&self.machine.config.paths, access.as_ref());
        if let Some(access) = &access {
            self.machine.logs.hide([access.password.as_str()]);
        }
        let mut fresh = Vec::new();
        {
            let mut state = self.state();
            state.generation = generation;
            state.jobs.retain(|id, job| {
                let wanted = wish.builds.iter().any(|build| &build.job_id == id);
                if !wanted {
                    job.cancel.cancel();
                }
                wanted
            });
            for build in wish.builds {
                if let Some(job) = state.jobs.get(&build.job_id) {
                    if build.cancelled {
                        job.cancel.cancel();
                    }
                    continue;
                }
                let cancel = self.machine.cancel.child_token();
                if build.cancelled {
                    cancel.cancel();
                }
                let status =
                    BuildStatus { job_id: build.job_id.clone(), state: State::Queued.into(), ..BuildStatus::default() };
                let job = Job { cancel: cancel.clone(), status };
                state.jobs.insert(build.job_id.clone(), job);
                fresh.push((build, cancel));
            }
        }
        self.publish();
        for (build, cancel) in fresh {
            let builds = self.clone();
            let broken = ready.as_ref().err().and_then(|stop| match stop {
                Stop::Failed(fault) => Some(fault.clone()),
                Stop::Cancelled => None,
            });
            self.machine.tasks.spawn(async move {
                let result = match broken {
                    Some(fault) => Err(Stop::Failed(fault)),
                    None => builds.run(&build, &cancel).await,
                };
                builds.end(&build.job_id, result);
            });
        }
    }

    async fn run(&self, build: &Build, cancel: &CancellationToken) -> Result<String, Stop> {
        let _permit = tokio::select! {
            () = cancel.cancelled() => return Err(Stop::Cancelled),
            permit = self.room.acquire() => permit,
        };
        let token = build.checkout.as_ref().map(|checkout| &checkout.token);
        let hidden = build.secrets.values().chain(token);
        self.machine.logs.hide(hidden.map(String::as_str));
        let see = |state: State, cached: u32, total: u32| {
            self.change(&build.job_id, |status| {
                status.state = state.into();
                (status.cached_steps, status.total_steps) = (cached, total);
            });
        };
        job::run(&self.machine, &self.store, build, &see, cancel).await
    }

    fn end(&self, job_id: &str, result: Result<String, Stop>) {
        self.change(job_id, |status| match result {
            Ok(digest) => {
                info!("build {job_id} succeeded");
                status.state = State::Succeeded.into();
                status.digest = digest;
            }
            Err(Stop::Cancelled) => status.state = State::Cancelled.into(),
            Err(Stop::Failed(fault)) => {
                info!("build {job_id} failed");
                status.state = State::Failed.into();
                status.failure = Some(fault.report(&self.machine.logs));
            }
        });
    }

    fn change(&self, job_id: &str, change: impl FnOnce(&mut BuildStatus)) {
        if let Some(job) = self.state().jobs.get_mut(job_id) {
            change(&mut job.status);
        }
        self.publish();
    }

    fn publish(&self) {
        let state = self.state();
        let mut builds: Vec<_> = state.jobs.values().map(|job| job.status.clone()).collect();
        builds.sort_by(|a, b| a.job_id.cmp(&b.job_id));
        let busy = builds.iter().any(|build| matches!(build.state(), State::Queued | State::Building | State::Pushing));
        let phase = if busy { Phase::Working } else { Phase::Idle };
        // Published under the lock, so that an older picture never replaces a newer one.
        self.machine.outbox.publish(Observed {
            generation: state.generation,
            phase: phase.into(),
            builds,
            // In steps of 64 MiB: a build changes it all the time, and only a report that says something else is sent.
            disk_free_bytes: self.machine.disk_free() >> 26 << 26,
            ..Observed::default()
        });
    }

    fn state(&self) -> MutexGuard<'_, Jobs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

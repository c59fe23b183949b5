//! What the orchestrator shares the world with: machines whose agents enrol and report, a builder, and time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stagely_cloud::Cloud;
use stagely_domain::build;
use stagely_domain::failure::Failure;
use stagely_domain::id::{InstallationId, MachineId, ProjectId};
use stagely_domain::spec::Platform;
use stagely_proto::agent::Preview;
use stagely_proto::agent::preview::Wish;
use stagely_store::agents::{Enrolled, Observed, Phase};
use stagely_store::testing::TestDb;
use stagely_store::work::kind;
use tokio_util::sync::CancellationToken;

/// How often the world turns.
const TURN: Duration = Duration::from_millis(10);
/// Puts an end to waiting after a failure, for an image, and for a create call that may still land.
const HURRY: &str = "UPDATE machines SET create_deadline = now() WHERE state = 'deleting' AND create_deadline > now(); \
    WITH late AS (UPDATE work SET run_after = least(run_after, now()), not_before = '-infinity' \
    WHERE NOT parked AND lease_until <= now() AND greatest(run_after, not_before) > now() \
    AND (last_error IS NOT NULL OR kind = 'image' OR key IN (SELECT id FROM machines WHERE state = 'deleting')) RETURNING kind) \
    SELECT pg_notify('work_' || kind, '') FROM late GROUP BY kind";

/// What can be kept from going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Agents do not enrol.
    Boot,
    /// Images do not get built.
    Builds,
    /// Agents do not finish.
    Deploy,
    /// The hub does not answer.
    Hub,
    /// Visitors reach no machine.
    Edge,
}

/// The world of one stack.
pub struct World {
    pub db: TestDb,
    /// By a client of the world's own.
    pub cloud: Arc<dyn Cloud>,
    pub project: ProjectId,
    installation: InstallationId,
    /// How many turns lie between two looks for new machines.
    look_every: u32,
    inside: Mutex<Inside>,
}

#[derive(Default)]
pub struct Inside {
    pub holds: HashSet<Hold>,
    /// The number of each agent's connection.
    connections: HashMap<MachineId, u64>,
    /// What each agent was told last.
    pub wishes: HashMap<MachineId, (u64, Wish)>,
    /// All of that.
    pub told: HashMap<MachineId, Preview>,
    reports: HashMap<MachineId, u64>,
    /// How many images were built.
    pub built: usize,
    /// How often the hub was away when it was called.
    pub missed: u32,
    /// What agents say instead of that all is running.
    pub failure: Option<Failure>,
    /// Owners of leases that were killed.
    dead: Vec<String>,
}

impl World {
    pub async fn new(db: TestDb, cloud: Arc<dyn Cloud>, project: ProjectId, look_every: u32) -> Self {
        let installation = db.store().ensure_installation().await.unwrap();
        Self { db, cloud, project, installation, look_every, inside: Mutex::default() }
    }

    /// The machines that exist.
    pub async fn machines(&self) -> Vec<MachineId> {
        let listing = self.cloud.list(self.installation).await;
        listing.map(|listing| listing.vms.iter().map(|vm| vm.machine).collect()).unwrap_or_default()
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn holds(&self, hold: Hold) -> bool {
        self.inside().holds.contains(&hold)
    }

    /// A process is no more; its leases may be taken at once.
    pub fn bury(&self, owner: String) {
        self.inside().dead.push(owner);
    }

    /// Turns until shutdown.
    pub async fn turn(self: Arc<Self>, shutdown: CancellationToken) {
        for turn in 0_u32.. {
            if shutdown.is_cancelled() {
                return;
            }
            if turn.is_multiple_of(self.look_every) && !self.holds(Hold::Boot) {
                self.boot().await;
            }
            if !self.holds(Hold::Builds) {
                self.build().await;
            }
            if !self.holds(Hold::Deploy) {
                self.report().await;
            }
            if turn.is_multiple_of(4) {
                self.hurry().await;
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// Agents of new machines enrol and connect, by the hub's own statements.
    async fn boot(&self) {
        let known: HashSet<MachineId> = self.inside().connections.keys().copied().collect();
        for machine in self.machines().await.into_iter().filter(|machine| !known.contains(machine)) {
            let (key, certificate) = (machine.uuid().as_bytes().to_vec(), [2; 32]);
            let tx = self.db.store().begin().await.unwrap();
            let enrolled = tx.enrol(machine, &token_hash(machine), &key, &certificate).await.unwrap();
            if !matches!(enrolled, Enrolled::First | Enrolled::Again) {
                continue;
            }
            let Some(epoch) = tx.accept_connection(machine, &key, "hub").await.unwrap() else { continue };
            tx.commit().await.unwrap();
            self.inside().connections.insert(machine, epoch);
        }
    }

    /// Every image that was asked for gets built.
    async fn build(&self) {
        for job in self.db.store().list_open_builds(self.project).await.unwrap() {
            let digit = if job.platform == Platform::Amd64 { "1" } else { "2" };
            let digest = format!("sha256:{}", digit.repeat(64));
            let tx = self.db.store().begin().await.unwrap();
            let _ = tx.set_build_state(job.id, job.state, build::State::Succeeded, Some(&digest), None).await.unwrap();
            tx.wake(kind::ENVIRONMENT, job.environment.uuid()).await.unwrap();
            tx.commit().await.unwrap();
            self.inside().built += 1;
        }
    }

    /// Agents bring what they were told and say so.
    async fn report(&self) {
        let due: Vec<(MachineId, u64, Observed)> = {
            let inside = self.inside();
            let news = inside.wishes.iter().filter(|(machine, (generation, _))| {
                inside.reports.get(*machine).is_none_or(|reported| reported < generation)
            });
            let report = |(machine, (generation, wish)): (&MachineId, &(u64, Wish))| {
                let phase = match (wish, &inside.failure) {
                    (Wish::Stopped, _) => Phase::Stopped,
                    (_, Some(_)) => Phase::Failed,
                    (_, None) => Phase::Running,
                };
                let failure = inside.failure.clone().filter(|_| phase == Phase::Failed);
                let observed = Observed { generation: *generation, phase, failure, ..Observed::default() };
                Some((*machine, *inside.connections.get(machine)?, observed))
            };
            news.filter_map(report).collect()
        };
        for (machine, epoch, observed) in due {
            let tx = self.db.store().begin().await.unwrap();
            let _ = tx.note_observed(machine, epoch, &observed).await.unwrap();
            tx.commit().await.unwrap();
            self.inside().reports.insert(machine, observed.generation);
        }
    }

    async fn hurry(&self) {
        self.db.execute(HURRY).await;
        let dead = self.inside().dead.clone();
        for owner in dead {
            let lapse = format!(
                "WITH free AS (UPDATE work SET lease_until = now() WHERE lease_owner = '{owner}' \
                 AND lease_until > now() RETURNING kind) SELECT pg_notify('work_' || kind, '') FROM free GROUP BY kind"
            );
            self.db.execute(&lapse).await;
        }
    }
}

/// The hash of a machine's enrolment token, which here is its id.
pub fn token_hash(machine: MachineId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(machine.uuid().as_bytes());
    hash
}

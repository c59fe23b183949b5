//! The rows in memory, the agents, and a log of what was intended when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::AgentDownload;
use stagely_cloud::testing::Doom;
use stagely_cloud::testing::sim::{Record, SimCloud};
use stagely_domain::clock::Clock;
use stagely_domain::id::{CloudAccountId, ImageId, InstallationId, MachineId};
use stagely_domain::image;
use stagely_domain::machine::{Arch, Role, State};
use stagely_proto::hub::PrepareEnrolmentResponse;
use stagely_reconcile::{Fence, StepError};
use stagely_store::agents::Agent;
use stagely_store::images::Image;
use stagely_store::machines::Machine;
use stagely_store::sweeps::Blind;
use stagely_store::work::kind;
use stagely_store::{Power, Presence, Result as Stored, StoreError};
use uuid::Uuid;

use super::queue::Queue;
use super::transaction::Transaction;
use crate::clouds::Account;
use crate::reconcile::ledger::{Ledger, Writing};

/// What is intended of a machine from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Awake,
    Asleep,
    Absent,
}

/// How a machine's agent fares.
#[derive(Debug, Clone, Copy)]
pub struct Fortune {
    /// How long its boot takes; none when it never enrols.
    pub boots_in: Option<TimeDelta>,
    /// Whether a twin boots, too, and comes with the same token.
    pub twins_boot: bool,
}

/// The database and the hub, which live through all crashes.
pub struct Rows {
    pub installation: InstallationId,
    pub clock: Arc<dyn Clock>,
    pub doom: Arc<Doom>,
    pub cloud: Arc<SimCloud>,
    inside: Mutex<Inside>,
}

#[derive(Default)]
pub struct Inside {
    pub machines: BTreeMap<MachineId, Machine>,
    pub images: BTreeMap<ImageId, Image>,
    pub queue: Queue,
    pub fortunes: BTreeMap<MachineId, Fortune>,
    pub log: Vec<(DateTime<Utc>, MachineId, Intent)>,
    /// When a person began to hold a machine, and let it go.
    pub holds: Vec<(DateTime<Utc>, MachineId, bool)>,
    prepared: BTreeSet<MachineId>,
    revoked: BTreeSet<MachineId>,
    enrolled: BTreeMap<MachineId, DateTime<Utc>>,
}

impl Rows {
    pub fn new(installation: InstallationId, clock: Arc<dyn Clock>, doom: Arc<Doom>, cloud: Arc<SimCloud>) -> Self {
        Self { installation, clock, doom, cloud, inside: Mutex::default() }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a service or a person wishes: one statement and a wake.
    pub fn wish(&self, id: MachineId, intent: Intent) {
        let now = self.clock.now();
        let mut inside = self.inside();
        let inside = &mut *inside;
        let Some(machine) = inside.machines.get_mut(&id).filter(|machine| machine.desired == Presence::Present) else {
            return;
        };
        match intent {
            Intent::Awake => machine.power = Power::Awake,
            Intent::Asleep => machine.power = Power::Asleep,
            Intent::Absent => (machine.desired, machine.drop_at) = (Presence::Absent, Some(now)),
        }
        inside.log.push((now, id, intent));
        inside.queue.wake((kind::MACHINE, id.uuid()));
    }

    pub fn insert(&self, machine: Machine, fortune: Fortune) {
        let mut inside = self.inside();
        inside.log.push((machine.intended_at, machine.id, Intent::Awake));
        inside.queue.wake((kind::MACHINE, machine.id.uuid()));
        inside.fortunes.insert(machine.id, fortune);
        inside.machines.insert(machine.id, machine);
    }

    /// What a member wishes for: a golden image.
    pub fn insert_image(&self, image: Image) {
        let mut inside = self.inside();
        inside.queue.wake((kind::IMAGE, image.id.uuid()));
        inside.images.insert(image.id, image);
    }

    /// The same member has enough of it.
    pub fn drop_image(&self, id: ImageId) {
        let mut inside = self.inside();
        if let Some(image) = inside.images.get_mut(&id).filter(|image| image.desired == Presence::Present) {
            (image.desired, image.generation) = (Presence::Absent, image.generation + 1);
            inside.queue.wake((kind::IMAGE, id.uuid()));
        }
    }
}

impl Inside {
    /// Whether some machine is not yet what its row intends.
    pub fn has_work_on_machines(&self) -> bool {
        self.machines.values().any(|machine| {
            let intended = match (machine.desired, machine.power) {
                (Presence::Absent, _) => State::Gone,
                (Presence::Present, Power::Awake) => State::Enrolled,
                (Presence::Present, Power::Asleep) => State::Hibernated,
            };
            machine.state != intended
        })
    }

    pub fn has_work_on_images(&self) -> bool {
        self.images.values().any(|image| self.has_work_on(image))
    }

    /// Whether something is still to be done for an image.
    pub fn has_work_on(&self, image: &Image) -> bool {
        let machine = image.machine.and_then(|id| self.machines.get(&id));
        let is_at_rest = match (image.desired, image.state) {
            (Presence::Present, image::State::Ready) => true,
            (Presence::Present, image::State::Failed) => image.deleted_at.is_some(),
            (_, state) => state == image::State::Gone,
        };
        !is_at_rest || machine.is_some_and(|machine| machine.gone_at.is_none())
    }
}

/// What a process of the orchestrator holds.
pub struct Connection {
    pub rows: Arc<Rows>,
    pub account: Arc<Account>,
}

#[async_trait]
impl Ledger for Connection {
    fn installation(&self) -> InstallationId {
        self.rows.installation
    }

    fn now(&self) -> DateTime<Utc> {
        self.rows.clock.now()
    }

    async fn account(&self, _: CloudAccountId) -> Result<Arc<Account>, StepError> {
        Ok(Arc::clone(&self.account))
    }

    async fn get_machine(&self, id: MachineId) -> Stored<Machine> {
        self.rows.doom.point().await;
        self.rows.inside().machines.get(&id).cloned().ok_or(StoreError::NotFound("machine"))
    }

    async fn list_account_machines(&self, _: CloudAccountId) -> Stored<Vec<Machine>> {
        self.rows.doom.point().await;
        let inside = self.rows.inside();
        Ok(inside.machines.values().filter(|machine| machine.gone_at.is_none()).cloned().collect())
    }

    async fn find_agent(&self, id: MachineId) -> Stored<Option<Agent>> {
        let now = self.now();
        let mut inside = self.rows.inside();
        let (Some(machine), Some(fortune)) = (inside.machines.get(&id).cloned(), inside.fortunes.get(&id).copied())
        else {
            return Ok(None);
        };
        let Some(project) = machine.project else { return Ok(None) };
        // It enrols once it has booted, if it has not been told off. Slower than the provider's lists.
        let boot = |record: &Record| {
            let at = (record.born + fortune.boots_in?).max(record.shown_from());
            (at <= now && record.ended.is_none_or(|ended| at < ended)).then_some(at)
        };
        let booted: Vec<DateTime<Utc>> =
            self.rows.cloud.look(|records| records.iter().filter(|record| record.is(id)).filter_map(boot).collect());
        if let Some(first) = booted.iter().min()
            && inside.prepared.contains(&id)
            && !inside.revoked.contains(&id)
        {
            inside.enrolled.entry(id).or_insert(*first);
        }
        if !inside.prepared.contains(&id) {
            return Ok(None);
        }
        Ok(Some(Agent {
            machine: id,
            team: machine.team,
            project,
            environment: machine.environment,
            role: machine.role,
            wanted: machine.desired == Presence::Present,
            return_until: None,
            enrolled_at: inside.enrolled.get(&id).copied(),
            public_key: None,
            conn_epoch: 0,
            hub_id: None,
            connected_at: None,
            last_seen_at: None,
            revoked_at: None,
            suspect_at: (fortune.twins_boot && booted.len() > 1).then_some(now),
            desired_generation: 0,
            observed_generation: 0,
            observed: None,
        }))
    }

    async fn find_image(&self, id: ImageId) -> Stored<Option<Image>> {
        self.rows.doom.point().await;
        Ok(self.rows.inside().images.get(&id).cloned())
    }

    async fn find_bake(&self, machine: MachineId) -> Stored<Option<Image>> {
        self.rows.doom.point().await;
        Ok(self.rows.inside().images.values().find(|image| image.machine == Some(machine)).cloned())
    }

    async fn list_bootable_images(&self, _: CloudAccountId, arch: Arch) -> Stored<Vec<Image>> {
        self.rows.doom.point().await;
        let inside = self.rows.inside();
        let is_bootable =
            |image: &&Image| (image.arch, image.state, image.desired) == (arch, image::State::Ready, Presence::Present);
        Ok(inside.images.values().rev().filter(is_bootable).cloned().collect())
    }

    async fn is_image_asked_for(&self, id: ImageId) -> Stored<bool> {
        self.rows.doom.point().await;
        let asks = |machine: &Machine| {
            machine.state == State::Creating && machine.image.as_ref().is_some_and(|image| image.id == id)
        };
        Ok(self.rows.inside().machines.values().any(asks))
    }

    async fn begin(&self) -> Stored<Writing> {
        self.rows.doom.point().await;
        Ok(Writing::new(Transaction::of(Arc::clone(&self.rows))))
    }

    async fn fenced(&self, fence: &Fence) -> Stored<Writing> {
        if !self.rows.inside().queue.holds(fence) {
            return Err(StoreError::Fenced { kind: fence.kind, key: fence.key, epoch: fence.epoch });
        }
        self.begin().await
    }

    async fn prepare_enrolment(&self, id: MachineId, _: &'static str) -> Result<PrepareEnrolmentResponse, StepError> {
        self.rows.doom.point().await;
        self.rows.inside().prepared.insert(id);
        self.rows.doom.point().await;
        Ok(PrepareEnrolmentResponse::default())
    }

    async fn revoke(&self, id: MachineId, _: &'static str) -> Result<(), StepError> {
        self.rows.doom.point().await;
        self.rows.inside().revoked.insert(id);
        Ok(())
    }

    async fn agent(&self, _: Arch) -> Result<Result<AgentDownload, String>, StepError> {
        Ok(Ok(AgentDownload { url: String::new(), sha256: String::new() }))
    }

    /// These rows are never those of an older database.
    async fn note_sweep(&self, _: CloudAccountId, _: TimeDelta) -> Stored<Option<Blind>> {
        self.rows.doom.point().await;
        Ok(None)
    }

    async fn forget_blind(&self, _: CloudAccountId) -> Stored<()> {
        Ok(())
    }

    /// What was spent is the cloud's to say here.
    async fn note_costs(&self, _: &Fence, _: CloudAccountId) -> Result<(), StepError> {
        Ok(())
    }
}

/// A row that was just committed.
pub fn intended(id: MachineId, ids: [Uuid; 4], expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Machine {
    use stagely_domain::id::{EnvironmentId, ProjectId, TeamId};
    let [team, project, environment, account] = ids;
    Machine {
        id,
        team: TeamId::from_uuid(team),
        project: Some(ProjectId::from_uuid(project)),
        environment: Some(EnvironmentId::from_uuid(environment)),
        account: CloudAccountId::from_uuid(account),
        role: Role::Preview,
        size: stagely_domain::machine::Size::Small,
        arch: Arch::Amd64,
        desired: Presence::Present,
        power: Power::Awake,
        state: State::Intended,
        locations: Vec::new(),
        offering: None,
        tried: Vec::new(),
        refusals: 0,
        image: None,
        provider_id: None,
        address: None,
        failure: None,
        create_deadline: None,
        expires_at,
        intended_at: now,
        placed_at: None,
        enrolled_at: None,
        sleep_asked_at: None,
        drop_at: None,
        gone_at: None,
    }
}

/// An image that was just wished for.
pub fn wished(id: ImageId, account: Uuid, now: DateTime<Utc>) -> Image {
    use stagely_domain::id::TeamId;
    Image {
        id,
        team: TeamId::from_uuid(Uuid::from_u128(1)),
        account: CloudAccountId::from_uuid(account),
        arch: Arch::Amd64,
        base_images: Vec::new(),
        agent_sha256: None,
        desired: Presence::Present,
        generation: 1,
        state: image::State::Baking,
        machine: None,
        reference: None,
        locations: Vec::new(),
        failure: None,
        created_at: now,
        ready_at: None,
        deleted_at: None,
    }
}

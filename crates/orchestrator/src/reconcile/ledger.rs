//! What the reconcilers of machines and images and the sweep need beside a cloud: the rows, the agents' credentials and
//! the time. In service these are Postgres and the hub; in a simulation they are memory, so that thousands of lives of
//! machines are lived by the code that runs in service.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::AgentDownload;
use stagely_domain::failure::Failure;
use stagely_domain::id::{CloudAccountId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, State};
use stagely_domain::offering::Offering;
use stagely_proto::hub::{PrepareEnrolmentRequest, PrepareEnrolmentResponse, RevokeRequest};
use stagely_reconcile::{ErrorClass, Fence, StepError};
use stagely_store::agents::Agent;
use stagely_store::images::Image;
use stagely_store::machines::{BootImage, Machine, NewMachine};
use stagely_store::sweeps::Blind;
use stagely_store::{Outcome, Result as Stored, Scope, StoreError, Tx};
use uuid::Uuid;

use crate::clouds::Account;
use crate::context::{Context, rpc_error};
use crate::reconcile::sweep::cost;

/// Rows, credentials and the time.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    fn installation(&self) -> InstallationId;

    fn now(&self) -> DateTime<Utc>;

    async fn account(&self, id: CloudAccountId) -> Result<Arc<Account>, StepError>;

    /// Whether the account is not deleted.
    async fn has_account(&self, _: CloudAccountId) -> Stored<bool> {
        Ok(true)
    }

    async fn get_machine(&self, id: MachineId) -> Stored<Machine>;

    /// Those that are not gone.
    async fn list_account_machines(&self, account: CloudAccountId) -> Stored<Vec<Machine>>;

    async fn find_agent(&self, machine: MachineId) -> Stored<Option<Agent>>;

    async fn find_image(&self, id: ImageId) -> Stored<Option<Image>>;

    /// The image that is made of a machine.
    async fn find_bake(&self, machine: MachineId) -> Stored<Option<Image>>;

    /// What new machines of an account may boot, newest first.
    async fn list_bootable_images(&self, account: CloudAccountId, arch: Arch) -> Stored<Vec<Image>>;

    /// Whether a machine is being created with it, so that the same must be asked for again.
    async fn is_image_asked_for(&self, id: ImageId) -> Stored<bool>;

    async fn begin(&self) -> Stored<Writing>;

    /// The same behind a fence: nothing is written by whoever has lost the claim.
    async fn fenced(&self, fence: &Fence) -> Stored<Writing>;

    /// A credential with which the machine's agent may enrol, or come back.
    async fn prepare_enrolment(
        &self,
        machine: MachineId,
        doing: &'static str,
    ) -> Result<PrepareEnrolmentResponse, StepError>;

    /// Ends the credential. A machine that was never prepared has none.
    async fn revoke(&self, machine: MachineId, reason: &'static str) -> Result<(), StepError>;

    /// The agent's program for such machines, or why there is none.
    async fn agent(&self, arch: Arch) -> Result<Result<AgentDownload, String>, StepError>;

    /// A sweep begins. The time of which the rows know nothing, if there is one.
    async fn note_sweep(&self, account: CloudAccountId, gap: TimeDelta) -> Stored<Option<Blind>>;

    /// Nothing is left at the cloud of that time.
    async fn forget_blind(&self, account: CloudAccountId) -> Stored<()>;

    /// Notes what an account's machines that go on running have cost so far.
    async fn note_costs(&self, fence: &Fence, account: CloudAccountId) -> Result<(), StepError>;
}

/// A transaction that is open. A struct, since a trait object's lifetime would be one too many for closures that wait.
pub struct Writing(Box<dyn Changes>);

impl std::ops::Deref for Writing {
    type Target = dyn Changes;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Writing {
    pub fn new(changes: impl Changes + 'static) -> Self {
        Self(Box::new(changes))
    }

    pub async fn commit(self) -> Stored<()> {
        self.0.commit().await
    }
}

/// What a transaction can hold.
#[async_trait]
pub trait Changes: Send + Sync {
    /// Holds the account as it was when it was opened, until the end of the transaction; stale when it has changed.
    async fn hold_account(&self, id: CloudAccountId, generation: i64) -> Stored<Outcome>;

    async fn machine_creating(
        &self,
        id: MachineId,
        limit: TimeDelta,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
    ) -> Stored<Outcome>;

    async fn machine_refused(&self, id: MachineId, offering: &Offering) -> Stored<Outcome>;

    async fn machine_not_made(&self, id: MachineId) -> Stored<Outcome>;

    async fn machine_image_refused(&self, id: MachineId, image: &BootImage) -> Stored<Outcome>;

    /// Wishes for the machine that an image is to be made of. What is stale must not be committed.
    async fn bake_image(&self, id: ImageId, machine: &NewMachine, agent_sha256: &str) -> Stored<Outcome>;

    async fn image_ready(&self, id: ImageId, reference: &str, locations: &[String]) -> Stored<Outcome>;

    async fn fail_image(&self, id: ImageId, failure: &Failure) -> Stored<Outcome>;

    async fn wish_image_absent(&self, id: ImageId) -> Stored<Outcome>;

    async fn image_cleared(&self, id: ImageId) -> Stored<Outcome>;

    async fn machine_placed(&self, id: MachineId, provider_id: &str, address: Option<&str>) -> Stored<Outcome>;

    async fn machine_shown(&self, id: MachineId) -> Stored<Outcome>;

    async fn set_machine_state(&self, id: MachineId, from: State, to: State) -> Stored<Outcome>;

    async fn note_machine_sleep(&self, id: MachineId, asked: bool) -> Stored<()>;

    async fn drop_machine(&self, id: MachineId, failure: Option<&Failure>) -> Stored<Outcome>;

    async fn wake(&self, kind: &'static str, key: Uuid) -> Stored<()>;

    async fn commit(self: Box<Self>) -> Stored<()>;
}

#[async_trait]
impl Ledger for Context {
    fn installation(&self) -> InstallationId {
        self.installation
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn account(&self, id: CloudAccountId) -> Result<Arc<Account>, StepError> {
        self.clouds.of(id).await
    }

    async fn has_account(&self, id: CloudAccountId) -> Stored<bool> {
        self.store.has_cloud_account(id).await
    }

    async fn get_machine(&self, id: MachineId) -> Stored<Machine> {
        self.store.get_machine(id).await
    }

    async fn list_account_machines(&self, account: CloudAccountId) -> Stored<Vec<Machine>> {
        self.store.list_account_machines(account).await
    }

    async fn find_agent(&self, machine: MachineId) -> Stored<Option<Agent>> {
        self.store.find_agent(machine).await
    }

    async fn find_image(&self, id: ImageId) -> Stored<Option<Image>> {
        match self.store.get_image(&Scope::system("reconcile"), id).await {
            Ok(image) => Ok(Some(image)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn find_bake(&self, machine: MachineId) -> Stored<Option<Image>> {
        self.store.find_bake(machine).await
    }

    async fn list_bootable_images(&self, account: CloudAccountId, arch: Arch) -> Stored<Vec<Image>> {
        self.store.list_bootable_images(account, arch).await
    }

    async fn is_image_asked_for(&self, id: ImageId) -> Stored<bool> {
        self.store.is_image_asked_for(id).await
    }

    async fn begin(&self) -> Stored<Writing> {
        self.store.begin().await.map(Writing::new)
    }

    async fn fenced(&self, fence: &Fence) -> Stored<Writing> {
        self.store.fenced(fence).await.map(Writing::new)
    }

    async fn prepare_enrolment(
        &self,
        machine: MachineId,
        doing: &'static str,
    ) -> Result<PrepareEnrolmentResponse, StepError> {
        let request = PrepareEnrolmentRequest { machine_id: machine.to_string() };
        Ok(self.hub.clone().prepare_enrolment(request).await.map_err(rpc_error(doing))?.into_inner())
    }

    async fn revoke(&self, machine: MachineId, reason: &'static str) -> Result<(), StepError> {
        let request = RevokeRequest { machine_id: machine.to_string(), reason: reason.to_owned() };
        match self.hub.clone().revoke(request).await {
            Err(status) if status.code() != tonic::Code::NotFound => {
                Err(rpc_error("end a machine's credential")(status))
            }
            _ => Ok(()),
        }
    }

    async fn agent(&self, arch: Arch) -> Result<Result<AgentDownload, String>, StepError> {
        let program = match self.config.agent_binaries.of(arch) {
            Ok(program) => program,
            Err(lacks) => return Ok(Err(lacks)),
        };
        let read = tokio::fs::read(program).await;
        let doing = "read the agent's program";
        let bytes = read.map_err(|error| StepError::new(ErrorClass::Transient, doing, error))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        Ok(Ok(AgentDownload {
            url: self.config.agent_url.replace("{arch}", &arch.to_string()),
            sha256: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }))
    }

    async fn note_sweep(&self, account: CloudAccountId, gap: TimeDelta) -> Stored<Option<Blind>> {
        self.store.note_sweep(account, self.clock.now(), gap).await
    }

    async fn forget_blind(&self, account: CloudAccountId) -> Stored<()> {
        self.store.forget_blind(account).await
    }

    async fn note_costs(&self, fence: &Fence, account: CloudAccountId) -> Result<(), StepError> {
        cost::note(self, fence, account).await
    }
}

#[async_trait]
impl Changes for Tx {
    async fn hold_account(&self, id: CloudAccountId, generation: i64) -> Stored<Outcome> {
        self.hold_cloud_account(id, generation).await
    }

    async fn machine_creating(
        &self,
        id: MachineId,
        limit: TimeDelta,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
    ) -> Stored<Outcome> {
        self.machine_creating(id, limit, offering, image).await
    }

    async fn machine_refused(&self, id: MachineId, offering: &Offering) -> Stored<Outcome> {
        self.machine_refused(id, offering).await
    }

    async fn machine_not_made(&self, id: MachineId) -> Stored<Outcome> {
        self.machine_not_made(id).await
    }

    async fn machine_image_refused(&self, id: MachineId, image: &BootImage) -> Stored<Outcome> {
        self.machine_image_refused(id, image).await
    }

    async fn bake_image(&self, id: ImageId, machine: &NewMachine, agent_sha256: &str) -> Stored<Outcome> {
        self.bake_image(id, machine, agent_sha256).await
    }

    async fn image_ready(&self, id: ImageId, reference: &str, locations: &[String]) -> Stored<Outcome> {
        self.image_ready(id, reference, locations).await
    }

    async fn fail_image(&self, id: ImageId, failure: &Failure) -> Stored<Outcome> {
        self.fail_image(id, failure).await
    }

    async fn wish_image_absent(&self, id: ImageId) -> Stored<Outcome> {
        self.wish_image_absent(id).await
    }

    async fn image_cleared(&self, id: ImageId) -> Stored<Outcome> {
        self.image_cleared(id).await
    }

    async fn machine_placed(&self, id: MachineId, provider_id: &str, address: Option<&str>) -> Stored<Outcome> {
        self.machine_placed(id, provider_id, address).await
    }

    async fn machine_shown(&self, id: MachineId) -> Stored<Outcome> {
        self.machine_shown(id).await
    }

    async fn set_machine_state(&self, id: MachineId, from: State, to: State) -> Stored<Outcome> {
        self.set_machine_state(id, from, to).await
    }

    async fn note_machine_sleep(&self, id: MachineId, asked: bool) -> Stored<()> {
        self.note_machine_sleep(id, asked).await
    }

    async fn drop_machine(&self, id: MachineId, failure: Option<&Failure>) -> Stored<Outcome> {
        self.drop_machine(id, failure).await
    }

    async fn wake(&self, kind: &'static str, key: Uuid) -> Stored<()> {
        self.wake(kind, key).await
    }

    async fn commit(self: Box<Self>) -> Stored<()> {
        Tx::commit(*self).await
    }
}

#[cfg(test)]
mod tests;

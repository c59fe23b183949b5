//! Machines: the one creator and the one destroyer. The row is committed before the provider is called; before every
//! create there is a look; nothing is called gone before the provider shows it. Key: the machine's id.

mod create;
mod sleep;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use stagely_cloud::{Cloud, DeleteProgress, ProviderId, Vm, VmState};
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::MachineId;
use stagely_domain::machine::{Role, State};
use stagely_reconcile::{Claim, Fence, Reconciler, Step, StepError};
use stagely_store::images::Image;
use stagely_store::machines::Machine;
use stagely_store::work::kind;
use stagely_store::{Outcome, Power, Presence, StoreError};

use crate::clouds::{Account, keep_own};
use crate::context::{cloud_error, store_error};
use crate::failures::failure;
use crate::reconcile::ledger::{Ledger, Writing};

pub(in crate::reconcile) use create::INGRESS_PORT;

/// How long a machine may take from its placing to its agent's enrolment.
const BOOT_LIMIT: TimeDelta = TimeDelta::minutes(10);
/// So long a machine that was placed is believed although nothing shows it: providers' lists lag, and what a provider's
/// client remembers is gone with its process.
const YOUTH: TimeDelta = TimeDelta::minutes(5);
/// So long one that was placed may be shown as off before it starts.
const OFF: TimeDelta = TimeDelta::minutes(1);
const LOOK: Duration = Duration::from_secs(20);
/// How often one that sleeps is looked at.
const REST: Duration = Duration::from_secs(300);

pub struct Machines(pub Arc<dyn Ledger>);

#[async_trait]
impl Reconciler for Machines {
    const KIND: &'static str = kind::MACHINE;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let (context, id) = (&*self.0, MachineId::from_uuid(claim.fence.key));
        let machine = match context.get_machine(id).await {
            Ok(machine) => machine,
            Err(StoreError::NotFound(_)) => return Ok(Step::Done),
            Err(error) => return Err(store_error("read a machine")(error)),
        };
        let account = context.account(machine.account).await.map_err(|error| match machine.desired {
            Presence::Absent => error.never_parks(),
            Presence::Present => error,
        })?;
        let bake = match machine.role {
            Role::Bake => context.find_bake(id).await.map_err(store_error("read what is baked"))?,
            Role::Preview | Role::Builder => None,
        };
        let (cloud, fence) = (&*account.cloud, &claim.fence);
        let work = Work { context, fence, machine: &machine, account: &account, cloud, bake: bake.as_ref() };
        match (machine.desired, machine.state) {
            (_, State::Gone) => Ok(Step::Done),
            (Presence::Absent, _) => work.remove().await.map_err(StepError::never_parks),
            (Presence::Present, State::Intended | State::Creating) => work.create().await,
            (Presence::Present, State::Booting | State::Enrolled | State::Hibernated) if work.is_suspect().await? => {
                let message = "the machine's one-time enrolment token was used a second time, with another key: \
                               somebody else may have read it, so the machine was removed";
                work.give_up(failure(Code::MachineLost, "boot", message)).await
            }
            (Presence::Present, State::Booting) if machine.role == Role::Bake => work.watch().await,
            (Presence::Present, State::Booting) => work.boot().await,
            (Presence::Present, State::Enrolled | State::Hibernated) => work.keep().await,
            (Presence::Present, State::Deleting) => Ok(Step::Done),
        }
    }
}

/// One activation.
struct Work<'w> {
    context: &'w (dyn Ledger + 'static),
    fence: &'w Fence,
    machine: &'w Machine,
    account: &'w Account,
    cloud: &'w dyn Cloud,
    /// The image that is made of it.
    bake: Option<&'w Image>,
}

impl Work<'_> {
    async fn boot(&self) -> Result<Step, StepError> {
        let doing = "wait for a machine's agent";
        let id = self.machine.id;
        let agent = self.context.find_agent(id).await.map_err(store_error(doing))?;
        if agent.is_some_and(|agent| agent.enrolled_at.is_some()) {
            self.write_and_tell(doing, async |tx| {
                tx.set_machine_state(id, State::Booting, State::Enrolled).await.map(drop)
            })
            .await?;
            return Ok(Step::Again(LOOK));
        }
        let since = self.machine.placed_at.unwrap_or(self.machine.intended_at);
        let age = self.context.now() - since;
        if age > BOOT_LIMIT {
            let provider = self.machine.provider_id.clone().map(ProviderId);
            let console = match provider {
                Some(provider) => self.cloud.console_tail(&provider).await.ok().flatten(),
                None => None,
            };
            let message = format!("the machine's agent did not enrol within {} minutes", BOOT_LIMIT.num_minutes());
            let failure =
                Failure { log_tail: console.unwrap_or_default(), ..failure(Code::MachineLost, "boot", message) };
            return self.give_up(failure).await;
        }
        let vms = self.find().await?;
        if has_ended(&vms) && age >= if vms.is_empty() { YOUTH } else { OFF } {
            return self
                .give_up(failure(Code::MachineLost, "boot", "the machine ended before its agent enrolled"))
                .await;
        }
        self.learn_address(&vms).await?;
        Ok(Step::Again(Duration::from_secs(5)))
    }

    /// A machine that an image is made of: no agent enrols, and it stops by itself. It goes when the image's reconciler
    /// wishes it away.
    async fn watch(&self) -> Result<Step, StepError> {
        let age = self.context.now() - self.machine.placed_at.unwrap_or(self.machine.intended_at);
        if self.find().await?.is_empty() && age >= YOUTH {
            return self.give_up(failure(Code::MachineLost, "bake", "the machine is not there any more")).await;
        }
        Ok(Step::Again(LOOK))
    }

    /// Some providers know the address only some seconds after the create, and it is another one when a person has
    /// stopped and started the machine. And the machine that was meant may not run any more, and a twin may be what
    /// does.
    async fn learn_address(&self, vms: &[Vm]) -> Result<(), StepError> {
        let (id, address) = (self.machine.id, self.machine.address.as_ref());
        let addressed = vms.iter().filter(|vm| runs(vm) && vm.address.is_some());
        let is_news = |vm: &&Vm| match self.is_meant(vm) {
            true => vm.address.as_ref() != address,
            false => address.is_none() || !self.shows_meant(vms),
        };
        let known = addressed.min_by_key(|vm| !self.is_meant(vm)).filter(is_news);
        let Some(vm) = known else { return Ok(()) };
        self.write_and_tell("record a machine's address", async |tx| {
            tx.machine_placed(id, &vm.id.0, vm.address.as_deref()).await.map(drop)
        })
        .await
    }

    /// Whether its row names this one.
    fn is_meant(&self, vm: &Vm) -> bool {
        self.machine.provider_id.as_ref() == Some(&vm.id.0)
    }

    /// Whether the one that its row names is there, and runs or was being put to sleep: no twin takes its place.
    fn shows_meant(&self, vms: &[Vm]) -> bool {
        let was_asked = self.machine.sleep_asked_at.is_some();
        vms.iter().any(|vm| self.is_meant(vm) && (was_asked || runs(vm)))
    }

    fn is_up(&self, vms: &[Vm]) -> bool {
        vms.iter().any(|vm| runs(vm) && (self.is_meant(vm) || !self.shows_meant(vms)))
    }

    /// Whether its enrolment token turned up twice.
    async fn is_suspect(&self) -> Result<bool, StepError> {
        let agent = self.context.find_agent(self.machine.id).await.map_err(store_error("look at a machine's agent"))?;
        Ok(agent.is_some_and(|agent| agent.suspect_at.is_some()))
    }

    /// Awake or asleep as wished, at its address, and still there.
    async fn keep(&self) -> Result<Step, StepError> {
        let (machine, doing) = (self.machine, "look at a machine");
        let is_awake = (machine.power, machine.state) == (Power::Awake, State::Enrolled);
        let is_asleep = (machine.power, machine.state) == (Power::Asleep, State::Hibernated);
        let was_asked = machine.sleep_asked_at.is_some();
        // What may be on its way to sleep changes sooner than lists do.
        let vms = if is_asleep || (is_awake && !was_asked) {
            let shown = self.account.observe(self.context.installation(), machine.id, machine.power).await;
            shown.map_err(cloud_error(doing))?
        } else {
            self.find().await?
        };
        // What is being put to sleep may be stopped for that, also when it is to be awake again by now.
        let is_lost = if is_awake && !was_asked { has_ended(&vms) } else { vms.is_empty() };
        if is_lost {
            return self.give_up(lost()).await;
        }
        self.learn_address(&vms).await?;
        match (machine.power, machine.state) {
            // The wish for sleep may have been taken back when it slept already.
            (Power::Awake, State::Enrolled) if !self.is_up(&vms) => self.wake_up(&vms).await,
            (Power::Awake, State::Hibernated) => self.wake_up(&vms).await,
            (Power::Asleep, State::Hibernated) if self.sleeps(&vms).await => Ok(Step::Again(REST)),
            (Power::Asleep, _) => self.fall_asleep(&vms).await,
            (Power::Awake, _) => {
                self.forget_sleep().await?;
                Ok(Step::Again(LOOK))
            }
        }
    }

    /// Removes it, and calls it gone only when the provider shows that it is.
    async fn remove(&self) -> Result<Step, StepError> {
        let (doing, id, machine) = ("remove a machine", self.machine.id, self.machine);
        if machine.state == State::Intended {
            return self.gone(State::Intended).await;
        }
        if machine.state != State::Deleting {
            if machine.role != Role::Bake {
                self.context.revoke(id, "the machine is not wanted any more").await?;
            }
            let from = machine.state;
            let _ = self.write(doing, async |tx| tx.set_machine_state(id, from, State::Deleting).await).await?;
        }
        self.account.outdate(id).await;
        let found = self.cloud.find_to_remove(id).await.map_err(cloud_error(doing))?;
        let count = found.len();
        let shown = keep_own(self.context.installation(), found);
        let is_of_others = shown.len() < count;
        // A create whose answer was lost: the machine costs all the same.
        if machine.placed_at.is_none() && !shown.is_empty() {
            let _ = self.write(doing, async |tx| tx.machine_shown(id).await).await?;
        }
        let (held, left): (Vec<Vm>, Vec<Vm>) = shown.into_iter().partition(|vm| vm.hold);
        // A provider may still know it by the id that it gave, though not by ours.
        let known = machine.provider_id.clone().map(ProviderId).filter(|_| held.is_empty() && !is_of_others);
        let ids: Vec<ProviderId> = left.into_iter().map(|vm| vm.id).chain(known).collect();
        let mut is_held = !held.is_empty();
        for provider in &ids {
            match self.cloud.delete(provider).await.map_err(cloud_error(doing))? {
                DeleteProgress::InProgress => return Ok(Step::Again(Duration::from_secs(2))),
                // Since it was found, or in a part of it at which nobody looked.
                DeleteProgress::Held => is_held = true,
                DeleteProgress::Gone => {}
            }
        }
        if is_held {
            tracing::warn!(machine.id = %id, "{id} is not wanted any more, and held at the provider: it stays");
            return Ok(Step::Again(Duration::from_secs(300)));
        }
        // A create that was sent and not answered may still land: it is waited out, then looked for once more.
        if machine.provider_id.is_none()
            && machine.create_deadline.is_some_and(|deadline| deadline > self.context.now())
        {
            return Ok(Step::Again(Duration::from_secs(5)));
        }
        let left = self.cloud.find_removed(id).await.map_err(cloud_error(doing))?;
        if !keep_own(self.context.installation(), left).is_empty() {
            return Ok(Step::Again(Duration::from_secs(2)));
        }
        self.gone(State::Deleting).await
    }

    async fn gone(&self, from: State) -> Result<Step, StepError> {
        let id = self.machine.id;
        self.write_and_tell("record that a machine is gone", async |tx| {
            tx.set_machine_state(id, from, State::Gone).await.map(drop)
        })
        .await?;
        tracing::info!(machine.id = %id, "{id} is gone");
        Ok(Step::Done)
    }

    async fn give_up(&self, failure: Failure) -> Result<Step, StepError> {
        let id = self.machine.id;
        tracing::warn!(machine.id = %id, code = failure.code.as_str(), "{id}: {}", failure.message);
        self.write_and_tell("give a machine up", async |tx| tx.drop_machine(id, Some(&failure)).await.map(drop))
            .await?;
        Ok(Step::Again(Duration::ZERO))
    }

    /// What the provider shows of it. An error is no answer.
    async fn find(&self) -> Result<Vec<Vm>, StepError> {
        let found = self.cloud.find(self.machine.id).await.map_err(cloud_error("look for a machine"))?;
        Ok(keep_own(self.context.installation(), found))
    }

    async fn write(
        &self,
        doing: &'static str,
        change: impl AsyncFnOnce(&Writing) -> stagely_store::Result<Outcome>,
    ) -> Result<Outcome, StepError> {
        let tx = self.context.fenced(self.fence).await.map_err(store_error(doing))?;
        let outcome = change(&tx).await.map_err(store_error(doing))?;
        tx.commit().await.map_err(store_error(doing))?;
        Ok(outcome)
    }

    /// Writes, and wakes whoever uses the machine.
    async fn write_and_tell(
        &self,
        doing: &'static str,
        change: impl AsyncFnOnce(&Writing) -> stagely_store::Result<()>,
    ) -> Result<(), StepError> {
        let machine = self.machine;
        self.write(doing, async |tx| {
            change(tx).await?;
            match (machine.environment, machine.project, self.bake) {
                (_, _, Some(image)) => tx.wake(kind::IMAGE, image.id.uuid()).await?,
                (Some(env), ..) => tx.wake(kind::ENVIRONMENT, env.uuid()).await?,
                (None, Some(project), None) => tx.wake(kind::FLEET, project.uuid()).await?,
                (None, None, None) => {}
            }
            Ok(Outcome::Written)
        })
        .await
        .map(drop)
    }
}

/// Whether there is no machine any more, or one that ended by itself.
fn has_ended(vms: &[Vm]) -> bool {
    vms.iter().all(|vm| vm.state == VmState::Stopped)
}

/// Whether it neither sleeps nor has stopped.
fn runs(vm: &Vm) -> bool {
    !matches!(vm.state, VmState::Hibernated | VmState::Stopped)
}

fn lost() -> Failure {
    failure(Code::MachineLost, "run", "the machine is not there any more")
}

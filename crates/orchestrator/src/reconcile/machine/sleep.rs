//! Falling asleep and waking. That a provider is asked to put a machine to sleep is written down before: it shuts the
//! machine down, and keeps its disk after that. A machine that is to be awake again meanwhile may have stopped because
//! of that: it is not lost, and is woken from there.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::{ErrorKind, SleepProgress, Vm, VmState};
use stagely_domain::machine::State;
use stagely_reconcile::{ErrorClass, Step, StepError};
use stagely_store::Outcome;

use super::{LOOK, REST, Work, lost, runs};
use crate::context::cloud_error;
use crate::reconcile::ledger::Writing;

/// After how long one is woken again for which there was no room. Such tries are not counted: it has nowhere else to go,
/// and one day there is room.
const NO_ROOM: Duration = Duration::from_secs(60);
/// So long after it was last asked to sleep a machine that runs may still shut down because of that.
const SHUTDOWN_LIMIT: TimeDelta = TimeDelta::minutes(10);

impl Work<'_> {
    /// Whether all that is shown of it sleeps, and has said so itself: by an earlier version it may be recorded as
    /// asleep although it is only half-way there.
    pub(super) async fn sleeps(&self, vms: &[Vm]) -> bool {
        vms.iter().all(|vm| vm.state == VmState::Hibernated) && self.account.is_known_asleep(self.machine.id).await
    }

    /// Until each that is shown says that it sleeps. Providers show as asleep what is only half-way there, so that
    /// nobody takes it for lost; it costs as if it ran.
    pub(super) async fn fall_asleep(&self, vms: &[Vm]) -> Result<Step, StepError> {
        let (doing, id) = ("hibernate a machine", self.machine.id);
        self.account.outdate(id).await;
        // Before the first call: from then on it may stop, and is not lost for that.
        let ask = async |tx: &Writing| tx.note_machine_sleep(id, true).await.map(|()| Outcome::Written);
        let _ = self.write(doing, ask).await?;
        let mut sleeps = true;
        for vm in vms {
            sleeps &= match self.cloud.hibernate(&vm.id).await {
                Ok(progress) => progress == SleepProgress::Asleep,
                // It was found a moment ago, and may sleep under another id: what is found next decides.
                Err(error) if error.kind == ErrorKind::NotFound => false,
                Err(error) => return Err(cloud_error(doing)(error)),
            };
        }
        if !sleeps {
            // It was woken, which was not recorded, or there is a second one, or it never slept: it is billed.
            self.becomes(State::Hibernated, State::Enrolled).await?;
            return Ok(Step::Again(Duration::from_secs(5)));
        }
        self.account.note_asleep(id).await;
        self.becomes(State::Enrolled, State::Hibernated).await?;
        Ok(Step::Again(REST))
    }

    /// Records whether it sleeps, if that is news.
    async fn becomes(&self, from: State, to: State) -> Result<(), StepError> {
        let id = self.machine.id;
        if self.machine.state != from {
            return Ok(());
        }
        self.write_and_tell("record whether a machine sleeps", async |tx| {
            tx.set_machine_state(id, from, to).await.map(drop)
        })
        .await?;
        let says = if to == State::Hibernated { "sleeps" } else { "does not sleep yet" };
        tracing::info!(machine.id = %id, "{id} {says}");
        Ok(())
    }

    pub(super) async fn wake_up(&self, vms: &[Vm]) -> Result<Step, StepError> {
        let (doing, id) = ("wake a machine", self.machine.id);
        // Of two the one that is meant: what was done was done on it, and the other goes.
        let was_asked = self.machine.sleep_asked_at.is_some();
        let sleeps = |vm: &Vm| vm.state == VmState::Hibernated || (was_asked && vm.state == VmState::Stopped);
        let Some(asleep) = vms.iter().min_by_key(|vm| (!sleeps(vm), !self.is_meant(vm))) else {
            return self.give_up(lost()).await;
        };
        self.account.outdate(id).await;
        // Its credential may have run out while it slept: for some minutes it may come back all the same.
        self.context.prepare_enrolment(id, doing).await?;
        let vm = match self.cloud.wake(&asleep.id).await {
            Ok(vm) => vm,
            // What stopped and cannot be woken has ended, unless it is still being put to sleep.
            Err(error) if error.kind == ErrorKind::NotFound => {
                let has_ended = asleep.state == VmState::Stopped && self.was_asked_long_ago();
                return if has_ended { self.give_up(lost()).await } else { Ok(Step::Again(Duration::from_secs(5))) };
            }
            Err(error) if matches!(error.kind, ErrorKind::Capacity | ErrorKind::Quota) => {
                return Err(StepError::new(ErrorClass::RateLimited { retry_after: NO_ROOM }, doing, error));
            }
            Err(error) => return Err(cloud_error(doing)(error)),
        };
        let is_the_same = vm.created_at.is_some() && vm.created_at == asleep.created_at;
        self.write_and_tell("record a woken machine", async |tx| {
            let _ = tx.machine_placed(id, &vm.id.0, vm.address.as_deref()).await?;
            // It slept, though that may not be recorded: each waking is billed by itself. What was only half-way there
            // is the same as before, and was billed all the time.
            if !is_the_same {
                let _ = tx.set_machine_state(id, State::Enrolled, State::Hibernated).await?;
            }
            // What had stopped runs again, and what was asked before is over.
            if !runs(asleep) {
                tx.note_machine_sleep(id, false).await?;
            }
            tx.set_machine_state(id, State::Hibernated, State::Enrolled).await.map(drop)
        })
        .await?;
        tracing::info!(machine.id = %id, "{id} is awake");
        Ok(Step::Again(LOOK))
    }

    /// It runs. When it was asked long enough ago to sleep, it does not shut down because of that any more.
    pub(super) async fn forget_sleep(&self) -> Result<(), StepError> {
        let (doing, id) = ("record that a machine stays awake", self.machine.id);
        if self.was_asked_long_ago() {
            self.write_and_tell(doing, async |tx| tx.note_machine_sleep(id, false).await).await?;
        }
        Ok(())
    }

    fn was_asked_long_ago(&self) -> bool {
        self.machine.sleep_asked_at.is_some_and(|asked| self.context.now() - asked >= SHUTDOWN_LIMIT)
    }
}

//! A transaction on the rows in memory, with what the statements in `stagely_store::machines` do to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::failure::Failure as RunFailure;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId};
use stagely_domain::machine::State;
use stagely_domain::offering::Offering;
use stagely_store::environments::{Outcome, Presence};
use stagely_store::machines::{BootImage, Machine};
use stagely_store::work::kind;
use stagely_store::{Result as Stored, StoreError};
use uuid::Uuid;

use super::rows::{Intent, Rows};
use crate::reconcile::ledger::Changes;

/// A copy of the rows, until its commit.
pub struct Transaction {
    rows: Arc<Rows>,
    changed: Mutex<Copy>,
}

type Copy = (BTreeMap<MachineId, Machine>, Vec<(DateTime<Utc>, MachineId, Intent)>, Vec<(&'static str, Uuid)>);

impl Transaction {
    pub fn of(rows: Arc<Rows>) -> Self {
        let changed = Mutex::new((rows.inside().machines.clone(), Vec::new(), Vec::new()));
        Self { rows, changed }
    }

    fn update(
        &self,
        id: MachineId,
        is_meant: impl FnOnce(&Machine) -> bool,
        change: impl FnOnce(&mut Machine, DateTime<Utc>),
    ) -> Outcome {
        let now = self.rows.clock.now();
        match self.changed().0.get_mut(&id).filter(|machine| is_meant(machine)) {
            Some(machine) => {
                change(machine, now);
                Outcome::Written
            }
            None => Outcome::Stale,
        }
    }

    fn refused_with(&self, id: MachineId, tried: String) -> Outcome {
        let is_meant = |machine: &Machine| machine.state == State::Creating && !machine.tried.contains(&tried);
        self.update(id, is_meant, |machine, _| {
            machine.tried.push(tried.clone());
            (machine.offering, machine.image) = (None, None);
        })
    }

    fn changed(&self) -> MutexGuard<'_, Copy> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Changes for Transaction {
    /// Nobody changes the account here.
    async fn hold_account(&self, _: CloudAccountId, _: i64) -> Stored<Outcome> {
        Ok(Outcome::Written)
    }

    /// Every image that is named is there to be booted.
    async fn machine_creating(
        &self,
        id: MachineId,
        limit: TimeDelta,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
    ) -> Stored<Outcome> {
        Ok(self.update(id, is_to_be_made, |machine, now| {
            machine.state = State::Creating;
            (machine.create_deadline, machine.absent_seen_at) = (Some(now + limit), None);
            (machine.offering, machine.image) = (offering.cloned(), image.cloned());
        }))
    }

    async fn machine_refused(&self, id: MachineId, offering: &Offering) -> Stored<Outcome> {
        Ok(self.refused_with(id, offering.to_string()))
    }

    async fn machine_not_made(&self, id: MachineId) -> Stored<Outcome> {
        Ok(self.update(id, is_to_be_made, |machine, _| machine.refusals += 1))
    }

    async fn machine_image_refused(&self, id: MachineId, image: &BootImage) -> Stored<Outcome> {
        Ok(self.refused_with(id, image.tried()))
    }

    async fn fail_image(&self, _: ImageId, _: &RunFailure) -> Stored<Outcome> {
        Ok(Outcome::Stale)
    }

    async fn machine_placed(&self, id: MachineId, provider_id: &str, address: Option<&str>) -> Stored<Outcome> {
        Ok(self.update(
            id,
            |machine| machine.gone_at.is_none(),
            |machine, now| {
                machine.provider_id = Some(provider_id.to_owned());
                machine.address = address.map(str::to_owned).or(machine.address.take());
                machine.placed_at = machine.placed_at.or(Some(now));
                if machine.state == State::Creating {
                    machine.state = State::Booting;
                }
            },
        ))
    }

    async fn machine_shown(&self, id: MachineId) -> Stored<Outcome> {
        let is_meant = |machine: &Machine| machine.placed_at.is_none() && machine.gone_at.is_none();
        Ok(self.update(id, is_meant, |machine, now| machine.placed_at = Some(now)))
    }

    async fn set_machine_state(&self, id: MachineId, from: State, to: State) -> Stored<Outcome> {
        if !from.may_become(to) {
            return Err(StoreError::Illegal { table: "machines", from: format!("{from:?}"), to: format!("{to:?}") });
        }
        Ok(self.update(
            id,
            |machine| machine.state == from,
            |machine, now| {
                machine.state = to;
                if to == State::Enrolled {
                    machine.enrolled_at = machine.enrolled_at.or(Some(now));
                }
                if to == State::Gone {
                    machine.gone_at = Some(now);
                }
            },
        ))
    }

    async fn drop_machine(&self, id: MachineId, failure: Option<&RunFailure>) -> Stored<Outcome> {
        let outcome = self.update(
            id,
            |machine| machine.desired == Presence::Present,
            |machine, now| {
                (machine.desired, machine.drop_at) = (Presence::Absent, Some(now));
                machine.failure = machine.failure.take().or(failure.cloned());
            },
        );
        if outcome == Outcome::Written {
            self.changed().1.push((self.rows.clock.now(), id, Intent::Absent));
        }
        Ok(outcome)
    }

    async fn wake(&self, kind: &'static str, key: Uuid) -> Stored<()> {
        self.changed().2.push((kind, key));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Stored<()> {
        self.rows.doom.point().await;
        {
            let mut changed = self.changed();
            let mut inside = self.rows.inside();
            inside.machines = std::mem::take(&mut changed.0);
            inside.log.append(&mut changed.1);
            for (kind, key) in changed.2.drain(..).filter(|(kind, _)| [kind::MACHINE, kind::SWEEP].contains(kind)) {
                inside.queue.wake((kind, key));
            }
        }
        self.rows.doom.point().await;
        Ok(())
    }
}

fn is_to_be_made(machine: &Machine) -> bool {
    machine.desired == Presence::Present && matches!(machine.state, State::Intended | State::Creating)
}

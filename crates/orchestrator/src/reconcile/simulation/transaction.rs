//! A transaction on the rows in memory, with what the statements in `stagely_store::machines` and
//! `stagely_store::images` do to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::failure::Failure;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId};
use stagely_domain::image;
use stagely_domain::machine::State;
use stagely_domain::offering::Offering;
use stagely_store::images::Image;
use stagely_store::machines::{BootImage, Machine, NewMachine};
use stagely_store::work::kind;
use stagely_store::{Outcome, Presence, Result as Stored, StoreError};
use uuid::Uuid;

use super::rows::{Intent, Rows, intended};
use crate::reconcile::ledger::Changes;

/// A copy of the rows, until its commit.
pub struct Transaction {
    rows: Arc<Rows>,
    changed: Mutex<Copy>,
}

struct Copy {
    machines: BTreeMap<MachineId, Machine>,
    images: BTreeMap<ImageId, Image>,
    log: Vec<(DateTime<Utc>, MachineId, Intent)>,
    wakes: Vec<(&'static str, Uuid)>,
}

impl Transaction {
    pub fn of(rows: Arc<Rows>) -> Self {
        let (machines, images) = {
            let inside = rows.inside();
            (inside.machines.clone(), inside.images.clone())
        };
        Self { rows, changed: Mutex::new(Copy { machines, images, log: Vec::new(), wakes: Vec::new() }) }
    }

    fn update(
        &self,
        id: MachineId,
        is_meant: impl FnOnce(&Machine) -> bool,
        change: impl FnOnce(&mut Machine, DateTime<Utc>),
    ) -> Outcome {
        let now = self.rows.clock.now();
        match self.changed().machines.get_mut(&id).filter(|machine| is_meant(machine)) {
            Some(machine) => {
                change(machine, now);
                Outcome::Written
            }
            None => Outcome::Stale,
        }
    }

    fn update_image(
        &self,
        id: ImageId,
        is_meant: impl FnOnce(&Image) -> bool,
        change: impl FnOnce(&mut Image, DateTime<Utc>),
    ) -> Outcome {
        let now = self.rows.clock.now();
        match self.changed().images.get_mut(&id).filter(|image| is_meant(image)) {
            Some(image) => {
                change(image, now);
                Outcome::Written
            }
            None => Outcome::Stale,
        }
    }

    /// Whether a machine may be created with this image: it can be booted, or was named before by a create under way.
    fn holds_image(&self, id: ImageId, machine: MachineId) -> bool {
        let changed = self.changed();
        let names = |machine: &Machine| {
            machine.state == State::Creating && machine.image.as_ref().is_some_and(|image| image.id == id)
        };
        changed.images.get(&id).is_some_and(|image| {
            (image.state, image.desired) == (image::State::Ready, Presence::Present)
                || changed.machines.get(&machine).is_some_and(names)
        })
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

    async fn machine_creating(
        &self,
        id: MachineId,
        limit: TimeDelta,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
    ) -> Stored<Outcome> {
        if image.is_some_and(|image| !self.holds_image(image.id, id)) {
            return Ok(Outcome::Stale);
        }
        Ok(self.update(id, is_to_be_made, |machine, now| {
            machine.state = State::Creating;
            machine.create_deadline = Some(now + limit);
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

    async fn bake_image(&self, id: ImageId, new: &NewMachine, agent_sha256: &str) -> Stored<Outcome> {
        let is_meant = |image: &Image| image.machine.is_none() && is_baking(image);
        let outcome = self.update_image(id, is_meant, |image, _| {
            (image.machine, image.agent_sha256) = (Some(new.id), Some(agent_sha256.to_owned()));
        });
        let now = self.rows.clock.now();
        let ids = [new.team.uuid(), Uuid::nil(), Uuid::nil(), new.account.uuid()];
        let machine = Machine {
            project: new.project,
            environment: new.environment,
            role: new.role,
            size: new.size,
            arch: new.arch,
            locations: new.locations.clone(),
            ..intended(new.id, ids, now + new.lifetime, now)
        };
        let mut changed = self.changed();
        changed.machines.insert(new.id, machine);
        changed.log.push((now, new.id, Intent::Awake));
        Ok(outcome)
    }

    async fn image_ready(&self, id: ImageId, reference: &str, locations: &[String]) -> Stored<Outcome> {
        Ok(self.update_image(id, is_baking, |image, now| {
            (image.state, image.ready_at) = (image::State::Ready, Some(now));
            (image.reference, image.locations) = (Some(reference.to_owned()), locations.to_vec());
        }))
    }

    async fn fail_image(&self, id: ImageId, failure: &Failure) -> Stored<Outcome> {
        let is_meant = |image: &Image| matches!(image.state, image::State::Baking | image::State::Ready);
        Ok(self.update_image(id, is_meant, |image, _| {
            (image.state, image.failure) = (image::State::Failed, Some(failure.clone()));
        }))
    }

    async fn wish_image_absent(&self, id: ImageId) -> Stored<Outcome> {
        let is_meant = |image: &Image| image.desired == Presence::Present;
        Ok(self.update_image(id, is_meant, |image, _| {
            (image.desired, image.generation) = (Presence::Absent, image.generation + 1);
        }))
    }

    async fn image_cleared(&self, id: ImageId) -> Stored<Outcome> {
        let is_meant = |image: &Image| {
            let is_unwanted = image.desired == Presence::Absent || image.state == image::State::Failed;
            is_unwanted && image.state != image::State::Gone
        };
        Ok(self.update_image(id, is_meant, |image, now| {
            image.deleted_at = image.deleted_at.or(Some(now));
            if image.desired == Presence::Absent {
                image.state = image::State::Gone;
            }
        }))
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

    async fn note_machine_sleep(&self, id: MachineId, asked: bool) -> Stored<()> {
        let _ = self.update(id, |_| true, |machine, now| machine.sleep_asked_at = asked.then_some(now));
        Ok(())
    }

    async fn drop_machine(&self, id: MachineId, failure: Option<&Failure>) -> Stored<Outcome> {
        let outcome = self.update(
            id,
            |machine| machine.desired == Presence::Present,
            |machine, now| {
                (machine.desired, machine.drop_at) = (Presence::Absent, Some(now));
                machine.failure = machine.failure.take().or(failure.cloned());
            },
        );
        if outcome == Outcome::Written {
            self.changed().log.push((self.rows.clock.now(), id, Intent::Absent));
        }
        Ok(outcome)
    }

    async fn wake(&self, kind: &'static str, key: Uuid) -> Stored<()> {
        self.changed().wakes.push((kind, key));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Stored<()> {
        self.rows.doom.point().await;
        {
            let mut changed = self.changed();
            let mut inside = self.rows.inside();
            inside.machines = std::mem::take(&mut changed.machines);
            inside.images = std::mem::take(&mut changed.images);
            inside.log.append(&mut changed.log);
            let lived = [kind::IMAGE, kind::MACHINE, kind::SWEEP];
            for (kind, key) in changed.wakes.drain(..).filter(|(kind, _)| lived.contains(kind)) {
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

fn is_baking(image: &Image) -> bool {
    (image.desired, image.state) == (Presence::Present, image::State::Baking)
}

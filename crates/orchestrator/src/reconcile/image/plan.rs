//! What is to be done next for a golden image: a pure function of what the rows say.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::ProviderId;
use stagely_cloud::catalogue::is_in;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::ImageId;
use stagely_domain::image::State;
use stagely_domain::machine;
use stagely_store::Presence;
use stagely_store::images::Image;
use stagely_store::machines::Machine;

use crate::failures::failure;

// Invariant: both limits together end well before `stagely_cloud::BAKE_DEADLINE`, at which a failed bake powers itself off
// as one does that went well.
/// How long a bake may take from the placing of its machine until the image is ready.
pub const BAKE_LIMIT: TimeDelta = TimeDelta::minutes(25);
/// How long there may be no machine for it.
pub const PLACE_LIMIT: TimeDelta = TimeDelta::minutes(60);
const SOON: Duration = Duration::from_secs(5);

/// Everything that a decision is made on.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub image: Image,
    /// The machine that it is made of, gone or not.
    pub machine: Option<Machine>,
    /// What new machines of the same account and architecture may boot.
    pub bootable: Vec<Bootable>,
    /// A machine is being created with it, and the same must be asked for again.
    pub is_asked_for: bool,
}

/// An image that is ready and wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootable {
    pub id: ImageId,
    /// Where machines can boot it; everywhere when it is empty.
    pub locations: Vec<String>,
}

impl Bootable {
    /// Whether it is newer and boots wherever the other does.
    fn replaces(&self, other: &Self) -> bool {
        let boots = |place: &String| self.locations.iter().any(|known| is_in(place, known));
        let is_everywhere = self.locations.is_empty();
        self.id > other.id && (is_everywhere || (!other.locations.is_empty() && other.locations.iter().all(boots)))
    }
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Wish for the machine that bakes.
    EnsureMachine,
    /// Make an image of it, once it has stopped.
    Capture(ProviderId),
    /// Say why it cannot be had, and wish its machine away.
    Fail(Box<Failure>),
    /// Wish its machine away.
    DropMachine,
    /// Wish these away, for which there is a newer one.
    Retire(Vec<ImageId>),
    /// Remove everything of it from the provider.
    Remove,
    /// Close its row: nothing of it was left when the provider was asked before.
    Close,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    Do(Op),
    /// Look again after this long.
    Wait(Duration),
    /// Nothing until somebody wishes otherwise.
    Rest,
}

/// The next step.
pub fn plan(snapshot: &Snapshot, now: DateTime<Utc>) -> Plan {
    match (snapshot.image.desired, snapshot.image.state) {
        (_, State::Gone) => Plan::Rest,
        (Presence::Absent, _) | (_, State::Failed) => leave(snapshot),
        (Presence::Present, State::Baking) => bake(snapshot, now),
        (Presence::Present, State::Ready) => keep(snapshot),
    }
}

/// Towards an image that can be booted.
fn bake(snapshot: &Snapshot, now: DateTime<Utc>) -> Plan {
    let late = || {
        let message = format!("there was no machine to bake within {} minutes", PLACE_LIMIT.num_minutes());
        fail(failure(Code::TimedOut, "bake", message))
    };
    let Some(machine) = &snapshot.machine else {
        let age = now - snapshot.image.created_at;
        return if age > PLACE_LIMIT { late() } else { Plan::Do(Op::EnsureMachine) };
    };
    if machine.desired == Presence::Absent {
        let lost = || failure(Code::MachineLost, "bake", "the machine that was to be baked was removed");
        return fail(machine.failure.clone().unwrap_or_else(lost));
    }
    // After an outage its placing is recorded late: it may have run, and ended itself, long before.
    let placed_at = machine.placed_at.unwrap_or(now);
    if placed_at - machine.intended_at > PLACE_LIMIT {
        return late();
    }
    if now - placed_at > BAKE_LIMIT {
        let minutes = BAKE_LIMIT.num_minutes();
        let message = format!("the machine was not baked and copied within {minutes} minutes of its placing");
        return fail(failure(Code::TimedOut, "bake", message));
    }
    match (&machine.provider_id, machine.state) {
        (Some(id), machine::State::Booting) => Plan::Do(Op::Capture(ProviderId(id.clone()))),
        _ => Plan::Wait(SOON),
    }
}

/// It can be booted: its machine goes, and so do the images that a newer one replaces.
fn keep(snapshot: &Snapshot) -> Plan {
    if snapshot.machine.as_ref().is_some_and(|machine| machine.desired == Presence::Present) {
        return Plan::Do(Op::DropMachine);
    }
    let is_replaced = |image: &&Bootable| snapshot.bootable.iter().any(|newer| newer.replaces(image));
    let replaced: Vec<ImageId> = snapshot.bootable.iter().filter(is_replaced).map(|image| image.id).collect();
    if replaced.is_empty() { Plan::Rest } else { Plan::Do(Op::Retire(replaced)) }
}

/// Towards nothing: first what it is made of, so that nothing of it can come after, then what is asked for with it.
fn leave(snapshot: &Snapshot) -> Plan {
    match &snapshot.machine {
        Some(machine) if machine.desired == Presence::Present => return Plan::Do(Op::DropMachine),
        Some(machine) if machine.gone_at.is_none() => return Plan::Wait(SOON),
        _ => {}
    }
    let image = &snapshot.image;
    match (image.deleted_at, image.desired) {
        // A failed bake left nothing, and its row says why until it is wished away.
        (Some(_), Presence::Present) => Plan::Rest,
        // Its account may be deleted since, and its credentials with it. What came after all is for the sweep to find.
        (Some(_), Presence::Absent) => Plan::Do(Op::Close),
        _ if snapshot.is_asked_for => Plan::Wait(SOON),
        _ => Plan::Do(Op::Remove),
    }
}

fn fail(failure: Failure) -> Plan {
    Plan::Do(Op::Fail(Box::new(failure)))
}

#[cfg(test)]
mod tests;

//! Where a machine may have been made by a call whose answer was lost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stagely_domain::id::MachineId;
use tokio::time::Instant;

/// A create that was sent so long ago has been answered by what is listed.
const MEMORY: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Doubts(Mutex<Vec<(MachineId, String, Instant)>>);

impl Doubts {
    pub(super) fn note(&self, machine: MachineId, region: &str) {
        if !self.has(machine, region) {
            self.inside().push((machine, region.to_owned(), Instant::now()));
        }
    }

    pub(super) fn has(&self, machine: MachineId, region: &str) -> bool {
        self.inside().iter().any(|(doubted, place, _)| *doubted == machine && place == region)
    }

    /// It is known by now.
    pub(super) fn settle(&self, machine: MachineId) {
        self.inside().retain(|(doubted, _, _)| *doubted != machine);
    }

    fn inside(&self) -> MutexGuard<'_, Vec<(MachineId, String, Instant)>> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|(_, _, at)| at.elapsed() < MEMORY);
        inside
    }
}

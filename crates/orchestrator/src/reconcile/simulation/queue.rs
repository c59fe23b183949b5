//! The work queue, in memory and in order: the same claims at the same times for the same seed.

use std::collections::BTreeMap;
use std::time::Duration;

use stagely_cloud::testing::Chance;
use stagely_reconcile::{Claim, ErrorClass, Fence, Step, StepError};
use tokio::time::Instant;
use uuid::Uuid;

/// As `stagely_reconcile::Options` has it.
const MAX_ATTEMPTS: u32 = 20;
/// How long what a dead process was at is nobody's.
const LEASE: Duration = Duration::from_secs(15);

pub type Key = (&'static str, Uuid);

#[derive(Default)]
pub struct Queue {
    rows: BTreeMap<Key, Row>,
    /// Until when, each time, something kept a key from its work.
    troubles: BTreeMap<Key, Vec<Instant>>,
}

#[derive(Default)]
struct Row {
    due: Option<Instant>,
    not_before: Option<Instant>,
    at_work: bool,
    woken: bool,
    epoch: i64,
    attempt: u32,
    parked: bool,
}

impl Queue {
    pub fn wake(&mut self, key: Key) {
        let row = self.rows.entry(key).or_default();
        (row.woken, row.parked) = (true, false);
        row.due = Some(Instant::now());
    }

    /// What is due now.
    pub fn claim(&mut self) -> Vec<Claim> {
        let now = Instant::now();
        let due = self.rows.iter_mut().filter(|(_, row)| row.at().is_some_and(|at| at <= now));
        due.map(|(&(kind, key), row)| {
            row.epoch += 1;
            row.attempt += 1;
            (row.at_work, row.woken) = (true, false);
            Claim { fence: Fence { kind, key, epoch: row.epoch }, attempt: row.attempt }
        })
        .collect()
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.rows.values().filter_map(Row::at).min()
    }

    pub fn holds(&self, fence: &Fence) -> bool {
        self.rows.get(&(fence.kind, fence.key)).is_some_and(|row| row.epoch == fence.epoch)
    }

    /// As the worker's own loop ends a claim.
    pub fn finish(&mut self, claim: &Claim, outcome: Result<Step, StepError>, chance: &mut Chance) {
        let (now, key) = (Instant::now(), (claim.fence.kind, claim.fence.key));
        let Some(row) = self.rows.get_mut(&key).filter(|row| row.epoch == claim.fence.epoch) else { return };
        row.at_work = false;
        row.not_before = None;
        let error = match outcome {
            Ok(step) => {
                row.attempt = 0;
                row.due = match step {
                    _ if row.woken => Some(now),
                    Step::Done => None,
                    Step::Again(after) => Some(now + after),
                };
                return;
            }
            Err(error) => error,
        };
        let later = match error.class {
            ErrorClass::RateLimited { retry_after } => Some(retry_after),
            _ => None,
        };
        let spent = claim.attempt >= MAX_ATTEMPTS && later.is_none();
        let at = now + later.unwrap_or_else(|| backoff(claim.attempt, chance));
        row.attempt -= u32::from(later.is_some());
        (row.due, row.not_before) = (Some(at), Some(at));
        if error.may_park && (spent || error.class == ErrorClass::Permanent) {
            (row.parked, row.attempt) = (!row.woken, 0);
        }
        self.trouble(key, at);
    }

    /// Its process is dead; what it was at is free when the lease ends.
    pub fn forsake(&mut self, until: Instant) {
        let free = Instant::now() + LEASE;
        let keys: Vec<Key> = self.rows.keys().copied().collect();
        for key in keys {
            let row = self.rows.entry(key).or_default();
            let at = if row.at_work { free.max(until) } else { until };
            if row.at_work {
                (row.at_work, row.due, row.not_before) = (false, Some(free), Some(free));
            }
            self.trouble(key, at);
        }
    }

    /// Something other than its own doing kept it from its work until then.
    pub fn trouble(&mut self, key: Key, until: Instant) {
        self.troubles.entry(key).or_default().push(until);
    }

    /// The last such moment that was not later than `at`.
    pub fn last_trouble(&self, key: Key, at: Instant) -> Option<Instant> {
        self.troubles.get(&key)?.iter().copied().filter(|until| *until <= at).max()
    }

    /// It is not due any more until it is woken.
    pub fn put_off(&mut self, key: Key) {
        self.rows.entry(key).or_default().due = None;
    }
}

impl Row {
    fn at(&self) -> Option<Instant> {
        let free = !self.at_work && !self.parked;
        self.due.filter(|_| free).map(|due| self.not_before.map_or(due, |not_before| due.max(not_before)))
    }
}

/// Half a second, doubling to a minute.
fn backoff(attempt: u32, chance: &mut Chance) -> Duration {
    let ceiling = (500_u64 << attempt.saturating_sub(1).min(7)).min(60_000);
    Duration::from_millis(ceiling / 2 + chance.below(ceiling / 2))
}

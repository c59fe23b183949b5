//! A work queue in memory, on tokio's clock: simulations pause and move the time. And [`break_every_await`], which
//! every operation of every reconciler has to survive.

mod breaking;

pub use breaking::{Break, break_every_await, poll_times};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::claim::{Claim, Fence, Next, WorkError, WorkStore};

/// One row, as `work` in Postgres has it.
#[derive(Debug, Clone)]
struct Row {
    due: Option<Instant>,
    not_before: Instant,
    wake_seq: u64,
    claimed_seq: u64,
    epoch: i64,
    lease_until: Option<Instant>,
    attempt: u32,
    parked: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub struct MemoryWork {
    rows: Mutex<HashMap<(&'static str, Uuid), Row>>,
    signals: Mutex<HashMap<&'static str, Arc<Notify>>>,
}

impl MemoryWork {
    /// Makes a resource due.
    pub fn wake(&self, kind: &'static str, key: Uuid) {
        let now = Instant::now();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry((kind, key)).or_insert(Row {
            due: None,
            not_before: now,
            wake_seq: 0,
            claimed_seq: 0,
            epoch: 0,
            lease_until: None,
            attempt: 0,
            parked: false,
        });
        row.wake_seq += 1;
        row.parked = false;
        row.due = Some(row.due.map_or(now, |due| due.min(now)));
        drop(rows);
        self.wake_signal(kind).notify_waiters();
    }

    /// Whether nothing is due or at work.
    pub fn is_quiet(&self) -> bool {
        let now = Instant::now();
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().all(|row| row.parked || (row.lease_until.is_none_or(|until| until <= now) && row.due.is_none()))
    }

    /// Whether the resource waits for a person.
    pub fn is_parked(&self, kind: &'static str, key: Uuid) -> bool {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&(kind, key)).is_some_and(|row| row.parked)
    }

    /// Whether a write behind this fence would take place.
    pub fn holds(&self, fence: &Fence) -> bool {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&(fence.kind, fence.key)).is_some_and(|row| row.epoch == fence.epoch)
    }

    fn change<T>(&self, fence: &Fence, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get_mut(&(fence.kind, fence.key)).filter(|row| row.epoch == fence.epoch).map(change)
    }
}

#[async_trait]
impl WorkStore for MemoryWork {
    async fn claim(&self, kind: &'static str, _: &str, limit: u32, lease: Duration) -> Result<Vec<Claim>, WorkError> {
        let now = Instant::now();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let free = rows.iter_mut().filter(|((row_kind, _), row)| {
            *row_kind == kind
                && !row.parked
                && row.due.is_some_and(|due| due <= now)
                && row.not_before <= now
                && row.lease_until.is_none_or(|until| until <= now)
        });
        Ok(free
            .take(limit as usize)
            .map(|((kind, key), row)| {
                row.epoch += 1;
                row.attempt += 1;
                row.claimed_seq = row.wake_seq;
                row.lease_until = Some(now + lease);
                Claim { fence: Fence { kind, key: *key, epoch: row.epoch }, attempt: row.attempt }
            })
            .collect())
    }

    async fn renew(&self, fence: &Fence, lease: Duration) -> Result<bool, WorkError> {
        let now = Instant::now();
        Ok(self
            .change(fence, |row| {
                let held = row.lease_until.is_some_and(|until| until > now);
                if held {
                    row.lease_until = Some(now + lease);
                }
                held
            })
            .unwrap_or(false))
    }

    async fn finish(&self, fence: &Fence, next: &Next) -> Result<bool, WorkError> {
        let now = Instant::now();
        let finished = self.change(fence, |row| {
            let woken = row.wake_seq > row.claimed_seq;
            row.lease_until = None;
            match next {
                Next::Done { again_in } => {
                    row.attempt = 0;
                    row.not_before = now;
                    row.due = if woken { Some(now) } else { again_in.map(|after| now + after) };
                }
                Next::Retry { after, counts, .. } => {
                    row.attempt = row.attempt.saturating_sub(u32::from(!counts));
                    row.not_before = now + *after;
                    row.due = Some(if woken { now } else { now + *after });
                }
                Next::Park { .. } => {
                    row.attempt = 0;
                    row.parked = !woken;
                    row.due = Some(now);
                }
            }
        });
        Ok(finished.is_some())
    }

    async fn give_back(&self, fence: &Fence) -> Result<(), WorkError> {
        self.change(fence, |row| {
            row.lease_until = None;
            row.attempt = row.attempt.saturating_sub(1);
            row.due = Some(Instant::now());
        });
        self.wake_signal(fence.kind).notify_waiters();
        Ok(())
    }

    fn wake_signal(&self, kind: &'static str) -> Arc<Notify> {
        Arc::clone(self.signals.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default())
    }
}

//! How many requests the account has left: one bucket for each action, as the provider counts, so that creates never
//! take from what deletes and looks need. A fifth of each stays for the owner's other tools.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::aws::actions::{Action, Effect, RUN_INSTANCES, START_INSTANCES, TERMINATE_INSTANCES};

/// The wait when the provider says that it was asked too often: it does not say how long.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// The longest time that a call waits for its turn by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many requests an account may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// As the provider publishes them.
    Published,
    /// As many as one likes; for doubles.
    None,
}

/// A bucket's size and refill per second, as published for one account in one region.
fn published(action: &Action) -> (f64, f64) {
    let named = |other: &Action| other.permission == action.permission;
    match action.effect {
        Effect::Read => (100.0, 20.0),
        Effect::Change if named(&RUN_INSTANCES) || named(&START_INSTANCES) => (5.0, 2.0),
        Effect::Change if named(&TERMINATE_INSTANCES) => (100.0, 5.0),
        Effect::Change => (50.0, 5.0),
    }
}

/// The allowance of one account.
pub(super) struct Budget {
    limits: Limits,
    buckets: Mutex<HashMap<&'static str, Bucket>>,
}

struct Bucket {
    size: f64,
    per_second: f64,
    /// Below zero when calls already wait for what comes.
    left: f64,
    counted_at: Instant,
    /// Told to come later: nothing is sent before.
    closed_until: Option<Instant>,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, buckets: Mutex::default() }
    }

    /// Takes one request, and waits for its turn when that is near.
    ///
    /// # Errors
    /// How long the wait would be.
    pub(super) async fn take(&self, action: &Action) -> Result<(), Duration> {
        let wait = self.with(action, |bucket, now| bucket.take(now))?;
        if !wait.is_zero() && self.limits == Limits::Published {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// It was not needed after all.
    pub(super) fn give_back(&self, action: &Action) {
        self.with(action, |bucket, _| bucket.left += 1.0);
    }

    /// Sends no more of it for a while.
    pub(super) fn close(&self, action: &Action) {
        self.with(action, |bucket, now| bucket.closed_until = Some(now + PAUSE));
    }

    fn with<T>(&self, action: &Action, act: impl FnOnce(&mut Bucket, Instant) -> T) -> T {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(action.permission).or_insert_with(|| {
            let (size, per_second) = match self.limits {
                Limits::Published => published(action),
                Limits::None => (1e9, 1e9),
            };
            let (size, per_second) = (size * 0.8, per_second * 0.8);
            Bucket { size, per_second, left: size, counted_at: now, closed_until: None }
        });
        act(bucket, now)
    }
}

impl Bucket {
    /// How long until one is there; it is taken unless that is too long.
    fn take(&mut self, now: Instant) -> Result<Duration, Duration> {
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let elapsed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.left = (self.left + elapsed * self.per_second).min(self.size);
        self.counted_at = now;
        let wait = Duration::from_secs_f64(((1.0 - self.left) / self.per_second).max(0.0));
        if wait > PATIENCE {
            return Err(wait);
        }
        self.left -= 1.0;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Budget, Limits, PAUSE};
    use crate::aws::actions::{DESCRIBE_INSTANCES, RUN_INSTANCES, TERMINATE_INSTANCES};

    #[tokio::test(start_paused = true)]
    async fn five_hundred_creates_go_at_the_pace_that_is_allowed_while_deletes_pass() {
        let (budget, start) = (Budget::new(Limits::Published), Instant::now());
        for _ in 0..500 {
            while let Err(wait) = budget.take(&RUN_INSTANCES).await {
                tokio::time::sleep(wait).await;
            }
            assert!(budget.take(&TERMINATE_INSTANCES).await.is_ok());
        }
        let took = start.elapsed().as_secs_f64();
        assert!((500.0 / 2.0..500.0 / 1.5).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_a_little_or_is_told_how_long() {
        let budget = Budget::new(Limits::Published);
        let turns = futures::future::join_all((0..100).map(|_| budget.take(&RUN_INSTANCES))).await;
        let (passed, told): (Vec<_>, Vec<_>) = turns.into_iter().partition(Result::is_ok);
        // Four at once, and eight in the five seconds after.
        assert_eq!((passed.len(), told.len()), (12, 88));
        assert!(told.iter().all(|turn| turn.is_err_and(|wait| wait > Duration::from_secs(5))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_closes_only_its_own_door() {
        let budget = Budget::new(Limits::Published);
        budget.close(&RUN_INSTANCES);
        assert_eq!(budget.take(&RUN_INSTANCES).await.unwrap_err(), PAUSE);
        assert!(budget.take(&DESCRIBE_INSTANCES).await.is_ok());
        tokio::time::advance(PAUSE).await;
        assert!(budget.take(&RUN_INSTANCES).await.is_ok());
    }
}

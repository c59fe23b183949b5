//! How many requests the account has left: a bucket that refills as the provider's does, and that the provider's own
//! count corrects, since others use the account too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What an account may do per hour until the provider says otherwise.
const PER_HOUR: f64 = 3600.0;
/// The part that only reads and deletes may use: what costs money can always be looked for and removed.
const RESERVE: f64 = 0.2;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Reading or deleting: from the whole allowance.
    Free,
    /// Making something: leaves the reserve alone.
    Make,
}

/// The allowance of one account.
pub(super) struct Budget(Mutex<Bucket>);

struct Bucket {
    per_hour: f64,
    left: f64,
    counted_at: Instant,
    /// Told to come later: nothing is sent before.
    closed_until: Option<Instant>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Bucket { per_hour: PER_HOUR, left: PER_HOUR, counted_at: Instant::now(), closed_until: None }))
    }

    /// Takes one request.
    ///
    /// # Errors
    /// How long to wait for it.
    pub(super) fn take(&self, need: Need) -> Result<(), Duration> {
        let mut bucket = self.bucket();
        let now = Instant::now();
        bucket.refill(now);
        if let Some(until) = bucket.closed_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let kept_back = if need == Need::Make { bucket.per_hour * RESERVE } else { 0.0 };
        let missing = kept_back + 1.0 - bucket.left;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing * 3600.0 / bucket.per_hour));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// Corrects the count by what the provider says.
    pub(super) fn learn(&self, limit: Option<f64>, remaining: Option<f64>) {
        let mut bucket = self.bucket();
        bucket.refill(Instant::now());
        if let Some(limit) = limit.filter(|limit| *limit >= 1.0) {
            bucket.per_hour = limit;
        }
        if let Some(remaining) = remaining {
            bucket.left = bucket.left.min(remaining.max(0.0));
        }
    }

    /// Sends nothing for that long.
    pub(super) fn close(&self, wait: Duration) {
        let mut bucket = self.bucket();
        let until = Instant::now() + wait;
        bucket.closed_until = Some(bucket.closed_until.map_or(until, |before| before.max(until)));
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.left = (self.left + elapsed * self.per_hour / 3600.0).min(self.per_hour);
        self.counted_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Budget, Need};

    #[tokio::test(start_paused = true)]
    async fn makes_stop_at_the_reserve_while_deletes_go_on_and_time_gives_back() {
        let budget = Budget::new();
        let made = (0..5000).take_while(|_| budget.take(Need::Make).is_ok()).count();
        assert_eq!(made, 2880);
        let freed = (0..5000).take_while(|_| budget.take(Need::Free).is_ok()).count();
        assert_eq!(freed, 720);
        let wait = budget.take(Need::Free).unwrap_err();
        assert!(wait > Duration::from_millis(900) && wait <= Duration::from_secs(1), "{wait:?}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(budget.take(Need::Free).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_used_counts_and_a_refusal_closes_the_door() {
        let budget = Budget::new();
        budget.learn(Some(7200.0), Some(1441.0));
        assert!(budget.take(Need::Make).is_ok());
        assert!(budget.take(Need::Make).is_err());
        budget.close(Duration::from_secs(30));
        assert_eq!(budget.take(Need::Free).unwrap_err(), Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(budget.take(Need::Free).is_ok());
    }
}

//! How many requests an account has left: a bucket for the hour, and one for the minute where the provider counts minutes
//! too, which refill as the provider's do. The provider's own count of the hour corrects ours, since others use the
//! account as well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a list that was begun waits for the request of its next page.
const PATIENCE: Duration = Duration::from_secs(10);
/// The part of a minute's requests that may be sent at once; the rest flows in over the minute, so that no minute,
/// wherever it begins, sees more than the limit.
const BURST: f64 = 0.4;

/// What a request is for. Each leaves a part of the allowance to those that come after it here: what costs money can always
/// be looked for, and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Making or changing something.
    Make,
    /// Reading.
    Read,
    /// Reading the rest of a list that was begun: lists end before others begin.
    Page,
    /// Deleting, and the looks that it takes: from the whole allowance.
    Delete,
}

impl Need {
    /// The part of the allowance that is not for it.
    const fn leaves(self) -> f64 {
        match self {
            Self::Make => 0.2,
            Self::Read => 0.1,
            Self::Page => 0.05,
            Self::Delete => 0.0,
        }
    }
}

/// Something that takes several requests, and begins only where it can end. Many that began with less would use up with
/// their first requests what their last ones wait for, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Looking for one machine.
    Find,
    /// Making or changing something, after a look.
    Make,
    /// Looking for a machine in order to remove it: begins where there is enough for that and the look after it, too.
    FindToRemove,
    /// Removing something, after a look.
    Remove,
}

impl Operation {
    /// What its requests are for, and how many have to be there.
    const fn takes(self) -> (Need, f64) {
        match self {
            Self::Find => (Need::Read, 5.0),
            Self::Make => (Need::Make, 10.0),
            Self::FindToRemove => (Need::Delete, 20.0),
            Self::Remove => (Need::Delete, 10.0),
        }
    }
}

/// The allowance of one account.
pub(super) struct Budget(Mutex<Allowance>);

struct Allowance {
    hour: Bucket,
    minute: Option<Bucket>,
    /// Told to come later: nothing is sent before.
    closed_until: Option<Instant>,
}

struct Bucket {
    size: f64,
    per_second: f64,
    left: f64,
    counted_at: Instant,
}

impl Budget {
    pub(super) fn new(per_hour: u32, per_minute: Option<u32>) -> Self {
        let hour = Bucket::full(f64::from(per_hour), f64::from(per_hour) / 3600.0);
        let minute = per_minute.map(f64::from).map(|many| Bucket::full(many * BURST, many * (1.0 - BURST) / 60.0));
        Self(Mutex::new(Allowance { hour, minute, closed_until: None }))
    }

    /// Takes one request.
    ///
    /// # Errors
    /// How long to wait for it.
    pub(super) fn take(&self, need: Need) -> Result<(), Duration> {
        let mut allowance = self.allowance();
        allowance.have(need, 1.0)?;
        allowance.buckets().for_each(|bucket| bucket.left -= 1.0);
        Ok(())
    }

    /// Takes nothing, where all is there that it takes.
    ///
    /// # Errors
    /// How long to wait for that.
    pub(super) fn admit(&self, operation: Operation) -> Result<(), Duration> {
        let (need, many) = operation.takes();
        self.allowance().have(need, many)
    }

    /// The same, and waits for its turn when that is near.
    ///
    /// # Errors
    /// How long to wait for it still.
    pub(super) async fn wait_for(&self, need: Need) -> Result<(), Duration> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.take(need) {
                Err(wait) if Instant::now() + wait <= until => tokio::time::sleep(wait).await,
                taken => return taken,
            }
        }
    }

    /// Corrects the count of the hour by what the provider says.
    pub(super) fn learn(&self, limit: Option<f64>, remaining: Option<f64>) {
        let hour = &mut self.allowance().hour;
        hour.refill(Instant::now());
        if let Some(limit) = limit.filter(|limit| *limit >= 1.0) {
            (hour.size, hour.per_second) = (limit, limit / 3600.0);
        }
        if let Some(remaining) = remaining {
            hour.left = hour.left.min(remaining.max(0.0));
        }
    }

    /// Sends nothing for that long.
    pub(super) fn close(&self, wait: Duration) {
        let mut allowance = self.allowance();
        let until = Instant::now() + wait;
        allowance.closed_until = Some(allowance.closed_until.map_or(until, |before| before.max(until)));
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowance {
    /// Whether so many requests are left, or how long to wait for them.
    fn have(&mut self, need: Need, many: f64) -> Result<(), Duration> {
        let now = Instant::now();
        if let Some(until) = self.closed_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let wait = self.buckets().map(|bucket| bucket.wait(now, need, many)).max().unwrap_or_default();
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        [&mut self.hour].into_iter().chain(&mut self.minute)
    }
}

impl Bucket {
    fn full(size: f64, per_second: f64) -> Self {
        Self { size, per_second, left: size, counted_at: Instant::now() }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.left = (self.left + elapsed * self.per_second).min(self.size);
        self.counted_at = now;
    }

    /// How long until so many requests may be taken; nothing when they may be now.
    fn wait(&mut self, now: Instant, need: Need, many: f64) -> Duration {
        self.refill(now);
        let missing = (self.size * need.leaves() + many - self.left).max(0.0);
        Duration::from_secs_f64(missing / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Budget, Need, Operation};

    #[tokio::test(start_paused = true)]
    async fn makes_stop_first_then_reads_while_deletes_go_on_and_time_gives_back() {
        for (budget, counts, wait) in
            [(Budget::new(3600, None), [2880, 360, 180, 180], 1.0), (Budget::new(5000, Some(250)), [80, 10, 5, 5], 0.4)]
        {
            for (need, count) in [Need::Make, Need::Read, Need::Page, Need::Delete].into_iter().zip(counts) {
                let taken = (0..5000).take_while(|_| budget.take(need).is_ok()).count();
                assert_eq!(taken, count, "{need:?}");
            }
            let told = budget.take(Need::Delete).unwrap_err();
            assert!((told.as_secs_f64() - wait).abs() < 0.01, "{told:?}");
            tokio::time::advance(told + Duration::from_millis(1)).await;
            assert!(budget.take(Need::Delete).is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_was_begun_waits_for_its_pages_and_goes_before_new_ones() {
        let budget = Budget::new(3600, None);
        while budget.take(Need::Read).is_ok() {}
        let begun = tokio::time::Instant::now();
        for _ in 0..200 {
            budget.wait_for(Need::Page).await.unwrap();
            assert!(budget.take(Need::Read).is_err());
        }
        // The part that is the pages' alone at once, and then one in each second.
        assert!((19..=21).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert!(budget.take(Need::Delete).is_ok(), "they left what is the deletes'");
        budget.close(Duration::from_secs(60));
        assert_eq!(budget.wait_for(Need::Page).await, Err(Duration::from_secs(60)), "nobody waits for that");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_before_he_makes_begins_only_where_he_can_end() {
        let budget = Budget::new(3600, None);
        let (mut made, mut refused) = (0, 0);
        for _ in 0..5000 {
            if let Err(wait) = budget.admit(Operation::Make) {
                tokio::time::advance(wait).await;
                continue;
            }
            let looks = (0..4).all(|_| budget.take(Need::Read).is_ok());
            if looks && budget.take(Need::Make).is_ok() { made += 1 } else { refused += 1 }
        }
        assert!(made > 1500 && refused == 0, "{made} made, {refused} begun in vain");
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_makes_and_deletes_never_pass_the_limit_of_any_minute() {
        let budget = Budget::new(5000, Some(250));
        let (begun, mut sent) = (tokio::time::Instant::now(), Vec::new());
        for need in [Need::Make, Need::Delete] {
            for _ in 0..500 {
                while let Err(wait) = budget.take(need) {
                    assert!(wait <= Duration::from_secs(60));
                    tokio::time::advance(wait + Duration::from_millis(1)).await;
                }
                sent.push(begun.elapsed());
            }
        }
        for (from, begin) in sent.iter().enumerate() {
            let within = sent[from..].iter().take_while(|at| **at < *begin + Duration::from_secs(60)).count();
            assert!(within <= 250, "{within} in a minute");
        }
        assert!(begun.elapsed() < Duration::from_secs(400), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_used_counts_and_a_refusal_closes_the_door() {
        let budget = Budget::new(3600, None);
        budget.learn(Some(7200.0), Some(1441.0));
        assert!(budget.take(Need::Make).is_ok());
        assert!(budget.take(Need::Make).is_err());
        assert!(budget.take(Need::Read).is_ok());
        budget.close(Duration::from_secs(30));
        assert_eq!(budget.take(Need::Delete).unwrap_err(), Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(budget.take(Need::Read).is_ok());
    }
}

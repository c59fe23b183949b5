//! The loop of one kind of resource in one process.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claim::{Claim, Next, WorkStore};
use crate::step_error::{ErrorClass, StepError, chain};

/// How a step ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All is as wished; wake me.
    Done,
    /// Look again after that long, or when woken.
    Again(Duration),
}

/// Brings one resource closer to its wish. An activation takes no input but the key: after a crash there would
/// be none. It may be dropped at any await and run twice.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// The work kind.
    const KIND: &'static str;

    /// One activation.
    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError>;
}

/// The loop's numbers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who holds the leases: unique per process.
    pub owner: String,
    /// Resources at work at the same time.
    pub concurrency: u32,
    /// How long a claim lasts unless renewed.
    pub lease: Duration,
    /// How often it is renewed.
    pub renew_every: Duration,
    /// How often, at least, the queue is looked at without being woken.
    pub poll: Duration,
    /// How long running steps may go on after shutdown.
    pub grace: Duration,
    /// Failed tries after which a row parks.
    pub max_attempts: u32,
}

impl Options {
    /// The defaults for a process called `owner`: sixteen resources at a time, a lease of 15 s that is renewed every
    /// 5 s, a look at the queue every second, half a second to end in, and twenty tries.
    #[must_use]
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            concurrency: 16,
            lease: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            poll: Duration::from_secs(1),
            grace: Duration::from_millis(500),
            max_attempts: 20,
        }
    }
}

/// Runs one reconciler until shutdown.
pub struct Worker<R> {
    reconciler: Arc<R>,
    store: Arc<dyn WorkStore>,
    options: Options,
}

impl<R: Reconciler> Worker<R> {
    /// A worker that is not running yet.
    pub fn new(reconciler: R, store: Arc<dyn WorkStore>, options: Options) -> Self {
        Self { reconciler: Arc::new(reconciler), store, options }
    }

    /// Claims and reconciles until `shutdown`; then ends or gives back what is at work and returns.
    pub async fn run(self, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.options.concurrency as usize));
        let signal = self.store.wake_signal(R::KIND);
        while !shutdown.is_cancelled() {
            // Interest is registered before the look, so a wake between look and wait is not missed.
            let woken = signal.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();

            // Slots come before claims: a claim without a slot would sit on its lease.
            let Some(free) = free_slots(&slots, &shutdown).await else { break };
            let asked_at = Instant::now();
            let claims = self.claim(free.len()).await;
            if claims.is_empty() {
                drop(free);
                tokio::select! {
                    () = woken => {}
                    () = sleep(jittered(self.options.poll)) => {}
                    () = shutdown.cancelled() => {}
                }
                continue;
            }
            for (claim, slot) in claims.into_iter().zip(free) {
                let step = self.step(claim, asked_at, shutdown.clone());
                let (signal, poll, shutdown) = (Arc::clone(&signal), self.options.poll, shutdown.clone());
                tracker.spawn(async move {
                    let next = step.await;
                    drop(slot);
                    // The row may be due already (a wake during the work), or will be before the next poll.
                    signal.notify_waiters();
                    let soon = next.as_ref().and_then(Next::due_in).filter(|after| !after.is_zero() && *after < poll);
                    if let Some(after) = soon {
                        tokio::select! {
                            () = sleep(after) => signal.notify_waiters(),
                            () = shutdown.cancelled() => {}
                        }
                    }
                });
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    /// Takes up to `limit` due resources; none when the store does not answer.
    async fn claim(&self, limit: usize) -> Vec<Claim> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let claim = self.store.claim(R::KIND, &self.options.owner, limit, self.options.lease);
        match timeout(self.options.lease, claim).await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                tracing::warn!(kind = R::KIND, error = %chain(&error), "cannot claim work");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(kind = R::KIND, "cannot claim work in time");
                Vec::new()
            }
        }
    }

    /// One activation and the end of its claim; what was made of the row, unless that is for others to say.
    fn step(
        &self,
        claim: Claim,
        asked_at: Instant,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Option<Next>> + Send + use<R> {
        let (reconciler, store, options) =
            (Arc::clone(&self.reconciler), Arc::clone(&self.store), self.options.clone());
        async move {
            if shutdown.is_cancelled() {
                give_back::<R>(store.as_ref(), &claim, &options).await;
                return None;
            }
            let work = AssertUnwindSafe(reconciler.reconcile(&claim)).catch_unwind();
            let outcome = tokio::select! {
                biased;
                // The step's future is dropped with its lease: it cannot write any more, so it must not go on.
                () = lose_lease(store.as_ref(), &claim, asked_at, &options) => {
                    tracing::warn!(kind = R::KIND, key = %claim.fence.key, "lease lost");
                    return None;
                }
                outcome = work => outcome,
                () = stopped(&shutdown, options.grace) => {
                    give_back::<R>(store.as_ref(), &claim, &options).await;
                    return None;
                }
            };
            let next = judge::<R>(&claim, outcome, &options)?;
            match timeout(options.lease, store.finish(&claim.fence, &next)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(kind = R::KIND, key = %claim.fence.key, error = %chain(&error), "claim not ended");
                }
                Err(_) => tracing::warn!(kind = R::KIND, key = %claim.fence.key, "claim not ended in time"),
            }
            Some(next)
        }
    }
}

/// All slots that are free, at least one; `None` at shutdown.
async fn free_slots(slots: &Arc<Semaphore>, shutdown: &CancellationToken) -> Option<Vec<OwnedSemaphorePermit>> {
    let first = tokio::select! {
        slot = Arc::clone(slots).acquire_owned() => slot.ok()?,
        () = shutdown.cancelled() => return None,
    };
    let more = std::iter::from_fn(|| Arc::clone(slots).try_acquire_owned().ok());
    Some(std::iter::once(first).chain(more).collect())
}

/// Ends when the lease is lost, or may lapse before it could be renewed once more. The store's clock is not ours:
/// a lease is counted from before it was asked for, on our monotonic clock, and left one renewal early.
async fn lose_lease(store: &dyn WorkStore, claim: &Claim, asked_at: Instant, options: &Options) {
    let held_for = options.lease.saturating_sub(options.renew_every);
    let (mut held_until, mut renew_at) = (asked_at + held_for, asked_at + options.renew_every);
    loop {
        sleep_until(renew_at.min(held_until)).await;
        let now = Instant::now();
        if now >= held_until {
            return;
        }
        match timeout_at(held_until, store.renew(&claim.fence, options.lease)).await {
            Ok(Ok(true)) => (held_until, renew_at) = (now + held_for, now + options.renew_every),
            Ok(Ok(false)) | Err(_) => return,
            // A short absence of the store is survived by asking more often.
            Ok(Err(error)) => {
                tracing::warn!(kind = claim.fence.kind, key = %claim.fence.key, error = %chain(&error), "lease not renewed");
                renew_at = Instant::now() + options.renew_every / 5;
            }
        }
    }
}

/// Frees the row for others at once.
async fn give_back<R: Reconciler>(store: &dyn WorkStore, claim: &Claim, options: &Options) {
    let key = claim.fence.key;
    match timeout(options.lease, store.give_back(&claim.fence)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(kind = R::KIND, %key, error = %chain(&error), "lease not given back"),
        Err(_) => tracing::warn!(kind = R::KIND, %key, "lease not given back in time"),
    }
}

async fn stopped(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    sleep(grace).await;
}

type Caught = Result<Result<Step, StepError>, Box<dyn std::any::Any + Send>>;

/// What the outcome of a step means for its row; `None` when the row is somebody else's.
fn judge<R: Reconciler>(claim: &Claim, outcome: Caught, options: &Options) -> Option<Next> {
    let error = match outcome {
        Ok(Ok(Step::Done)) => return Some(Next::Done { again_in: None }),
        Ok(Ok(Step::Again(after))) => return Some(Next::Done { again_in: Some(after) }),
        Ok(Err(error)) => error,
        Err(panic) => StepError::new(ErrorClass::Transient, "the reconciler panicked", said(panic.as_ref())),
    };
    let (key, chain) = (claim.fence.key, error.chain());
    // Being told to come later is no failed try, however often.
    let later = match error.class {
        ErrorClass::RateLimited { retry_after } => Some(retry_after),
        _ => None,
    };
    let spent = claim.attempt >= options.max_attempts && later.is_none();
    let parks = error.may_park && (spent || error.class == ErrorClass::Permanent);
    if error.class == ErrorClass::Fenced {
        return None;
    }
    if parks {
        tracing::error!(kind = R::KIND, %key, attempt = claim.attempt, error = chain, "{} {key} parked", R::KIND);
        return Some(Next::Park { error: chain });
    }
    let after = later.unwrap_or_else(|| backoff(claim.attempt));
    tracing::warn!(kind = R::KIND, %key, attempt = claim.attempt, error = chain, "{} {key} failed, next try in {after:?}", R::KIND);
    Some(Next::Retry { after, error: chain, counts: later.is_none() })
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Half a second, doubling to a minute, each spread over its upper half so that many failures do not march in step.
fn backoff(attempt: u32) -> Duration {
    let ceiling =
        Duration::from_millis(500).saturating_mul(1 << attempt.saturating_sub(1).min(7)).min(Duration::from_secs(60));
    ceiling / 2 + jitter(ceiling / 2)
}

/// Between half of `longest` and all of it.
fn jittered(longest: Duration) -> Duration {
    longest / 2 + jitter(longest / 2)
}

/// A random part of `range`.
fn jitter(range: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() & 0xffff;
    range * u32::try_from(random).unwrap_or(0) / 0xffff
}

#[cfg(test)]
mod tests;

//! The loop of one kind of resource in one process.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claim::{Claim, Next, WorkStore};
use crate::failure::{ErrorClass, Failure};

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
    async fn reconcile(&self, claim: &Claim) -> Result<Step, Failure>;
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
    /// How often the queue is looked at without being woken.
    pub poll: Duration,
    /// How long running steps may go on after shutdown.
    pub grace: Duration,
    /// Failed tries after which a row parks.
    pub max_attempts: u32,
}

impl Options {
    /// The numbers of `docs/architecture.md` for a process called `owner`.
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

            let Some(first) = self.slot(&slots, &shutdown).await else { break };
            let free = u32::try_from(slots.available_permits()).unwrap_or(0) + 1;
            let claims = match self.store.claim(R::KIND, &self.options.owner, free, self.options.lease).await {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::warn!(kind = R::KIND, error = %chain(&error), "cannot claim work");
                    Vec::new()
                }
            };
            if claims.is_empty() {
                drop(first);
                tokio::select! {
                    () = woken => {}
                    () = sleep(jittered(self.options.poll)) => {}
                    () = shutdown.cancelled() => {}
                }
                continue;
            }
            let mut first = Some(first);
            for claim in claims {
                let slot = match first.take() {
                    Some(slot) => slot,
                    None => match self.slot(&slots, &shutdown).await {
                        Some(slot) => slot,
                        None => break,
                    },
                };
                let step = self.step(claim, shutdown.clone());
                tracker.spawn(async move {
                    step.await;
                    drop(slot);
                });
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn slot(&self, slots: &Arc<Semaphore>, shutdown: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            slot = Arc::clone(slots).acquire_owned() => slot.ok(),
            () = shutdown.cancelled() => None,
        }
    }

    fn step(&self, claim: Claim, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + use<R> {
        let (reconciler, store, options) = (Arc::clone(&self.reconciler), Arc::clone(&self.store), self.options.clone());
        async move {
            let work = AssertUnwindSafe(reconciler.reconcile(&claim)).catch_unwind();
            let outcome = tokio::select! {
                outcome = work => outcome,
                // The step's future is dropped with its lease: it cannot write any more, so it must not go on.
                () = lose_lease(store.as_ref(), &claim, &options) => {
                    tracing::warn!(kind = R::KIND, key = %claim.fence.key, "lease lost");
                    return;
                }
                () = stopped(&shutdown, options.grace) => {
                    if let Err(error) = store.give_back(&claim.fence).await {
                        tracing::warn!(kind = R::KIND, key = %claim.fence.key, error = %chain(&error), "lease not given back");
                    }
                    return;
                }
            };
            let Some(next) = judge::<R>(&claim, outcome, &options) else { return };
            match timeout(options.lease, store.finish(&claim.fence, &next)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(kind = R::KIND, key = %claim.fence.key, error = %chain(&error), "claim not ended"),
                Err(_) => tracing::warn!(kind = R::KIND, key = %claim.fence.key, "claim not ended in time"),
            }
        }
    }
}

/// Ends when the lease is lost, or could not be renewed for as long as it lasts.
async fn lose_lease(store: &dyn WorkStore, claim: &Claim, options: &Options) {
    let mut ticks = interval_at(Instant::now() + options.renew_every, options.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held_until = Instant::now() + options.lease;
    loop {
        ticks.tick().await;
        match timeout(options.renew_every, store.renew(&claim.fence, options.lease)).await {
            Ok(Ok(true)) => held_until = Instant::now() + options.lease,
            Ok(Ok(false)) => return,
            Ok(Err(_)) | Err(_) if Instant::now() < held_until => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn stopped(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    sleep(grace).await;
}

type Caught = Result<Result<Step, Failure>, Box<dyn std::any::Any + Send>>;

/// What the outcome of a step means for its row; `None` when the row is somebody else's.
fn judge<R: Reconciler>(claim: &Claim, outcome: Caught, options: &Options) -> Option<Next> {
    let failure = match outcome {
        Ok(Ok(Step::Done)) => return Some(Next::Done { again_in: None }),
        Ok(Ok(Step::Again(after))) => return Some(Next::Done { again_in: Some(after) }),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(ErrorClass::Transient, "reconcile", "the reconciler panicked"),
    };
    let (key, error) = (claim.fence.key, failure.chain());
    let parks = failure.may_park && (claim.attempt >= options.max_attempts || failure.class == ErrorClass::Permanent);
    if failure.class == ErrorClass::Fenced {
        return None;
    }
    if parks {
        tracing::error!(kind = R::KIND, %key, attempt = claim.attempt, %error, "{} {key} parked", R::KIND);
        return Some(Next::Park { error });
    }
    let after = match failure.class {
        ErrorClass::RateLimited { retry_after } => retry_after,
        _ => backoff(claim.attempt),
    };
    tracing::warn!(kind = R::KIND, %key, attempt = claim.attempt, %error, "{} {key} failed, next try in {after:?}", R::KIND);
    Some(Next::Retry { after, error })
}

/// Half a second, doubling to a minute, each spread over its upper half so that many failures do not march in step.
fn backoff(attempt: u32) -> Duration {
    let ceiling = Duration::from_millis(500).saturating_mul(1 << attempt.saturating_sub(1).min(7)).min(Duration::from_secs(60));
    ceiling / 2 + jitter(ceiling / 2)
}

fn jittered(base: Duration) -> Duration {
    base * 3 / 4 + jitter(base / 2)
}

/// A random part of `range`.
fn jitter(range: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() & 0xffff;
    range * u32::try_from(random).unwrap_or(0) / 0xffff
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

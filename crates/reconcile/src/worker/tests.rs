use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Options, Reconciler, Step, Worker, backoff};
use crate::claim::{Claim, Fence, Next, WorkError, WorkStore};
use crate::step_error::{ErrorClass, StepError};
use crate::testing::MemoryWork;

const KIND: &str = "thing";

/// Does what its script says, by key, and counts.
#[derive(Clone, Default)]
struct Scripted {
    scripts: Arc<HashMap<Uuid, Script>>,
    runs: Arc<Mutex<HashMap<Uuid, u32>>>,
    at_work: Arc<Mutex<HashMap<Uuid, u32>>>,
    overlaps: Arc<AtomicU32>,
    longest: Arc<Mutex<Duration>>,
}

/// Measures a step from its start to its end, whether it ends by itself or is dropped.
struct Lifetime(Instant, Arc<Mutex<Duration>>);

impl Drop for Lifetime {
    fn drop(&mut self) {
        let mut longest = self.1.lock().unwrap();
        *longest = (*longest).max(self.0.elapsed());
    }
}

#[derive(Clone, Copy)]
enum Script {
    Take(Duration),
    Panic,
    Fail(ErrorClass),
    Teardown,
    AgainTwice(Duration),
}

#[async_trait]
impl Reconciler for Scripted {
    const KIND: &'static str = KIND;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let key = claim.fence.key;
        let _lifetime = Lifetime(Instant::now(), Arc::clone(&self.longest));
        *self.runs.lock().unwrap().entry(key).or_default() += 1;
        match self.scripts[&key] {
            Script::Panic => panic!("poison"),
            Script::Fail(class) => Err(StepError::new(class, "try", "no")),
            Script::Teardown => Err(StepError::new(ErrorClass::Permanent, "drop", "no").never_parks()),
            Script::AgainTwice(after) if self.runs(key) <= 2 => Ok(Step::Again(after)),
            Script::AgainTwice(_) => Ok(Step::Done),
            Script::Take(time) => {
                {
                    let mut at_work = self.at_work.lock().unwrap();
                    let busy = at_work.entry(key).or_default();
                    *busy += 1;
                    if *busy > 1 {
                        self.overlaps.fetch_add(1, Ordering::SeqCst);
                    }
                }
                sleep(time).await;
                *self.at_work.lock().unwrap().entry(key).or_default() -= 1;
                Ok(Step::Done)
            }
        }
    }
}

impl Scripted {
    fn new(scripts: impl IntoIterator<Item = (Uuid, Script)>) -> Self {
        Self { scripts: Arc::new(scripts.into_iter().collect()), ..Self::default() }
    }

    fn runs(&self, key: Uuid) -> u32 {
        self.runs.lock().unwrap().get(&key).copied().unwrap_or(0)
    }
}

fn start(work: &Arc<MemoryWork>, scripted: &Scripted, owner: &str) -> (CancellationToken, TaskTracker) {
    start_on(Arc::clone(work) as Arc<dyn WorkStore>, scripted, owner)
}

fn start_on(store: Arc<dyn WorkStore>, scripted: &Scripted, owner: &str) -> (CancellationToken, TaskTracker) {
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    tracker.spawn(Worker::new(scripted.clone(), store, Options::new(owner)).run(shutdown.clone()));
    tracker.close();
    (shutdown, tracker)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_wakes_are_at_most_two_runs_and_none_is_lost() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let scripted = Scripted::new([(key, Script::Take(Duration::from_millis(50)))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    for _ in 0..1000 {
        work.wake(KIND, key);
    }
    sleep(Duration::from_millis(10)).await;
    work.wake(KIND, key); // during the first run
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scripted.runs(key), 2);
    assert!(work.is_quiet());
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_resource_backs_off_and_parks_while_others_go_on() {
    let (work, poison, healthy) = (Arc::new(MemoryWork::default()), Uuid::new_v4(), Uuid::new_v4());
    let scripted = Scripted::new([(poison, Script::Panic), (healthy, Script::Take(Duration::ZERO))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, poison);
    for round in 1..=10 {
        work.wake(KIND, healthy);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(scripted.runs(healthy), round);
    }
    sleep(Duration::from_secs(3600)).await;
    assert!(work.is_parked(KIND, poison));
    assert_eq!(scripted.runs(poison), 20);
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_does_not_defeat_the_back_off_of_a_failing_resource() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let limited = ErrorClass::RateLimited { retry_after: Duration::from_secs(60) };
    let scripted = Scripted::new([(key, Script::Fail(limited))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, key);
    for _ in 0..50 {
        sleep(Duration::from_secs(1)).await;
        work.wake(KIND, key);
    }
    assert_eq!(scripted.runs(key), 1);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(scripted.runs(key), 2);
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn being_told_to_come_later_never_parks_and_is_no_failed_try() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let limited = ErrorClass::RateLimited { retry_after: Duration::from_secs(60) };
    let scripted = Scripted::new([(key, Script::Fail(limited))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, key);
    sleep(Duration::from_secs(60 * 40)).await;
    assert!(scripted.runs(key) > 30 && !work.is_parked(KIND, key), "{} runs", scripted.runs(key));
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_never_work_on_one_resource_at_the_same_time() {
    let work = Arc::new(MemoryWork::default());
    let keys: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    // Longer than a lease: only renewal keeps the other worker away.
    let scripted = Scripted::new(keys.iter().map(|key| (*key, Script::Take(Duration::from_secs(40)))));
    let workers = [start(&work, &scripted, "a"), start(&work, &scripted, "b")];
    for _ in 0..60 {
        keys.iter().for_each(|key| work.wake(KIND, *key));
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(scripted.overlaps.load(Ordering::SeqCst), 0);
    assert!(keys.iter().all(|key| scripted.runs(*key) >= 3));
    for (shutdown, tracker) in workers {
        shutdown.cancel();
        tracker.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_worker_gives_its_leases_back_within_a_second() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let scripted = Scripted::new([(key, Script::Take(Duration::from_secs(600)))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, key);
    sleep(Duration::from_millis(100)).await;
    let stopped = Instant::now();
    shutdown.cancel();
    tracker.wait().await;
    let claims = work.claim(KIND, "b", 1, Duration::from_secs(15)).await.unwrap();
    assert_eq!((claims.len(), claims[0].attempt), (1, 1), "free at once, and the attempt does not count");
    assert!(stopped.elapsed() < Duration::from_secs(1));
}

/// A queue whose answers come late, or not at all.
#[derive(Default)]
struct Faulty {
    work: MemoryWork,
    claim_takes: Duration,
    deaf_to_renewals: bool,
    /// No renewal is answered well between these two.
    away: Option<(Instant, Instant)>,
}

#[async_trait]
impl WorkStore for Faulty {
    async fn claim(&self, kind: &'static str, owner: &str, n: u32, lease: Duration) -> Result<Vec<Claim>, WorkError> {
        let claims = self.work.claim(kind, owner, n, lease).await;
        sleep(self.claim_takes).await;
        claims
    }

    async fn renew(&self, fence: &Fence, lease: Duration) -> Result<bool, WorkError> {
        if self.deaf_to_renewals {
            std::future::pending::<()>().await;
        }
        if self.away.is_some_and(|(from, to)| (from..to).contains(&Instant::now())) {
            return Err(WorkError { doing: "renew", source: "connection refused".into() });
        }
        self.work.renew(fence, lease).await
    }

    async fn finish(&self, fence: &Fence, next: &Next) -> Result<bool, WorkError> {
        self.work.finish(fence, next).await
    }

    async fn give_back(&self, fence: &Fence) -> Result<(), WorkError> {
        self.work.give_back(fence).await
    }

    fn wake_signal(&self, kind: &'static str) -> Arc<Notify> {
        self.work.wake_signal(kind)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_again_soon_does_not_wait_for_the_poll() {
    for (after, within) in [(Duration::ZERO, 50), (Duration::from_millis(100), 250)] {
        let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
        let scripted = Scripted::new([(key, Script::AgainTwice(after))]);
        let (shutdown, tracker) = start(&work, &scripted, "a");
        work.wake(KIND, key);
        sleep(Duration::from_millis(within)).await;
        assert_eq!(scripted.runs(key), 3, "again in {after:?}");
        shutdown.cancel();
        tracker.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_during_the_work_is_acted_on_as_soon_as_the_work_ends() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let scripted = Scripted::new([(key, Script::Take(Duration::from_millis(100)))]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, key);
    sleep(Duration::from_millis(50)).await;
    work.wake(KIND, key);
    sleep(Duration::from_millis(70)).await;
    assert_eq!(scripted.runs(key), 2);
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_arrive_during_shutdown_are_given_back_too() {
    let keys: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let faulty = Arc::new(Faulty { claim_takes: Duration::from_millis(100), ..Faulty::default() });
    let scripted = Scripted::new(keys.iter().map(|key| (*key, Script::Take(Duration::from_secs(600)))));
    keys.iter().for_each(|key| faulty.work.wake(KIND, *key));
    let (shutdown, tracker) = start_on(Arc::clone(&faulty) as Arc<dyn WorkStore>, &scripted, "a");
    sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    tracker.wait().await;
    let free = faulty.work.claim(KIND, "b", 100, Duration::from_secs(15)).await.unwrap();
    assert_eq!(free.len(), keys.len());
}

#[tokio::test(start_paused = true)]
async fn a_step_is_dropped_before_a_lease_that_cannot_be_renewed_lapses() {
    let key = Uuid::new_v4();
    let faulty = Arc::new(Faulty { deaf_to_renewals: true, claim_takes: Duration::from_secs(4), ..Faulty::default() });
    let scripted = Scripted::new([(key, Script::Take(Duration::from_secs(60)))]);
    faulty.work.wake(KIND, key);
    let workers = ["a", "b", "c"].map(|owner| start_on(Arc::clone(&faulty) as Arc<dyn WorkStore>, &scripted, owner));
    sleep(Duration::from_secs(300)).await;
    assert!(scripted.runs(key) >= 3, "each lapsed lease was taken over");
    let longest = *scripted.longest.lock().unwrap();
    // The answer to the claim took four seconds of the fifteen.
    assert!(longest <= Duration::from_secs(11), "ran for {longest:?} on a lease that had eleven seconds left");
    for (shutdown, tracker) in workers {
        shutdown.cancel();
        tracker.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_survives_a_short_absence_of_the_store() {
    let (key, start) = (Uuid::new_v4(), Instant::now());
    let away = Some((start + Duration::from_secs(4), start + Duration::from_secs(8)));
    let faulty = Arc::new(Faulty { away, ..Faulty::default() });
    let scripted = Scripted::new([(key, Script::Take(Duration::from_secs(60)))]);
    faulty.work.wake(KIND, key);
    let workers = ["a", "b"].map(|owner| start_on(Arc::clone(&faulty) as Arc<dyn WorkStore>, &scripted, owner));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(scripted.runs(key), 1);
    for (shutdown, tracker) in workers {
        shutdown.cancel();
        tracker.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_parks_at_once_and_teardown_never_does() {
    let (work, wrong, teardown) = (Arc::new(MemoryWork::default()), Uuid::new_v4(), Uuid::new_v4());
    let scripted = Scripted::new([(wrong, Script::Fail(ErrorClass::Permanent)), (teardown, Script::Teardown)]);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    work.wake(KIND, wrong);
    work.wake(KIND, teardown);
    sleep(Duration::from_secs(3 * 3600)).await;
    assert_eq!(scripted.runs(wrong), 1);
    assert!(work.is_parked(KIND, wrong) && !work.is_parked(KIND, teardown));
    assert!(scripted.runs(teardown) > 100, "still tried every minute: {}", scripted.runs(teardown));
    // A person repaired it: the tries are counted from the start again.
    work.wake(KIND, wrong);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scripted.runs(wrong), 2);
    shutdown.cancel();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_fenced_out_leaves_the_row_to_its_new_holder() {
    let (work, key) = (Arc::new(MemoryWork::default()), Uuid::new_v4());
    let scripted = Scripted::new([(key, Script::Fail(ErrorClass::Fenced))]);
    work.wake(KIND, key);
    let (shutdown, tracker) = start(&work, &scripted, "a");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scripted.runs(key), 1, "neither finished nor retried by the one who lost it");
    shutdown.cancel();
    tracker.wait().await;
}

#[test]
fn many_failures_do_not_march_in_step() {
    for (attempt, ceiling) in [(1, 500), (2, 1000), (5, 8000), (100, 60_000)] {
        let ceiling = Duration::from_millis(ceiling);
        let waits: std::collections::BTreeSet<Duration> = (0..100).map(|_| backoff(attempt)).collect();
        assert!(waits.iter().all(|wait| (ceiling / 2..=ceiling).contains(wait)), "{waits:?}");
        assert!(waits.len() > 50, "a hundred failures wait {} different times", waits.len());
    }
}

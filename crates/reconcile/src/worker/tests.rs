use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Options, Reconciler, Step, Worker};
use crate::claim::{Claim, WorkStore};
use crate::failure::{ErrorClass, Failure};
use crate::testing::MemoryWork;

const KIND: &str = "thing";

/// Does what its script says, by key, and counts.
#[derive(Clone, Default)]
struct Scripted {
    scripts: Arc<HashMap<Uuid, Script>>,
    runs: Arc<Mutex<HashMap<Uuid, u32>>>,
    at_work: Arc<Mutex<HashMap<Uuid, u32>>>,
    overlaps: Arc<AtomicU32>,
}

#[derive(Clone, Copy)]
enum Script {
    Take(Duration),
    Panic,
    Fail(ErrorClass),
}

#[async_trait]
impl Reconciler for Scripted {
    const KIND: &'static str = KIND;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, Failure> {
        let key = claim.fence.key;
        *self.runs.lock().unwrap().entry(key).or_default() += 1;
        match self.scripts[&key] {
            Script::Panic => panic!("poison"),
            Script::Fail(class) => Err(Failure::new(class, "try", "no")),
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
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let store: Arc<dyn WorkStore> = Arc::clone(work) as Arc<dyn WorkStore>;
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

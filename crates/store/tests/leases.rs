//! Who may write when several believe that they hold the lease.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stagely_reconcile::{Claim, Options, Reconciler, Step, StepError, Worker};
use stagely_store::testing::TestDb;
use stagely_store::work::{PgWork, kind};
use stagely_store::{Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::wait_for;
use crate::work::{claim, wake};

const LEASE: Duration = Duration::from_secs(15);
/// What every holder writes: the order of its rows is the order in which the writes took place.
pub const LEDGER: &str = "CREATE TABLE ledger (turn bigserial, epoch bigint NOT NULL DEFAULT 0)";
/// How often a write of an older epoch came after one of a newer.
pub const GOES_BACK: &str = "SELECT count(*) FROM \
    (SELECT epoch, max(epoch) OVER (ORDER BY turn) AS newest FROM ledger) AS turns WHERE epoch < newest";

/// A write of whoever holds the row now is known by the epoch that the row has.
pub async fn write_fenced(store: &Store, held: &Claim) -> Result<(), StoreError> {
    let tx = store.fenced(&held.fence).await?;
    tx.execute("INSERT INTO ledger (epoch) SELECT epoch FROM work").await?;
    tx.commit().await
}

#[tokio::test]
async fn a_zombie_writes_nothing_with_the_fence_and_would_without() {
    let db = TestDb::new().await;
    db.execute(LEDGER).await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let work = PgWork::new(store.clone());
    wake(&store, key).await;
    // It froze, its lease lapsed, another one took over and wrote; now it comes back to life.
    let zombie = claim(&work, "a", Duration::ZERO).await.unwrap();
    let holder = claim(&work, "b", LEASE).await.unwrap();
    write_fenced(&store, &holder).await.unwrap();
    let refused = write_fenced(&store, &zombie).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { epoch: 1, .. }), "{refused}");
    assert!(!refused.is_transient(), "trying again is of no use");
    assert_eq!(db.text("SELECT count(*) FROM ledger").await, "1");
    assert_eq!(db.text(GOES_BACK).await, "0");

    // The same without the fence: proof that this test would notice.
    let tx = store.begin().await.unwrap();
    tx.execute("INSERT INTO ledger (epoch) VALUES (1)").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.text(GOES_BACK).await, "1");
    db.drop_database().await;
}

#[tokio::test]
async fn a_holder_that_is_writing_is_not_overtaken_between_fence_and_commit() {
    let db = TestDb::new().await;
    db.execute(LEDGER).await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let work = PgWork::new(store.clone());
    wake(&store, key).await;
    let first = claim(&work, "a", Duration::ZERO).await.unwrap();
    let tx = store.fenced(&first.fence).await.unwrap();
    assert!(claim(&work, "b", LEASE).await.is_none(), "the row is locked, though its lease has lapsed");
    tx.execute("INSERT INTO ledger (epoch) SELECT epoch FROM work").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(claim(&work, "b", LEASE).await.unwrap().fence.epoch, 2);
    db.drop_database().await;
}

/// Says when each activation began, and takes as long as it is told.
struct Timed {
    began: Arc<Mutex<Vec<Instant>>>,
    takes: Duration,
}

#[async_trait]
impl Reconciler for Timed {
    const KIND: &'static str = kind::ENVIRONMENT;

    async fn reconcile(&self, _: &Claim) -> Result<Step, StepError> {
        self.began.lock().unwrap().push(Instant::now());
        tokio::time::sleep(self.takes).await;
        Ok(Step::Done)
    }
}

/// A replica of its own: queue, listener and worker.
fn replica(
    store: Store,
    options: Options,
    takes: Duration,
) -> (CancellationToken, TaskTracker, Arc<Mutex<Vec<Instant>>>) {
    let (shutdown, tracker, began) = (CancellationToken::new(), TaskTracker::new(), Arc::default());
    let work = PgWork::new(store);
    tracker.spawn(Arc::clone(&work).listen(shutdown.clone()));
    let reconciler = Timed { began: Arc::clone(&began), takes };
    tracker.spawn(Worker::new(reconciler, work, options).run(shutdown.clone()));
    tracker.close();
    (shutdown, tracker, began)
}

#[tokio::test]
async fn what_a_killed_holder_left_is_taken_over_within_a_lease_and_a_poll() {
    let db = TestDb::new().await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let lease = Duration::from_secs(1);
    wake(&store, key).await;
    // Fifteen times faster than in production; it is never heard of again.
    claim(&PgWork::new(store.clone()), "killed", lease).await.unwrap();
    let killed = Instant::now();
    let (shutdown, tracker, began) = replica(store, Options::new("b"), Duration::ZERO);
    wait_for("the other to take over", || async { !began.lock().unwrap().is_empty() }).await;
    let took = began.lock().unwrap()[0] - killed;
    assert!(took >= lease.mul_f32(0.9) && took <= lease + Duration::from_millis(1500), "{took:?}");
    shutdown.cancel();
    tracker.wait().await;
    db.drop_database().await;
}

#[tokio::test]
async fn what_a_stopping_replica_held_is_at_work_elsewhere_within_a_second() {
    let db = TestDb::new().await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let slow_poll = |owner| Options { poll: Duration::from_secs(3600), ..Options::new(owner) };
    let (stop_a, a, began_a) = replica(store.clone(), slow_poll("a"), Duration::from_secs(600));
    wake(&store, key).await;
    wait_for("the first to begin", || async { !began_a.lock().unwrap().is_empty() }).await;
    let (stop_b, b, began_b) = replica(store.clone(), slow_poll("b"), Duration::ZERO);
    let stopped = Instant::now();
    stop_a.cancel();
    wait_for("the other to take over", || async { !began_b.lock().unwrap().is_empty() }).await;
    let took = began_b.lock().unwrap()[0] - stopped;
    assert!(took < Duration::from_secs(1), "{took:?}");
    a.wait().await;
    stop_b.cancel();
    b.wait().await;
    db.drop_database().await;
}

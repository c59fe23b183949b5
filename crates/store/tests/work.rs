use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use stagely_reconcile::{Claim, Next, Options, Reconciler, Step, StepError, WorkStore, Worker};
use stagely_store::testing::TestDb;
use stagely_store::work::{PgWork, kind};
use stagely_store::{Notice, Store, StoreError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::wait_for;

const LEASE: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_millis(300);
const DONE: Next = Next::Done { again_in: None };

pub async fn wake(store: &Store, key: Uuid) {
    let tx = store.begin().await.unwrap();
    tx.wake(kind::ENVIRONMENT, key).await.unwrap();
    tx.commit().await.unwrap();
}

pub async fn claim(work: &PgWork, owner: &str, lease: Duration) -> Option<Claim> {
    work.claim(kind::ENVIRONMENT, owner, 1, lease).await.unwrap().first().copied()
}

#[tokio::test]
async fn a_lease_keeps_others_away_until_it_lapses_and_the_stale_holder_is_refused() {
    let db = TestDb::new().await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let work = PgWork::new(store.clone());
    wake(&store, key).await;
    let first = claim(&work, "a", SHORT).await.unwrap();
    assert_eq!(first.fence.epoch, 1);
    wake(&store, key).await;
    assert!(claim(&work, "b", LEASE).await.is_none());

    tokio::time::sleep(SHORT * 2).await;
    let second = claim(&work, "b", LEASE).await.unwrap();
    assert_eq!(second.fence.epoch, 2);
    assert!(!work.renew(&first.fence, LEASE).await.unwrap());
    assert!(!work.finish(&first.fence, &DONE).await.unwrap());
    let refused = store.fenced(&first.fence).await.err().unwrap();
    assert!(matches!(refused, StoreError::Fenced { epoch: 1, .. }), "{refused}");
    assert!(store.fenced(&second.fence).await.is_ok());

    // A wake during the work makes the row due at once; after that it rests.
    wake(&store, key).await;
    assert!(work.finish(&second.fence, &DONE).await.unwrap());
    let third = claim(&work, "c", LEASE).await.unwrap();
    assert!(work.finish(&third.fence, &DONE).await.unwrap());
    assert!(claim(&work, "d", LEASE).await.is_none());
    db.drop_database().await;
}

#[tokio::test]
async fn a_failure_backs_off_even_if_woken_and_parks_until_woken() {
    let db = TestDb::new().await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let work = PgWork::new(store.clone());
    wake(&store, key).await;
    let first = claim(&work, "a", LEASE).await.unwrap();
    assert_eq!(first.attempt, 1);
    work.finish(&first.fence, &Next::Retry { after: SHORT, error: "no".into(), counts: true }).await.unwrap();
    wake(&store, key).await;
    assert!(claim(&work, "a", LEASE).await.is_none(), "a wake does not defeat the back-off");
    tokio::time::sleep(SHORT * 2).await;
    let second = claim(&work, "a", LEASE).await.unwrap();
    assert_eq!(second.attempt, 2);
    work.finish(&second.fence, &Next::Park { error: "never".into() }).await.unwrap();
    assert!(claim(&work, "a", LEASE).await.is_none());
    wake(&store, key).await;
    assert!(claim(&work, "a", LEASE).await.is_some());
    db.drop_database().await;
}

#[tokio::test]
async fn four_claimers_share_two_hundred_rows_without_a_double() {
    let db = TestDb::new().await;
    let store = db.store();
    let work = PgWork::new(store.clone());
    for _ in 0..200 {
        wake(&store, Uuid::now_v7()).await;
    }
    let claimers = (0..4).map(|index| {
        let work = Arc::clone(&work);
        async move {
            let mut mine = Vec::new();
            loop {
                let claims = work.claim(kind::ENVIRONMENT, &format!("w{index}"), 7, LEASE).await.unwrap();
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims);
            }
        }
    });
    let claims: Vec<Claim> = futures::future::join_all(claimers).await.into_iter().flatten().collect();
    let keys: HashSet<Uuid> = claims.iter().map(|claim| claim.fence.key).collect();
    assert_eq!((claims.len(), keys.len()), (200, 200));
    assert!(claims.iter().all(|claim| claim.fence.epoch == 1));
    db.drop_database().await;
}

/// Counts its activations.
struct Counting(Arc<AtomicU32>);

#[async_trait]
impl Reconciler for Counting {
    const KIND: &'static str = kind::ENVIRONMENT;

    async fn reconcile(&self, _: &Claim) -> Result<Step, StepError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Step::Done)
    }
}

#[tokio::test]
async fn wakes_arrive_promptly_and_survive_the_loss_of_the_listening_connection() {
    let db = TestDb::new().await;
    let (store, count) = (db.store(), Arc::new(AtomicU32::new(0)));
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let work = PgWork::new(store.clone());
    tracker.spawn(Arc::clone(&work).listen(shutdown.clone()));
    let slow_poll = Options { poll: Duration::from_secs(3600), ..Options::new("a") };
    tracker.spawn(Worker::new(Counting(Arc::clone(&count)), work, slow_poll).run(shutdown.clone()));
    tracker.close();

    let key = Uuid::now_v7();
    for round in 1..=3 {
        wake(&store, key).await;
        wait_for("the wake to be worked on", || async { count.load(Ordering::SeqCst) >= round }).await;
    }
    // Only the notification could have brought these: the poll is an hour away. Now cut it.
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
        .await;
    let before = count.load(Ordering::SeqCst);
    wake(&store, key).await;
    wait_for("the lost wake to be made good", || async { count.load(Ordering::SeqCst) > before }).await;
    // And it listens again: each of these is brought by a notification.
    for _ in 0..3 {
        let before = count.load(Ordering::SeqCst);
        wake(&store, key).await;
        wait_for("the wake to be heard again", || async { count.load(Ordering::SeqCst) > before }).await;
    }
    shutdown.cancel();
    tracker.wait().await;
    db.drop_database().await;
}

#[tokio::test]
async fn without_a_listener_the_poll_finds_the_work() {
    let db = TestDb::new().await;
    let (store, count) = (db.store(), Arc::new(AtomicU32::new(0)));
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let worker = Worker::new(Counting(Arc::clone(&count)), PgWork::new(store.clone()), Options::new("a"));
    tracker.spawn(worker.run(shutdown.clone()));
    tracker.close();
    for round in 1..=2 {
        let woken = tokio::time::Instant::now();
        wake(&store, Uuid::now_v7()).await;
        wait_for("the poll", || async { count.load(Ordering::SeqCst) >= round }).await;
        assert!(woken.elapsed() < Duration::from_millis(1500), "{:?}", woken.elapsed());
    }
    shutdown.cancel();
    tracker.wait().await;
    db.drop_database().await;
}

#[tokio::test]
async fn a_wake_that_is_rolled_back_never_was() {
    let db = TestDb::new().await;
    let (store, key) = (db.store(), Uuid::now_v7());
    let mut notices = store.listen(&["work_environment"], CancellationToken::new());
    assert_eq!(notices.recv().await, Some(Notice::Missed), "the first look is due to what was missed before");
    let tx = store.begin().await.unwrap();
    tx.wake(kind::ENVIRONMENT, key).await.unwrap();
    drop(tx);
    wake(&store, Uuid::now_v7()).await;
    assert_eq!(notices.recv().await, Some(Notice::Channel("work_environment".into())));
    assert!(notices.try_recv().is_err(), "one commit, one notice");
    assert_eq!(db.text("SELECT count(*) FROM work").await, "1");
    db.drop_database().await;
}

#[tokio::test]
async fn many_listeners_leave_the_pool_to_the_queries() {
    let db = TestDb::new().await;
    let store = Store::connect(db.url(), 2).await.unwrap();
    let mut listeners: Vec<_> = (0..4).map(|_| store.listen(&["work_environment"], CancellationToken::new())).collect();
    for notices in &mut listeners {
        assert_eq!(notices.recv().await, Some(Notice::Missed));
    }
    let both = (store.begin().await.unwrap(), store.begin().await.unwrap());
    drop(both);
    wake(&store, Uuid::now_v7()).await;
    for notices in &mut listeners {
        assert!(notices.recv().await.unwrap().concerns("work_environment"));
    }
    db.drop_database().await;
}

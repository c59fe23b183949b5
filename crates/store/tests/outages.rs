//! A database that cuts connections all the time, is stopped, crashes, and is full of others' connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use stagely_reconcile::{Claim, ErrorClass, Options, Reconciler, Step, StepError, Worker};
use stagely_store::work::{PgWork, kind};
use stagely_store::{Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::server::Server;
use crate::{storm, wait_for};

const REPLICAS: usize = 3;
const KEYS: usize = 20;
/// Connections of others, which do nothing.
const CROWD: usize = 300;
const EVERY: Duration = Duration::from_millis(50);

/// What is wished of each key, and what was done for it; and who wrote, in the order in which they did.
const TABLES: &str = "CREATE TABLE wishes (key uuid PRIMARY KEY, wished bigint DEFAULT 0, done bigint DEFAULT 0); \
    CREATE TABLE turns (turn bigserial, key uuid, epoch bigint)";
/// Those that are in the middle of a transaction are hit first: most connections rest most of the time.
const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replica' \
    ORDER BY state LIKE 'idle in%' DESC, random() LIMIT 3";
const GOES_BACK: &str = "SELECT count(*) FROM (SELECT epoch, max(epoch) OVER (PARTITION BY key ORDER BY turn) AS newest \
    FROM turns) AS all_turns WHERE epoch < newest";
const UNREST: &str = "SELECT (SELECT count(*) FROM wishes WHERE done < wished) + \
    (SELECT count(*) FROM work WHERE parked OR run_after < 'infinity' OR lease_until > now())";

/// Does what is wished, by the rows.
struct Fulfil {
    store: Store,
    failures: Arc<AtomicU64>,
}

impl Fulfil {
    async fn fulfil(&self, claim: &Claim) -> Result<(), StoreError> {
        let (tx, key, epoch) = (self.store.fenced(&claim.fence).await?, claim.fence.key, claim.fence.epoch);
        tx.execute(&format!("UPDATE wishes SET done = wished WHERE key = '{key}'")).await?;
        // Long enough for some to be cut in between.
        tokio::time::sleep(Duration::from_millis(20)).await;
        tx.execute(&format!("INSERT INTO turns (key, epoch) VALUES ('{key}', {epoch})")).await?;
        tx.commit().await
    }
}

#[async_trait]
impl Reconciler for Fulfil {
    const KIND: &'static str = kind::ENVIRONMENT;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let failed = |error| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let is_fenced = matches!(error, StoreError::Fenced { .. });
            StepError::new(if is_fenced { ErrorClass::Fenced } else { ErrorClass::Transient }, "fulfil a wish", error)
        };
        self.fulfil(claim).await.map(|()| Step::Done).map_err(failed)
    }
}

async fn wish(store: &Store, key: Uuid) -> Result<(), StoreError> {
    let tx = store.begin().await?;
    tx.execute(&format!("UPDATE wishes SET wished = wished + 1 WHERE key = '{key}'")).await?;
    tx.wake(kind::ENVIRONMENT, key).await?;
    tx.commit().await
}

async fn number(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

async fn crowd(server: &Server) -> Vec<PgConnection> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(PgConnection::connect(&server.url("idle")).await.unwrap());
    }
    crowd
}

/// Cuts some connections every now and then, as long as there is a server to be asked for it.
async fn cut(url: String, until: Instant) {
    while Instant::now() < until {
        if let Ok(mut admin) = PgConnection::connect(&url).await {
            while Instant::now() < until && admin.execute(CUT).await.is_ok() {
                tokio::time::sleep(EVERY).await;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_work_is_lost_while_connections_are_cut_and_the_database_stops_and_crashes() {
    let server = Server::start().await;
    let wisher = Store::connect(&server.url("replica"), 4).await.unwrap();
    wisher.migrate_up().await.unwrap();
    let mut admin = PgConnection::connect(&server.url("admin")).await.unwrap();
    admin.execute(TABLES).await.unwrap();
    let keys: Vec<Uuid> = (0..KEYS).map(|_| Uuid::now_v7()).collect();
    for key in &keys {
        sqlx::query("INSERT INTO wishes (key) VALUES ($1)").bind(key).execute(&mut admin).await.unwrap();
    }

    let (shutdown, tracker, failures) = (CancellationToken::new(), TaskTracker::new(), Arc::new(AtomicU64::new(0)));
    for replica in 0..REPLICAS {
        let store = Store::connect(&server.url("replica"), 8).await.unwrap();
        let work = PgWork::new(store.clone());
        tracker.spawn(Arc::clone(&work).listen(shutdown.clone()));
        let (lease, often) = (Duration::from_secs(1), Duration::from_millis(300));
        let options = Options { lease, renew_every: often, poll: often, ..Options::new(replica.to_string()) };
        let reconciler = Fulfil { store, failures: Arc::clone(&failures) };
        tracker.spawn(Worker::new(reconciler, work, options).run(shutdown.clone()));
    }
    tracker.close();

    let mut idle = crowd(&server).await;
    let (until, wishes, storming) = (Instant::now() + storm(), Arc::new(AtomicU64::new(0)), TaskTracker::new());
    storming.spawn(cut(server.url("admin"), until));
    storming.spawn({
        let wishes = Arc::clone(&wishes);
        async move {
            for key in keys.iter().cycle().take_while(|_| Instant::now() < until) {
                // Whether a cut commit took effect is not known: the wisher wishes again, as everyone does.
                while wish(&wisher, *key).await.is_err() {}
                wishes.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    storming.close();
    for mode in ["fast", "immediate"] {
        tokio::time::sleep(storm() / 4).await;
        idle.clear();
        tokio::task::block_in_place(|| server.restart(mode));
        idle = crowd(&server).await;
    }
    storming.wait().await;
    let mut admin = PgConnection::connect(&server.url("admin")).await.unwrap();

    // Nobody waits for back-offs here.
    admin.execute("UPDATE work SET not_before = '-infinity'").await.unwrap();
    let admin = tokio::sync::Mutex::new(admin);
    wait_for("every wish to be fulfilled", || async { number(&mut *admin.lock().await, UNREST).await == 0 }).await;
    let mut admin = admin.into_inner();
    let (wishes, failures) = (wishes.load(Ordering::Relaxed), failures.load(Ordering::Relaxed));
    println!("{wishes} wishes, {failures} activations cut off, lost 0");
    assert!(wishes > 100 && failures > 10, "{wishes} wishes and {failures} failures are too few to prove anything");
    assert_eq!(number(&mut admin, GOES_BACK).await, 0);
    assert_eq!(tracker.len(), 2 * REPLICAS, "a loop has ended");
    shutdown.cancel();
    tracker.wait().await;
    drop(idle);
}

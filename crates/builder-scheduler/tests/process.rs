//! A process of the scheduler, on a runtime of its own. To kill it is to drop the runtime: no task gets another turn.

use std::sync::Arc;

use stagely_builder_scheduler::{BuilderScheduler, Config};
use stagely_runtime::config::Settings;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::testing::TestDb;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;

/// What a killed process held is free at once: nobody waits for a lease to lapse here.
const BURY: &str = "WITH free AS (UPDATE work SET lease_until = now() WHERE lease_until > now() RETURNING kind) \
    SELECT pg_notify('work_' || kind, '') FROM free GROUP BY kind";

/// What every process of a stack is started with.
pub struct Setup {
    pub settings: Settings,
    pub config: Config,
    pub gate: Arc<Gate>,
}

/// One process after another, for as long as they get killed.
pub async fn supervise(setup: Setup, db: Arc<TestDb>, stop: CancellationToken) {
    let setup = Arc::new(setup);
    while start(Arc::clone(&setup), stop.clone()).await.unwrap() {
        db.execute(BURY).await;
    }
}

/// Starts one; tells whether it was killed, once it is no more.
fn start(setup: Arc<Setup>, stop: CancellationToken) -> oneshot::Receiver<bool> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let was_killed = runtime.block_on(async {
            tokio::select! {
                () = run(&setup) => false,
                () = setup.gate.deaths.notified() => true,
                () = stop.cancelled() => false,
            }
        });
        drop(runtime);
        let _ = sender.send(was_killed);
    });
    receiver
}

async fn run(setup: &Setup) {
    let shutdown = CancellationToken::new();
    let kit = Kit::bind(&setup.settings, Peer::BuilderScheduler, shutdown.clone()).await.unwrap();
    let service = BuilderScheduler::build(setup.config.clone(), &kit).await.unwrap();
    service.run(shutdown).await.unwrap();
}

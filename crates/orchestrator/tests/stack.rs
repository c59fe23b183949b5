//! One environment's whole world: how it starts, is kept up, and ends.

mod actions;
mod checks;

use std::sync::Arc;

use stagely_cache::Cache;
use stagely_cloud::Cloud;
use stagely_cloud::testing::FakeCloud;
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{CloudAccountId, MachineId};
use stagely_domain::secret::Secret;
use stagely_orchestrator::testing::{Findings, Reconcilers, Scan};
use stagely_store::testing::TestDb;
use stagely_store::work::kind;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clouds::{self, Account};
use crate::gate::Gate;
use crate::git_host::{self, REPO};
use crate::outside::GatedCloud;
use crate::process::{self, Breaks, Setup};
use crate::world::World;
use crate::{edge, hub};

pub struct Stack {
    pub world: Arc<World>,
    pub cloud: Arc<GatedCloud>,
    pub gate: Arc<Gate>,
    pub breaks: Arc<Breaks>,
    pub branch: String,
    pub number: i64,
    pub setup: Arc<Setup>,
    cache: Cache,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stack {
    /// A pull request that nobody was told of yet, and an orchestrator that waits for it.
    pub async fn start() -> Self {
        Self::start_on(None).await
    }

    /// The same with machines in an account at a provider's double.
    pub async fn start_in(account: Account) -> Self {
        Self::start_on(Some(account)).await
    }

    /// A pull request whose preview is live.
    pub async fn start_live() -> Self {
        let stack = Self::start().await;
        stack.open_until_live().await;
        stack
    }

    async fn start_on(elsewhere: Option<Account>) -> Self {
        let (gate, breaks) = (Arc::new(Gate::default()), Arc::new(Breaks::default()));
        let (branch, number) = git_host::pull_request().await;
        let db = TestDb::new().await;
        let team = db.team("acme").await;
        let account = match &elsewhere {
            None => db.qemu_account(team).await,
            Some(account) => account.insert(&db, team).await,
        };
        let project = db.project(team, REPO, Some(account)).await;
        let fake = Arc::new(FakeCloud::new(Arc::new(SystemClock)));
        let cloud = Arc::new(GatedCloud::new(Arc::clone(&fake), Arc::clone(&gate)));
        let (looks, look_every, apis) = match elsewhere {
            None => (fake as Arc<dyn Cloud>, 1, serde_json::json!({})),
            // Requests are counted there.
            Some(account) => (account.open(), 100, account.apis),
        };
        let world = Arc::new(World::new(db, looks, project, look_every).await);
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let hub = hub::serve(Arc::clone(&world), Arc::clone(&gate), &tracker, shutdown.clone()).await;
        let prefix = format!("test:{}:", Uuid::new_v4().simple());
        let cache = Cache::connect(&redis_url(), &prefix).await.unwrap();
        let edge = edge::serve(cache.clone(), Arc::clone(&world), &tracker, shutdown.clone()).await;
        let mut settings = stagely_runtime::config::load().unwrap();
        // Named, so that its connections can be told from those of the world.
        let joint = if world.db.url().contains('?') { '&' } else { '?' };
        let database = format!("{}{joint}application_name=orchestrator", world.db.url());
        settings.common.database_url = Some(Secret::new(database));
        settings.common.redis_url = Some(Secret::new(redis_url()));
        settings.common.encryption_key = Some(Secret::new(clouds::KEY.repeat(32)));
        for name in ["orchestrator", "agent_hub"] {
            let ports = serde_json::json!({
                "grpc_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "grpc_url": format!("http://{hub}")
            });
            settings = settings.with(&format!("ports.{name}"), ports);
        }
        let config = serde_json::json!({
            "github": {"token": "unused"},
            "agent_url": "https://hub.test/agent/{arch}",
            "agent_binaries": {"amd64": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")},
            "qemu": {"image_dir": "/nonexistent"},
            "clouds": apis,
            "registry_host": "registry.test:5000",
            "edge_address": edge,
            "database_connections": 8,
            "redis_prefix": prefix,
        });
        let config = serde_json::from_value(config).unwrap();
        let setup =
            Setup { settings, config, cloud: Arc::clone(&cloud), gate: Arc::clone(&gate), breaks: Arc::clone(&breaks) };
        tracker.spawn(Arc::clone(&world).turn(shutdown.clone()));
        let setup = Arc::new(setup);
        tracker.spawn(supervise(Arc::clone(&setup), Arc::clone(&world), shutdown.clone()));
        Self { world, cloud, gate, breaks, branch, number, cache, setup, tracker, shutdown }
    }

    /// Another pull request of the same project, with everything forgotten that was counted.
    pub async fn next(&mut self) {
        (self.branch, self.number) = git_host::pull_request().await;
        self.gate.arm(None);
        self.breaks.arm(0, 0);
        self.cloud.forget();
    }

    /// Another process, of which nothing runs by itself.
    pub async fn other(&self) -> Reconcilers {
        process::open(&self.setup, &self.shutdown).await
    }

    /// Kills the process; another one follows.
    pub fn kill(&self) {
        self.gate.deaths.notify_one();
    }

    /// Kills the process, and wakes the machine: whoever looks at it next has no list of before.
    pub async fn restart_and_wake(&self, machine: MachineId) {
        self.kill();
        let tx = self.world.db.store().begin().await.unwrap();
        tx.wake(kind::MACHINE, machine.uuid()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What looks for pull requests that nobody told us of, in a project of another repository.
    pub async fn scan(&self, repo: &str) -> Scan {
        let project = self.world.project.uuid();
        self.world.db.execute(&format!("UPDATE projects SET repo = '{repo}' WHERE id = '{project}'")).await;
        self.other().await.scan()
    }

    /// A sweep of the account by a process that remembers none before.
    pub async fn sweep(&self) -> Findings {
        let account = self.world.db.text("SELECT id FROM cloud_providers").await.parse().unwrap();
        self.other().await.sweeps().sweep(CloudAccountId::from_uuid(account)).await.unwrap()
    }

    /// Closes the pull request, sees to it that nothing is left, and ends everything.
    pub async fn close_and_end(self) {
        self.close_until_gone().await;
        self.end().await;
    }

    /// Ends everything, in order.
    pub async fn end(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// One process after another, for as long as they get killed.
async fn supervise(setup: Arc<Setup>, world: Arc<World>, stop: CancellationToken) {
    for number in 0.. {
        let owner = format!("process-{number}");
        if !process::start(Arc::clone(&setup), owner.clone(), stop.clone()).await.unwrap() {
            return;
        }
        world.bury(owner);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn redis_url() -> String {
    std::env::var("STAGELY_TEST_REDIS_URL")
        .expect("STAGELY_TEST_REDIS_URL is not set: run `cargo xtask test integration`")
}

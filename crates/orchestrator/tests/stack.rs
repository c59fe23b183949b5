//! One environment's whole world, and what a user can see of it.

use std::sync::Arc;
use std::time::Duration;

use stagely_cache::Cache;
use stagely_cloud::Cloud;
use stagely_cloud::testing::FakeCloud;
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{CloudAccountId, DeliveryId, EnvironmentId, MachineId};
use stagely_domain::secret::Secret;
use stagely_orchestrator::testing::{Findings, Reconcilers, Scan};
use stagely_store::testing::TestDb;
use stagely_store::work::kind;
use stagely_store::{NewDelivery, Outcome, Power, Received};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clouds::{self, Account};
use crate::gate::Gate;
use crate::git_host::{self, REPO, host};
use crate::outside::GatedCloud;
use crate::process::{self, Breaks, Setup};
use crate::world::{Hold, World};
use crate::{edge, hub};

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(15);

/// How much is not as it should be in the end.
const LEFT: &str = "(SELECT count(*) FROM pr_posts WHERE posted_seq < wanted_seq) \
    + (SELECT count(*) FROM inbox WHERE decision IS NULL) + (SELECT count(*) FROM machines WHERE gone_at IS NULL) \
    + (SELECT count(*) FROM environments WHERE gone_at IS NULL)";

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

    /// What looks for pull requests that nobody told us of, in a project of another repository.
    pub async fn scan(&self, repo: &str) -> Scan {
        let project = self.world.project.uuid();
        self.world.db.execute(&format!("UPDATE projects SET repo = '{repo}' WHERE id = '{project}'")).await;
        self.other().await.scan()
    }

    /// Another pull request of the same project, with everything forgotten that was counted.
    pub async fn next(&mut self) {
        (self.branch, self.number) = git_host::pull_request().await;
        self.gate.arm(None);
        self.breaks.arm(0, 0);
        self.cloud.forget();
    }

    pub fn hold(&self, hold: Hold) {
        self.world.inside().holds.insert(hold);
    }

    pub fn release(&self, hold: Hold) {
        self.world.inside().holds.remove(&hold);
    }

    /// Kills the process; another one follows.
    pub fn kill(&self) {
        self.gate.deaths.notify_one();
    }

    /// What the API does with a webhook.
    pub async fn deliver(&self, action: &str) -> DeliveryId {
        self.take_in(self.delivery(action)).await
    }

    /// A webhook about the pull request.
    pub fn delivery(&self, action: &str) -> NewDelivery {
        NewDelivery {
            source: "github",
            guid: Uuid::new_v4(),
            event: "pull_request".to_owned(),
            action: Some(action.to_owned()),
            repo: Some(REPO.to_owned()),
            pr_number: Some(self.number),
            body_sha256: [0; 32],
            body: Vec::new(),
            ignored: None,
        }
    }

    pub async fn take_in(&self, delivery: NewDelivery) -> DeliveryId {
        let tx = self.world.db.store().begin().await.unwrap();
        let Received::Stored(id) = tx.insert_delivery(delivery).await.unwrap() else { panic!("a new delivery") };
        tx.wake(kind::INBOX, id.uuid()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn open(&self) {
        self.deliver("opened").await;
    }

    pub async fn push(&self) -> DeliveryId {
        git_host::push(&self.branch).await;
        self.deliver("synchronize").await
    }

    /// A commit of these files, brought live; how many images were built for it.
    pub async fn built_for(&self, files: &[(&str, &[u8])]) -> usize {
        let before = self.world.inside().built;
        git_host::commit(&self.branch, files).await;
        self.deliver("synchronize").await;
        self.live().await;
        self.world.inside().built - before
    }

    /// The only machine is not there any more, and that is noticed.
    pub async fn lose_the_machine(&self) {
        let [machine] = self.cloud.inner.machines()[..] else { panic!("one machine") };
        self.cloud.inner.power_off(machine);
        self.look_at(machine).await;
    }

    /// Another agent of the account has been connected for long.
    pub async fn a_neighbour_is_heard(&self) {
        let db = &self.world.db;
        db.execute(
            "INSERT INTO machines SELECT (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid(), \
             'role', 'builder', 'env_id', NULL, 'gone_at', now()))).* FROM machines m",
        )
        .await;
        db.execute(
            "INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline, connected_at, last_seen_at) \
             SELECT id, '', now(), now() - interval '11 minutes', now() FROM machines WHERE role = 'builder'",
        )
        .await;
    }

    /// Somebody looks at the machine who has no list of before.
    pub async fn look_at(&self, machine: MachineId) {
        self.kill();
        let tx = self.world.db.store().begin().await.unwrap();
        tx.wake(kind::MACHINE, machine.uuid()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Another process, of which nothing runs by itself.
    pub async fn other(&self) -> Reconcilers {
        process::open(&self.setup, &self.shutdown).await
    }

    /// A sweep of the account by a process that remembers none before.
    pub async fn sweep(&self) -> Findings {
        let account = self.world.db.text("SELECT id FROM cloud_providers").await.parse().unwrap();
        self.other().await.sweeps().sweep(CloudAccountId::from_uuid(account)).await.unwrap()
    }

    /// Sweeps of the account, one after the other, until it is so.
    pub async fn sweep_until(&self, what: &str, is_so: impl Fn() -> bool) {
        self.wait(what, async || {
            self.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'sweep'").await;
            is_so()
        })
        .await;
    }

    /// The URL is asked for, and nothing is known yet.
    pub async fn proves(&self) {
        let proofs = "SELECT count(*) FROM workflow_runs WHERE phases->'prove' IS NOT NULL AND finished_at IS NULL";
        self.wait("a proof", async || self.world.db.text(proofs).await == "1").await;
    }

    /// As if the preview had been live for ten minutes.
    pub async fn age(&self) {
        self.world.db.execute("UPDATE workflow_runs SET live_at = live_at - interval '10 minutes'").await;
    }

    /// Live again, on another machine.
    pub async fn replaced(&self) {
        let replacements = "SELECT count(*) FROM workflow_runs WHERE cause = 'machine_lost' AND live_at IS NOT NULL";
        self.wait("a replacement", async || self.world.db.text(replacements).await == "1").await;
        self.live().await;
        assert_eq!(self.cloud.ever(), 2);
    }

    /// What a member asks for: the same commit again.
    pub async fn redeploy(&self) {
        let store = self.world.db.store();
        let env = store.find_environment(self.world.project, self.number).await.unwrap().unwrap();
        let tx = store.begin().await.unwrap();
        assert_eq!(tx.wish_commit(env.id, env.generation, &env.pr).await.unwrap(), Outcome::Written);
        tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What an idle preview is told, or one that is visited again.
    pub async fn power(&self, power: Power) {
        let tx = self.world.db.store().begin().await.unwrap();
        let id = self.world.db.text("SELECT id FROM environments WHERE gone_at IS NULL").await.parse().unwrap();
        assert_eq!(tx.wish_power(EnvironmentId::from_uuid(id), power).await.unwrap(), Outcome::Written);
        tx.wake(kind::ENVIRONMENT, id).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Whether a visitor is brought to the only machine.
    pub async fn is_served(&self) -> bool {
        edge::is_served(&self.hostname().await, &self.cache, &*self.world.cloud).await
    }

    /// The webhook was looked at.
    pub async fn decided(&self, id: DeliveryId) {
        let sql = format!("SELECT decision FROM inbox WHERE id = '{}'", id.uuid());
        self.wait("a decision", async || !self.world.db.text(&sql).await.is_empty()).await;
    }

    /// Waits for the call that is to wait; false when it goes live without such a call, which may then not come.
    pub async fn call_waits(&self) -> bool {
        tokio::select! {
            () = self.gate.waits() => true,
            () = self.live() => {
                self.gate.go_on();
                false
            }
        }
    }

    pub async fn close(&self) -> DeliveryId {
        host().close_silently(REPO, self.number);
        self.deliver("closed").await
    }

    /// What the pull request shows; the one comment, or nothing yet.
    pub fn comment(&self) -> String {
        let comments = host().comments(REPO, self.number);
        assert!(comments.len() <= 1, "more than one comment: {comments:?}");
        comments.into_iter().next().map(|comment| comment.body).unwrap_or_default()
    }

    pub async fn says(&self, text: &str) {
        self.wait(text, async || self.comment().contains(text)).await;
    }

    /// Live at the newest commit, for the reader of the comment and for visitors.
    pub async fn live(&self) {
        let sha = self.sha();
        self.wait("a live preview", async || {
            let comment = self.comment();
            comment.contains("Preview: Live") && comment.contains(&sha[..12])
        })
        .await;
        let hostname = self.hostname().await;
        assert!(self.comment().contains(&format!("**https://{hostname}**")), "{}", self.comment());
        assert!(self.is_served().await, "{hostname} is not served");
        assert_eq!(self.world.machines().await.len(), 1);
    }

    /// Nothing is left, and the pull request says so, if it ever said anything.
    pub async fn gone(&self) {
        self.wait("an end", async || self.world.db.text(LEFT).await == "0").await;
        let comment = self.comment();
        assert!(comment.is_empty() || comment.contains("Preview: Removed"), "{comment}");
        assert_eq!(self.world.machines().await, []);
        assert!(self.cloud.peak() <= 1, "{} machines at the same time", self.cloud.peak());
        for wrong in [
            "environments WHERE state <> 'destroyed' OR desired <> 'absent'",
            "work WHERE parked",
            "workflow_runs WHERE finished_at IS NULL",
            "routes WHERE state <> 'gone'",
            "inbox WHERE decision NOT IN ('applied', 'ignored')",
        ] {
            assert_eq!(self.world.db.text(&format!("SELECT count(*) FROM {wrong}")).await, "0", "{wrong}");
        }
        assert!(!self.is_served().await);
        assert_eq!(host().violations(), Vec::<String>::new());
    }

    /// The pull request's newest commit.
    pub fn sha(&self) -> String {
        let mut sha = String::new();
        host().change(REPO, self.number, |pull| sha.clone_from(&pull.sha));
        sha
    }

    pub async fn hostname(&self) -> String {
        let sql = "SELECT preview_hash FROM environments WHERE pr_number = ";
        let hash = self.world.db.text(&format!("{sql}{} ORDER BY id DESC LIMIT 1", self.number)).await;
        format!("{hash}.preview.localhost")
    }

    /// Waits until it is so; what stands where otherwise.
    pub async fn wait(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let poll = async {
            while !is_so().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(DEADLINE, poll).await.is_err() {
            panic!("waited in vain for {what}:\n{}", self.describe().await);
        }
    }

    async fn describe(&self) -> String {
        let mut text = format!("calls: {:?}\ncomment: {}\n", self.gate.calls(), self.comment());
        for (table, columns, rows) in [
            ("environments", "state, desired, generation, reason", "gone_at IS NULL"),
            ("workflow_runs", "generation, state, failure, phases", "finished_at IS NULL"),
            ("machines", "id, state, desired, failure, create_deadline", "gone_at IS NULL"),
            ("agent_connections", "machine_id, desired_generation, observed_generation, observed", "true"),
            ("build_jobs", "target, state", "finished_at IS NULL"),
            ("inbox", "action, decision, reason", "decision IS NULL"),
            ("pr_posts", "kind, wanted_seq, posted_seq, last_error", "posted_seq < wanted_seq"),
            (
                "work",
                "kind, key, run_after - now(), not_before, lease_owner, attempt, parked, last_error",
                "run_after < 'infinity'",
            ),
        ] {
            let sql = format!("SELECT string_agg(({columns})::text, E'\\n') FROM {table} WHERE {rows}");
            text.push_str(&format!("{table}:\n{}\n", self.world.db.text(&sql).await));
        }
        text
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

//! One API process per test, with everything it talks to.

pub mod orchestrator;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use stagely_api::tokens::{self, NewToken};
use stagely_api::{Api, Config};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::{
    BuildJobId, DeliveryId, EnvironmentId, ImageId, LogStreamId, MachineId, ProjectId, RunId, TeamId,
};
use stagely_domain::role::Role;
use stagely_domain::secret::Secret;
use stagely_runtime::config::Ports;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::testing::TestDb;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use orchestrator::FakeOrchestrator;

pub const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub const WEBHOOK_SECRET: &str = "It's a Secret to Everybody";
pub const OLD_WEBHOOK_SECRET: &str = "the one before";
pub const SERVICE_TOKEN: &str = "service token of the tests";

/// A running API.
pub struct Stand {
    pub db: TestDb,
    pub url: String,
    pub http: reqwest::Client,
    pub orchestrator: FakeOrchestrator,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

/// How a test wants its API.
#[derive(Default)]
pub struct Wish {
    pub agent: Option<std::path::PathBuf>,
    pub max_webhook_bytes: Option<usize>,
    pub clock: Option<std::sync::Arc<dyn Clock>>,
}

impl Stand {
    pub async fn start() -> Self {
        Self::start_with(Wish::default()).await
    }

    pub async fn start_with(wish: Wish) -> Self {
        let db = TestDb::new().await;
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let orchestrator = FakeOrchestrator::default();
        let grpc = orchestrator.clone().serve(&tracker, shutdown.clone()).await;

        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.database_url = Some(Secret::new(db.url()));
        settings.common.encryption_key = Some(Secret::new(KEY));
        settings.common.service_token = Some(Secret::new(SERVICE_TOKEN));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ports = |url: &str| Ports { grpc_listen: any, admin_listen: any, grpc_url: url.to_owned() };
        let settings = settings
            .with("ports.api", ports("http://127.0.0.1:1"))
            .with("ports.orchestrator", ports(&format!("http://{grpc}")));
        let mut kit = Kit::bind(&settings, Peer::Api, shutdown.clone()).await.unwrap();
        kit.clock = wish.clock.unwrap_or_else(|| std::sync::Arc::new(SystemClock));

        let config: Config = serde_json::from_value(serde_json::json!({
            "listen": "127.0.0.1:0",
            "github_webhook_secrets": [WEBHOOK_SECRET, OLD_WEBHOOK_SECRET],
            "max_webhook_bytes": wish.max_webhook_bytes.unwrap_or(64 * 1024),
            "agent_binaries": { "amd64": wish.agent },
            "database_connections": 5,
        }))
        .unwrap();
        let api = Api::build(config, &kit).await.unwrap();
        let url = format!("http://{}", api.local_addr().unwrap());
        let stop = shutdown.clone();
        tracker.spawn(async move { api.run(stop).await.unwrap() });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap();
        Self { db, url, http, orchestrator, shutdown, tracker }
    }

    pub async fn token(&self, team: TeamId, role: Role) -> String {
        let new = NewToken { team, name: "test".to_owned(), role, expires_at: None };
        tokens::mint(&self.db.store(), new).await.unwrap().1.reveal().to_owned()
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(token)
    }

    pub async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        read(self.request(Method::GET, path, token).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> (u16, Value) {
        read(self.request(Method::POST, path, token).json(&body).send().await.unwrap()).await
    }

    /// A team with one of everything that has an id.
    pub async fn world(&self, slug: &str) -> World {
        let team = self.db.team(slug).await;
        let account = self.db.qemu_account(team).await;
        let repo = format!("{slug}/shop");
        let project = self.db.project(team, &repo, Some(account)).await;
        let world = World {
            team,
            repo,
            project,
            account: account.to_string(),
            image: ImageId::generate(),
            environment: EnvironmentId::generate(),
            run: RunId::generate(),
            build: BuildJobId::generate(),
            machine: MachineId::generate(),
            stream: LogStreamId::generate(),
            delivery: DeliveryId::generate(),
            viewer: self.token(team, Role::Viewer).await,
            member: self.token(team, Role::Member).await,
            admin: self.token(team, Role::Admin).await,
        };
        self.db.execute(&world.rows(slug, account.uuid())).await;
        world
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(Duration::from_secs(12), self.tracker.wait()).await.expect("the API drains in time");
        self.db.drop_database().await;
    }
}

/// A team with one of everything.
pub struct World {
    pub team: TeamId,
    pub repo: String,
    pub project: ProjectId,
    pub account: String,
    pub image: ImageId,
    pub environment: EnvironmentId,
    pub run: RunId,
    pub build: BuildJobId,
    pub machine: MachineId,
    pub stream: LogStreamId,
    pub delivery: DeliveryId,
    pub viewer: String,
    pub member: String,
    pub admin: String,
}

impl World {
    fn rows(&self, slug: &str, account: uuid::Uuid) -> String {
        let (team, project, env) = (self.team.uuid(), self.project.uuid(), self.environment.uuid());
        let (run, build, machine) = (self.run.uuid(), self.build.uuid(), self.machine.uuid());
        let (stream, delivery, repo) = (self.stream.uuid(), self.delivery.uuid(), &self.repo);
        format!(
            "INSERT INTO environments (id, team_id, project_id, pr_number, title, branch, preview_hash, desired, \
               desired_sha, state, ttl_secs, expires_at) \
             VALUES ('{env}', '{team}', '{project}', 12, 'Add <cart>', 'cart', '{slug}hash', 'present', \
               '{sha}', 'live', 604800, now() + interval '7 days'); \
             INSERT INTO workflow_runs (id, team_id, env_id, generation, sha, cause, state, phases, created_at, live_at) \
             VALUES ('{run}', '{team}', '{env}', 1, '{sha}', 'opened', 'succeeded', \
               '{{\"read\": {{\"started_at\": \"2026-01-01T00:00:01Z\", \"finished_at\": \"2026-01-01T00:00:02Z\"}}}}', \
               '2026-01-01T00:00:00Z', '2026-01-01T00:00:18Z'); \
             INSERT INTO machines (id, team_id, project_id, env_id, account_id, role, size, arch, state, expires_at) \
             VALUES ('{machine}', '{team}', '{project}', '{env}', '{account}', 'preview', 'small', 'amd64', 'enrolled', \
               now() + interval '7 days'); \
             INSERT INTO images (id, team_id, account_id, arch, base_images, state, reference, machine_id) \
             VALUES ('{image}', '{team}', '{account}', 'amd64', '[\"debian:13-slim\"]', 'ready', '4711', '{machine}'); \
             INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline, observed) \
             VALUES ('{machine}', '\\x00', now(), '{{\"generation\": 1, \"phase\": \"running\", \"services\": \
               [{{\"name\": \"web\", \"state\": \"running\", \"health\": \"healthy\", \"exit_code\": 0, \"image\": \"x\", \
               \"listening\": [3000]}}]}}'); \
             INSERT INTO build_jobs (id, team_id, project_id, env_id, run_id, target, platform, spec, state) \
             VALUES ('{build}', '{team}', '{project}', '{env}', '{run}', 'web', 'linux/amd64', '{{}}', 'building'); \
             INSERT INTO log_streams (id, team_id, machine_id, env_id, build_id, name, next_offset) \
             VALUES ('{stream}', '{team}', '{machine}', '{env}', '{build}', 'build/1', 6); \
             INSERT INTO build_logs (stream_id, byte_offset, content) VALUES ('{stream}', 0, E'hello\\n'); \
             INSERT INTO routes (host, team_id, env_id, generation, version, state, entry) \
             VALUES ('{slug}hash.preview.localhost', '{team}', '{env}', 1, 1, 'ready', '{{}}'); \
             INSERT INTO inbox (id, source, delivery_guid, event, action, repo, pr_number, body_sha256, body) \
             VALUES ('{delivery}', 'github', gen_random_uuid(), 'pull_request', 'opened', '{repo}', 12, '\\x00', '\\x00');",
            image = self.image.uuid(),
            sha = "a".repeat(40),
        )
    }

    /// The path with this world's ids in place of its names.
    pub fn fill(&self, path: &str) -> String {
        let id = if path.contains("/projects/") {
            self.project.to_string()
        } else if path.contains("/cloud-accounts/") {
            self.account.clone()
        } else if path.contains("/images/") {
            self.image.to_string()
        } else if path.contains("/environments/") {
            self.environment.to_string()
        } else if path.contains("/runs/") {
            self.run.to_string()
        } else if path.contains("/builds/") {
            self.build.to_string()
        } else {
            self.delivery.to_string()
        };
        path.replace("{id}", &id).replace("{stream}", &self.stream.to_string())
    }
}

/// The path with ids of the right kinds that are nobody's.
pub fn random(path: &str) -> String {
    let id = if path.contains("/projects/") {
        ProjectId::generate().to_string()
    } else if path.contains("/cloud-accounts/") {
        stagely_domain::id::CloudAccountId::generate().to_string()
    } else if path.contains("/images/") {
        ImageId::generate().to_string()
    } else if path.contains("/environments/") {
        EnvironmentId::generate().to_string()
    } else if path.contains("/runs/") {
        RunId::generate().to_string()
    } else if path.contains("/builds/") {
        BuildJobId::generate().to_string()
    } else {
        DeliveryId::generate().to_string()
    };
    path.replace("{id}", &id).replace("{stream}", &LogStreamId::generate().to_string())
}

pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

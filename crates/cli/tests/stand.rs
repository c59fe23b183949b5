//! A running API with one environment, and the binary.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use stagely_api::tokens::{NewToken, mint};
use stagely_api::{Api, Config};
use stagely_domain::id::{EnvironmentId, LogStreamId, MachineId, RunId};
use stagely_domain::role::Role;
use stagely_domain::secret::Secret;
use stagely_runtime::config::Ports;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::testing::TestDb;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs the binary with nothing of our own environment in its.
pub fn stagely(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stagely"));
    let output = command.args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub struct Stand {
    pub db: TestDb,
    url: String,
    token: String,
    admin: String,
    pub environment: String,
    pub run_id: String,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Stand {
    pub async fn start() -> Self {
        let db = TestDb::new().await;
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.database_url = Some(Secret::new(db.url()));
        settings.common.encryption_key = Some(Secret::new("00".repeat(32)));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ports = Ports { grpc_listen: any, admin_listen: any, grpc_url: "http://127.0.0.1:1".to_owned() };
        let kit = Kit::bind(&settings.with("ports.api", ports), Peer::Api, shutdown.clone()).await.unwrap();
        let config: Config = serde_json::from_value(serde_json::json!({ "listen": "127.0.0.1:0" })).unwrap();
        let api = Api::build(config, &kit).await.unwrap();
        let url = format!("http://{}", api.local_addr().unwrap());
        let stop = shutdown.clone();
        tracker.spawn(async move { api.run(stop).await.unwrap() });

        let team = db.team("own").await;
        let account = db.qemu_account(team).await;
        let project = db.project(team, "own/shop", Some(account)).await;
        let mint = async |role| {
            let new = NewToken { team, name: "test".to_owned(), role, expires_at: None };
            mint(&db.store(), new).await.unwrap().1.reveal().to_owned()
        };
        let (token, admin) = (mint(Role::Viewer).await, mint(Role::Admin).await);
        let (environment, run) = (EnvironmentId::generate(), RunId::generate());
        let (machine, stream) = (MachineId::generate().uuid(), LogStreamId::generate().uuid());
        let (team, env, account, project) = (team.uuid(), environment.uuid(), account.uuid(), project.uuid());
        db.execute(&format!(
            "INSERT INTO environments (id, team_id, project_id, pr_number, title, preview_hash, desired, desired_sha, \
               state, ttl_secs, expires_at) \
             VALUES ('{env}', '{team}', '{project}', 12, E'Add \\x1b[31mcart', 'ownhash', 'present', 'abc', 'live', 60, now()); \
             INSERT INTO workflow_runs (id, team_id, env_id, generation, sha, cause, state, phases, created_at, live_at) \
             VALUES ('{run}', '{team}', '{env}', 1, 'abc', 'opened', 'succeeded', \
               '{{\"read\": {{\"started_at\": \"2026-01-01T00:00:01Z\", \"finished_at\": \"2026-01-01T00:00:02Z\"}}}}', \
               '2026-01-01T00:00:00Z', '2026-01-01T00:00:18Z'); \
             INSERT INTO machines (id, team_id, project_id, env_id, account_id, role, size, arch, state, expires_at) \
             VALUES ('{machine}', '{team}', '{project}', '{env}', '{account}', 'preview', 'small', 'amd64', 'enrolled', now()); \
             INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline, observed) \
             VALUES ('{machine}', '\\x00', now(), \
               '{{\"services\": [{{\"name\": \"web\", \"state\": \"running\", \"health\": \"healthy\"}}]}}'); \
             INSERT INTO log_streams (id, team_id, machine_id, env_id, name, next_offset, closed_at) \
             VALUES ('{stream}', '{team}', '{machine}', '{env}', 'service/web', 6, now()); \
             INSERT INTO build_logs (stream_id, byte_offset, content) VALUES ('{stream}', 0, E'hello\\n'); \
             INSERT INTO cost_entries (id, team_id, project_id, env_id, machine_id, from_at, to_at, micros, currency) \
             VALUES ('{stream}', '{team}', '{project}', '{env}', '{machine}', now(), now(), 10400, 'EUR'); \
             INSERT INTO routes (host, team_id, env_id, generation, version, state, entry) \
             VALUES ('ownhash.preview.localhost', '{team}', '{env}', 1, 1, 'ready', '{{}}');",
            run = run.uuid(),
        ))
        .await;
        Self { db, url, token, admin, environment: environment.to_string(), run_id: run.to_string(), shutdown, tracker }
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        stagely(arguments, &[("STAGELY_URL", &self.url), ("STAGELY_TOKEN", &self.token)])
    }

    /// The same as an admin, with these variables beside.
    pub fn admin(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
        let own = [("STAGELY_URL", self.url.as_str()), ("STAGELY_TOKEN", self.admin.as_str())];
        stagely(arguments, &[&own, variables].concat())
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(Duration::from_secs(12), self.tracker.wait()).await.expect("the API drains in time");
        self.db.drop_database().await;
    }
}

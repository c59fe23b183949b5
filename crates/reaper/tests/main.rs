//! The reaper with rows in a real Postgres, and an orchestrator that remembers what it was told.
#![allow(clippy::unwrap_used)]

mod orchestrator;

use serde_json::json;
use stagely_domain::id::{EnvironmentId, ProjectId, TeamId};
use stagely_domain::secret::Secret;
use stagely_proto::orchestrator::{ExpireRequest, Sighting, SleepRequest};
use stagely_proto::reaper::RunNowRequest;
use stagely_proto::reaper::reaper_client::ReaperClient;
use stagely_reaper::{Config, Reaper};
use stagely_runtime::grpc::Channel;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::Scope;
use stagely_store::environments::{Environment, NewEnvironment, PullRequest};
use stagely_store::testing::TestDb;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Double;

const ALL: Scope = Scope::system("look at previews in a test");

struct Stand {
    db: TestDb,
    team: TeamId,
    orchestrator: Double,
    reaper: ReaperClient<Channel>,
    shutdown: CancellationToken,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stand {
    /// A reaper that looks only when it is told to.
    async fn start() -> Self {
        let (db, shutdown, orchestrator) = (TestDb::new().await, CancellationToken::new(), Double::default());
        let peer = orchestrator.clone().serve(shutdown.clone()).await;
        let own = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut settings = stagely_runtime::config::load().unwrap();
        settings.common.database_url = Some(Secret::new(db.url()));
        for (name, address) in [("orchestrator", peer), ("reaper", own)] {
            let ports = json!({
                "grpc_listen": address, "admin_listen": "127.0.0.1:0", "grpc_url": format!("http://{address}")
            });
            settings = settings.with(&format!("ports.{name}"), ports);
        }
        let kit = Kit::bind(&settings, Peer::Reaper, shutdown.clone()).await.unwrap();
        // Its commands are served from here on; it is not run, so it looks at nothing by itself.
        Reaper::build(Config::default(), &kit).await.unwrap();
        let reaper = ReaperClient::new(kit.connect(Peer::Reaper).unwrap());
        let team = db.team("acme").await;
        Self { db, team, orchestrator, reaper, shutdown }
    }

    /// A preview for which these columns are set so.
    async fn preview(&self, project: ProjectId, number: i64, columns: &str) -> Environment {
        let pr = PullRequest {
            number,
            title: String::new(),
            branch: "change".to_owned(),
            author: "ada".to_owned(),
            url: String::new(),
            sha: "0".repeat(40),
        };
        let id = EnvironmentId::generate();
        let new = NewEnvironment { id, team: self.team, project, pr, hash: format!("hash{number}"), ttl_secs: 3600 };
        let tx = self.db.store().begin().await.unwrap();
        tx.insert_environment(&new).await.unwrap();
        tx.commit().await.unwrap();
        self.db.execute(&format!("UPDATE environments SET {columns} WHERE id = '{}'", id.uuid())).await;
        self.db.store().get_environment(&ALL, id).await.unwrap()
    }

    /// How many decisions took effect.
    async fn look(&self) -> u32 {
        self.reaper.clone().run_now(RunNowRequest {}).await.unwrap().into_inner().decided
    }
}

fn end(env: &Environment, reason: &str, expires_at_unix_micros: Option<i64>) -> ExpireRequest {
    let (environment_id, generation) = (env.id.to_string(), env.generation.unsigned_abs());
    ExpireRequest { environment_id, generation, reason: reason.to_owned(), expires_at_unix_micros }
}

const OVER: &str = "expires_at = now() - interval '1 minute'";
const IDLE: &str = "state = 'live', sleep_after_secs = 600, last_activity_at = now() - interval '1 hour'";

#[tokio::test]
async fn each_preview_gets_its_verdict_with_all_that_it_was_made_on() {
    let stand = Stand::start().await;
    let project = stand.db.project(stand.team, "acme/shop", None).await;
    let deleted = stand.db.project(stand.team, "acme/old", None).await;
    let expired = stand.preview(project, 1, OVER).await;
    stand.preview(project, 2, &format!("pinned = true, {OVER}")).await;
    let idle = stand.preview(project, 3, IDLE).await;
    stand.preview(project, 4, &format!("{IDLE}, desired_power = 'asleep'")).await;
    stand.preview(project, 5, "state = 'live', sleep_after_secs = 600").await;
    stand.preview(project, 6, &format!("desired = 'absent', {OVER}")).await;
    let abandoned = stand.preview(deleted, 7, "pinned = true, generation = 4").await;
    let tx = stand.db.store().begin().await.unwrap();
    tx.delete_project(&ALL, deleted).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(stand.look().await, 3);
    let expired = end(&expired, "its time to live is over", Some(expired.expires_at.timestamp_micros()));
    assert_eq!(stand.orchestrator.expired(), [expired, end(&abandoned, "the project was deleted", None)]);
    let seen = Sighting { generation: 1, last_activity_at_unix_micros: idle.last_activity_at.timestamp_micros() };
    let (environment_id, team_id) = (idle.id.to_string(), stand.team.to_string());
    assert_eq!(stand.orchestrator.slept(), [SleepRequest { environment_id, team_id, seen: Some(seen) }]);
}

#[tokio::test]
async fn a_verdict_that_was_overtaken_is_no_decision_and_stops_no_other() {
    let stand = Stand::start().await;
    let project = stand.db.project(stand.team, "acme/shop", None).await;
    stand.preview(project, 1, OVER).await;
    stand.preview(project, 2, IDLE).await;
    stand.orchestrator.refuse();
    assert_eq!(stand.look().await, 0);
    assert_eq!((stand.orchestrator.expired().len(), stand.orchestrator.slept().len()), (1, 1));
}

//! The commands of the other services, sent to the gRPC service itself.

use chrono::TimeDelta;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::{DeliveryId, EnvironmentId, TeamId};
use stagely_proto::orchestrator as wire;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_runtime::grpc::Channel;
use stagely_runtime::{Kit, Peer};
use stagely_store::NewDelivery;
use stagely_store::environments::Environment;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::git_host;
use crate::stack::Stack;

impl Stack {
    /// Another process, of which only the commands are served.
    pub async fn commands(&self) -> OrchestratorClient<Channel> {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let ports = serde_json::json!({
            "grpc_listen": free, "admin_listen": "127.0.0.1:0", "grpc_url": format!("http://{free}")
        });
        let settings = stagely_runtime::config::load().unwrap().with("ports.orchestrator", ports);
        let kit = Kit::bind(&settings, Peer::Orchestrator, CancellationToken::new()).await.unwrap();
        self.other().await.serve(&kit).await.unwrap();
        OrchestratorClient::new(kit.connect(Peer::Orchestrator).unwrap())
    }

    async fn environment(&self) -> Environment {
        self.world.db.store().find_environment(self.world.project, self.number).await.unwrap().unwrap()
    }

    /// Waits until the runs that have gone live were begun for these reasons, oldest first, and the last is live.
    async fn wait_for_live_runs(&self, causes: &str) {
        let runs = "SELECT string_agg(cause, ' ' ORDER BY generation) FROM workflow_runs WHERE live_at IS NOT NULL";
        self.wait(causes, async || self.world.db.text(runs).await == causes).await;
        self.wait_until_live().await;
    }
}

fn of(env: &Environment) -> wire::EnvironmentRequest {
    wire::EnvironmentRequest { environment_id: env.id.to_string(), team_id: env.team.to_string() }
}

fn pin(env: &Environment, pinned: bool) -> wire::PinRequest {
    wire::PinRequest { environment_id: env.id.to_string(), team_id: env.team.to_string(), pinned }
}

/// What the reaper says when it saw `env` idle.
fn idle(env: &Environment) -> wire::SleepRequest {
    let seen = wire::Sighting {
        generation: env.generation.unsigned_abs(),
        last_activity_at_unix_micros: env.last_activity_at.timestamp_micros(),
    };
    wire::SleepRequest { environment_id: env.id.to_string(), team_id: env.team.to_string(), seen: Some(seen) }
}

/// What the reaper says when it saw the time of `env` over.
fn over(env: &Environment) -> wire::ExpireRequest {
    wire::ExpireRequest {
        environment_id: env.id.to_string(),
        generation: env.generation.unsigned_abs(),
        reason: "its time to live is over".to_owned(),
        expires_at_unix_micros: Some(env.expires_at.timestamp_micros()),
    }
}

#[tokio::test]
async fn a_member_redeploys_replays_a_lost_delivery_and_destroys() {
    let stack = Stack::start().await;
    let mut commands = stack.commands().await;
    let opened = stack.deliver("opened").await;
    stack.wait_until_live().await;
    let env = stack.environment().await;
    let told = commands.redeploy(of(&env)).await.unwrap().into_inner();
    assert_eq!(told.generation, env.generation.unsigned_abs() + 1);
    stack.wait_for_live_runs("opened redeploy").await;

    // A commit whose delivery was lost: the one before it leads to the pull request as well.
    git_host::push(&stack.branch).await;
    commands.replay(wire::ReplayRequest { delivery_id: opened.to_string() }).await.unwrap();
    stack.wait_for_live_runs("opened redeploy push").await;

    commands.destroy(of(&env)).await.unwrap();
    stack.wait_until_gone().await;
    assert!(stack.comment().contains("it was removed by a member"), "{}", stack.comment());
    assert_eq!(stack.cloud.ever(), 1);
    let refused = commands.redeploy(of(&env)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    // A new title brings it back as little as the comparison with the git host does; who opens it again wants it again.
    let edited = stack.deliver("edited").await;
    stack.wait_until_decided(edited).await;
    stack.wait_until_gone().await;
    let closed = stack.close().await;
    stack.wait_until_decided(closed).await;
    git_host::host().change(git_host::REPO, stack.number, |pull| pull.open = true);
    let opened = stack.deliver("reopened").await;
    stack.wait_until_decided(opened).await;
    assert_ne!(stack.environment().await.id, env.id);
    stack.end().await;
}

#[tokio::test]
async fn every_delivery_comes_to_a_decision_also_one_that_is_about_nothing_or_cannot_be_applied() {
    const ODD: &str = "acme/shop/web";
    let stack = Stack::start().await;
    let mut commands = stack.commands().await;
    let ignored = Some("Stagely does not act on `push` events".to_owned());
    let push = NewDelivery { event: "push".to_owned(), pr_number: None, ignored, ..stack.delivery("") };
    let push = stack.take_in(push).await;
    commands.replay(wire::ReplayRequest { delivery_id: push.to_string() }).await.unwrap();
    stack.wait_until_decided(push).await;
    stack.world.db.execute(&format!("UPDATE projects SET repo = '{ODD}'")).await;
    let odd = stack.take_in(NewDelivery { repo: Some(ODD.to_owned()), ..stack.delivery("opened") }).await;
    stack.wait_until_decided(odd).await;
    let decisions = "SELECT string_agg(decision || ': ' || reason, '; ' ORDER BY id) FROM inbox";
    assert_eq!(
        stack.world.db.text(decisions).await,
        "ignored: it is about no pull request; failed: it was given up at: read a pull request"
    );
    stack.end().await;
}

#[tokio::test]
async fn the_reaper_decides_nothing_about_a_preview_that_changed_since_it_looked() {
    let stack = Stack::start().await;
    let mut commands = stack.commands().await;
    stack.open_until_live().await;
    let seen = stack.environment().await;
    let tx = stack.world.db.store().begin().await.unwrap();
    tx.touch_environment(seen.id, SystemClock.now() + TimeDelta::hours(1)).await.unwrap();
    tx.commit().await.unwrap();
    let refused = commands.sleep(idle(&seen)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    commands.sleep(idle(&stack.environment().await)).await.unwrap();
    stack.wait_for_comment("Preview: Asleep").await;
    commands.wake(of(&seen)).await.unwrap();
    stack.wait_for_comment("Preview: Live").await;
    stack.wait("a preview that serves", async || stack.is_served().await).await;

    commands.pin(pin(&seen, true)).await.unwrap();
    assert!(!commands.expire(over(&seen)).await.unwrap().into_inner().applied, "it is pinned");
    commands.pin(pin(&seen, false)).await.unwrap();
    let renewed = Environment { expires_at: seen.expires_at - TimeDelta::hours(1), ..seen.clone() };
    let pushed = Environment { generation: seen.generation - 1, ..seen.clone() };
    for before in [renewed, pushed] {
        assert!(!commands.expire(over(&before)).await.unwrap().into_inner().applied);
    }
    assert!(stack.is_served().await);
    assert!(commands.expire(over(&seen)).await.unwrap().into_inner().applied);
    stack.wait_until_gone().await;
    assert!(stack.comment().contains("its time to live is over"), "{}", stack.comment());
    stack.end().await;
}

#[tokio::test]
async fn what_is_another_teams_looks_like_what_is_not_there() {
    let stack = Stack::start().await;
    let mut commands = stack.commands().await;
    stack.open_until_live().await;
    let env = stack.environment().await;
    let theirs = Environment { team: TeamId::generate(), ..env.clone() };
    let nowhere = Environment { id: EnvironmentId::generate(), ..env.clone() };
    for strange in [&theirs, &nowhere] {
        let by_a_member = wire::SleepRequest { seen: None, ..idle(strange) };
        let answers = [
            commands.redeploy(of(strange)).await,
            commands.destroy(of(strange)).await,
            commands.wake(of(strange)).await,
            commands.sleep(by_a_member).await,
            commands.sleep(idle(strange)).await,
            commands.pin(pin(strange, true)).await,
        ];
        for answer in answers {
            let refused = answer.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such environment"));
        }
    }
    assert!(!commands.expire(over(&nowhere)).await.unwrap().into_inner().applied);
    let unknown = wire::ReplayRequest { delivery_id: DeliveryId::generate().to_string() };
    assert_eq!(commands.replay(unknown).await.unwrap_err().code(), Code::NotFound);
    let malformed = wire::ReplayRequest { delivery_id: env.id.to_string() };
    assert_eq!(commands.replay(malformed).await.unwrap_err().code(), Code::InvalidArgument);
    let after = stack.environment().await;
    assert_eq!((after.generation, after.desired, after.pinned), (env.generation, env.desired, env.pinned));
    stack.close_and_end().await;
}

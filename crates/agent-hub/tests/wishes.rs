use stagely_domain::failure::Code;
use stagely_proto::agent::{self, agent_frame};
use stagely_store::agents::Phase;
use stagely_store::testing::TestDb;

use crate::stack::{Hub, preview_wish, seed, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_is_sent_once_from_any_replica_and_an_older_one_is_ignored() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let (holder, asked) = (Hub::start(&db).await, Hub::start(&db).await);
    let agent = holder.agent(machine).await;
    let (mut wire, _) = agent.connect(holder.address).await;
    assert!(asked.wish(machine, preview_wish(5, "s")).await);
    assert_eq!(wire.desired().await.generation, 5);
    assert!(!asked.wish(machine, preview_wish(5, "s")).await);
    assert!(!holder.wish(machine, preview_wish(4, "s")).await);
    assert!(holder.wish(machine, preview_wish(6, "s")).await);
    // The next that comes is 6: neither 5 again nor 4.
    assert_eq!(wire.desired().await.generation, 6);
    holder.stop().await;
    asked.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_wish_holds_no_readable_token() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    hub.prepare(machine).await;
    assert!(hub.wish(machine, preview_wish(1, "ghs_plainlyreadable")).await);
    let readable = "SELECT position('ghs_plainlyreadable'::bytea IN desired_sealed) FROM agent_connections";
    assert_eq!(db.text(readable).await, "0");
    assert_ne!(db.text("SELECT length(desired_sealed) FROM agent_connections").await, "");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_stored_masked_and_wakes_the_machines_owner() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let (preview, builder) = (seed.preview(&db).await, seed.builder(&db).await);
    let hub = Hub::start(&db).await;
    let (agent, worker) = (hub.agent(preview).await, hub.agent(builder).await);
    assert!(hub.wish(preview, preview_wish(2, "ghs_plainlyreadable")).await);
    let (mut wire, _) = agent.connect(hub.address).await;
    wire.desired().await;
    let failure = agent::Failure {
        code: "hook_failed".to_owned(),
        message: "bad ghs_plainlyreadable\0".to_owned(),
        ..agent::Failure::default()
    };
    let report = agent::Observed {
        generation: 2,
        phase: agent::Phase::Failed.into(),
        failure: Some(failure),
        ..agent::Observed::default()
    };
    wire.send(agent_frame::Body::Observed(report)).await;
    let woken =
        |kind: &str, key: uuid::Uuid| format!("SELECT count(*) FROM work WHERE kind = '{kind}' AND key = '{key}'");
    wait_for(&db, &woken("environment", seed.env.uuid()), "1").await;
    let kept = db.store().find_agent(preview).await.unwrap().unwrap();
    let observed = kept.observed.unwrap();
    assert_eq!((kept.observed_generation, observed.phase), (2, Phase::Failed));
    let failure = observed.failure.unwrap();
    assert_eq!((failure.code, failure.message.as_str()), (Code::HookFailed, "bad ***REDACTED***"));
    let (mut wire, _) = worker.connect(hub.address).await;
    wire.send(agent_frame::Body::Observed(agent::Observed::default())).await;
    wait_for(&db, &woken("fleet", seed.project.uuid()), "1").await;
    hub.stop().await;
}

use futures::SinkExt;
use rcgen::KeyPair;
use stagely_agent_hub::Config;
use stagely_proto::agent::{self, agent_frame, hub_frame};
use stagely_store::testing::TestDb;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::stack::{Heard, Hub, csr, enrol, preview_wish, seed, wait_for};

fn working(generation: u64) -> agent_frame::Body {
    let observed = agent::Observed { generation, phase: agent::Phase::Working.into(), ..agent::Observed::default() };
    agent_frame::Body::Observed(observed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_connections_wins_and_the_older_cannot_write() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let (first_hub, second_hub) = (Hub::start(&db).await, Hub::start(&db).await);
    let agent = first_hub.agent(machine).await;
    let (mut here, first) = agent.connect(first_hub.address).await;
    let (mut same_hub, second) = agent.connect(first_hub.address).await;
    assert_eq!(here.close_code().await.0, 4409);
    let (mut other_hub, third) = agent.connect(second_hub.address).await;
    same_hub.send(working(7)).await;
    assert_eq!(same_hub.close_code().await.0, 4409);
    assert!(first.conn_epoch < second.conn_epoch && second.conn_epoch < third.conn_epoch);
    other_hub.send(working(8)).await;
    wait_for(&db, "SELECT observed_generation FROM agent_connections", "8").await;
    first_hub.stop().await;
    second_hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_answer_another_key_and_another_machines_credential_are_refused() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let (one, other) = (seed.preview(&db).await, seed.builder(&db).await);
    let hub = Hub::start(&db).await;
    let (mut agent, foreign) = (hub.agent(one).await, hub.agent(other).await);
    let mut wire = agent.dial(hub.address, &[]).await.unwrap();
    let recorded = agent.hello(&wire.challenge().await);
    wire.send(recorded.clone()).await;
    assert!(matches!(wire.next().await, Heard::Frame(hub_frame::Body::Welcome(_))));
    let mut replay = agent.dial(hub.address, &[]).await.unwrap();
    replay.challenge().await;
    replay.send(recorded).await;
    assert_eq!(replay.close_code().await.0, 4401);
    // The credential of one machine with the proof of another.
    let mut mixed = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = mixed.challenge().await;
    mixed.send(foreign.hello(&nonce)).await;
    assert_eq!(mixed.close_code().await.0, 4401);
    agent.key = KeyPair::generate().unwrap();
    let mut thief = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = thief.challenge().await;
    thief.send(agent.hello(&nonce)).await;
    assert_eq!(thief.close_code().await.0, 4401);
    agent.credential = "e30.e30.".to_owned();
    let mut forged = agent.dial(hub.address, &[]).await.unwrap();
    assert_eq!(forged.close_code().await.0, 4401);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_and_foreign_protocols_are_refused_before_the_upgrade() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let agent = hub.agent(machine).await;
    for (header, value, wanted) in
        [("origin", "https://hub", 403), ("sec-websocket-protocol", "other.v1", 400), ("authorization", "Basic x", 401)]
    {
        match agent.dial(hub.address, &[(header, value)]).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), wanted, "{header}"),
            Err(other) => panic!("{header}: {other}"),
            Ok(_) => panic!("{header} was accepted"),
        }
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_longer_than_its_credential_lives_comes_back_when_it_is_woken() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start_with(&db, Config { credential_ttl_secs: 1, ..Config::default() }).await;
    let (token, ca) = hub.prepare(machine).await;
    let agent = hub.agent(machine).await;
    db.execute("UPDATE agent_connections SET enrol_deadline = now() - interval '1 hour', return_until = NULL").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let mut refused = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = refused.challenge().await;
    refused.send(agent.hello(&nonce)).await;
    assert_eq!(refused.close_code().await.0, 4401);
    // Whoever wakes it says so first.
    hub.prepare(machine).await;
    agent.connect(hub.address).await;
    // The token stays spent: whoever has read it gets nothing, and does the machine no harm.
    let thief = KeyPair::generate().unwrap();
    assert_eq!(enrol(hub.address, &ca, &machine.to_string(), &token, &thief).await.0, 403);
    assert_eq!(db.text("SELECT count(*) FROM agent_connections WHERE suspect_at IS NOT NULL").await, "0");
    // One that is not wanted any more is told so, whatever its credential.
    db.execute("UPDATE agent_connections SET return_until = NULL; UPDATE machines SET desired = 'absent'").await;
    let mut unwanted = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = unwanted.challenge().await;
    unwanted.send(agent.hello(&nonce)).await;
    assert_eq!(unwanted.close_code().await.0, 4410);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_wanted_is_told_to_power_off_at_once_or_when_it_comes_back() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let (one, other) = (seed.preview(&db).await, seed.builder(&db).await);
    let hub = Hub::start(&db).await;
    let (agent, revoked) = (hub.agent(one).await, hub.agent(other).await);
    let powers_off = |frames: &[hub_frame::Body]| matches!(frames.last(), Some(hub_frame::Body::PowerOff(_)));
    let (mut wire, _) = agent.connect(hub.address).await;
    db.execute(&format!("UPDATE machines SET desired = 'absent' WHERE id = '{}'", one.uuid())).await;
    let (code, frames) = wire.close_code().await;
    assert!(code == 4410 && powers_off(&frames), "{code}, {} frames", frames.len());
    let mut again = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = again.challenge().await;
    again.send(agent.hello(&nonce)).await;
    let (code, frames) = again.close_code().await;
    assert!(code == 4410 && powers_off(&frames), "{code}, {} frames", frames.len());
    let (mut wire, _) = revoked.connect(hub.address).await;
    wire.log("agent", 0, b"the last word\n").await;
    wire.acked("agent", 14).await;
    let request = stagely_proto::hub::RevokeRequest { machine_id: other.to_string(), reason: "test".to_owned() };
    hub.grpc.clone().revoke(request).await.unwrap();
    assert_eq!(db.text("SELECT count(*) FROM log_streams WHERE closed_at IS NOT NULL").await, "1", "readers may go");
    let (code, frames) = wire.close_code().await;
    assert!(code == 4410 && powers_off(&frames), "{code}, {} frames", frames.len());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_moves_to_another_hub_when_its_own_stops_and_gets_its_wish_there() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let (first, second) = (Hub::start(&db).await, Hub::start(&db).await);
    let agent = first.agent(machine).await;
    assert!(first.wish(machine, preview_wish(3, "token-of-the-checkout")).await);
    let (mut wire, _) = agent.connect(first.address).await;
    assert_eq!(wire.desired().await.generation, 3);
    let (stopped, said) = tokio::join!(first.stop(), wire.next());
    let () = stopped;
    assert!(matches!(&said, Heard::Closed(1012, reason) if reason.starts_with("retry_after=")), "{said:?}");
    let (mut wire, _) = agent.connect(second.address).await;
    assert_eq!(wire.desired().await.generation, 3);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_outside_the_limits_end_the_connection_readably() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let agent = hub.agent(machine).await;
    let (mut wire, _) = agent.connect(hub.address).await;
    let _ = wire.socket.send(Message::Binary(vec![0; 300 * 1024].into())).await;
    assert_eq!(wire.close_code().await.0, 1009);
    let (mut wire, _) = agent.connect(hub.address).await;
    let _ = wire.socket.send(Message::Binary(vec![0xff; 10].into())).await;
    assert_eq!(wire.close_code().await.0, 4400);
    let (mut wire, _) = agent.connect(hub.address).await;
    let _ = wire.socket.send(Message::text("hello")).await;
    assert_eq!(wire.close_code().await.0, 4400);
    let (mut wire, _) = agent.connect(hub.address).await;
    wire.send_frame(agent::AgentFrame { seq: 1, ack: 99, body: None }).await;
    assert_eq!(wire.close_code().await.0, 4400);
    let (mut wire, _) = agent.connect(hub.address).await;
    for _ in 0..3000 {
        if wire.socket.send(Message::Ping(vec![1].into())).await.is_err() {
            break;
        }
    }
    assert_eq!(wire.close_code().await.0, 4400);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_gives_a_credential_that_works_and_refuses_another_key() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let mut agent = hub.agent(machine).await;
    let (mut wire, _) = agent.connect(hub.address).await;
    wire.send(agent_frame::Body::Renew(agent::Renew { csr_der: csr(&agent.key) })).await;
    let Heard::Frame(hub_frame::Body::Renewed(renewed)) = wire.next().await else { panic!("no renewal") };
    agent.credential = renewed.credential;
    let (mut wire, _) = agent.connect(hub.address).await;
    wire.send(agent_frame::Body::Renew(agent::Renew { csr_der: csr(&KeyPair::generate().unwrap()) })).await;
    assert_eq!(wire.close_code().await.0, 4400);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_puts_an_agent_off() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let agent = hub.agent(machine).await;
    let away = db.store().begin().await.unwrap();
    away.execute("LOCK TABLE agent_connections IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut wire = agent.dial(hub.address, &[]).await.unwrap();
    let nonce = wire.challenge().await;
    wire.send(agent.hello(&nonce)).await;
    assert_eq!(wire.close_code().await.0, 1013);
    drop(away);
    hub.stop().await;
}

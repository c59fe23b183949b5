use stagely_domain::id::BuildJobId;
use stagely_store::testing::TestDb;
use stagely_store::{LogOwner, Scope};

use crate::stack::{Hub, preview_wish, seed};

const SYSTEM: &str = "test";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_off_at_many_places_is_stored_whole_and_once() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let machine = seed.preview(&db).await;
    let hub = Hub::start(&db).await;
    let agent = hub.agent(machine).await;
    let sent: Vec<u8> = (0..200_000_u32).map(|n| b"abcdefghijklmnopqrstuvwxyz0123\n"[(n as usize * 7) % 31]).collect();
    let mut cut = 1;
    loop {
        let (mut wire, welcome) = agent.connect(hub.address).await;
        let start = usize::try_from(welcome.log_offsets.get("compose").copied().unwrap_or(0)).unwrap();
        if start == sent.len() {
            break;
        }
        // Resent from further back than needed, in uneven pieces, and dropped without waiting for an answer.
        let from = start.saturating_sub(cut % 97);
        let until = sent.len().min(start + cut);
        for (index, piece) in sent[from..until].chunks(1 + cut % 4096).enumerate() {
            wire.log("compose", u64::try_from(from + index * (1 + cut % 4096)).unwrap(), piece).await;
        }
        if until == sent.len() {
            wire.acked("compose", u64::try_from(sent.len()).unwrap()).await;
        }
        drop(wire);
        cut = cut * 3 / 2 + 1;
    }
    let (store, scope) = (db.store(), Scope::system(SYSTEM));
    let streams = store.list_streams(&scope, LogOwner::Environment(seed.env)).await.unwrap();
    assert_eq!((streams.len(), streams[0].name.as_str()), (1, "compose"));
    let (mut stored, mut from) = (String::new(), 0);
    loop {
        let page = store.read_log(&scope, streams[0].id, from, 10_000).await.unwrap();
        if page.entries.is_empty() {
            break;
        }
        assert!(page.entries.iter().all(|entry| entry.row.lost_bytes == 0));
        page.entries.iter().for_each(|entry| stored.push_str(&entry.row.content));
        from = page.next_offset;
    }
    assert!(stored.as_bytes() == sent, "{} bytes stored of {}", stored.len(), sent.len());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_hidden_and_a_hole_is_noted() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let agent = hub.agent(machine).await;
    hub.wish(machine, preview_wish(1, "ghs_plainlyreadable")).await;
    let (mut wire, _) = agent.connect(hub.address).await;
    wire.desired().await;
    wire.log("service/web", 0, b"my ghs_plainlyreadable\n").await;
    wire.log("service/web", 100, b"later").await;
    wire.acked("service/web", 105).await;
    let rows = "SELECT string_agg(byte_offset || ':' || lost_bytes || ':' || content, '|' ORDER BY byte_offset) FROM build_logs";
    assert_eq!(db.text(rows).await, "0:0:my ***REDACTED***\n|100:77:later");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_writes_the_logs_of_its_own_jobs_only() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let (machine, other) = (seed.builder(&db).await, seed.builder(&db).await);
    let hub = Hub::start(&db).await;
    let (own, foreign) = (seed.job(&db, machine).await, seed.job(&db, other).await);
    let agent = hub.agent(machine).await;
    let (mut wire, _) = agent.connect(hub.address).await;
    for job in [own, foreign, BuildJobId::generate()] {
        let stream = format!("build/{job}");
        wire.log(&stream, 0, b"text").await;
        // Acknowledged even when it is thrown away, or the agent would send it for ever.
        wire.acked(&stream, 4).await;
    }
    let (store, scope) = (db.store(), Scope::system(SYSTEM));
    assert_eq!(store.list_streams(&scope, LogOwner::Build(own)).await.unwrap().len(), 1);
    assert_eq!(store.list_streams(&scope, LogOwner::Build(foreign)).await.unwrap().len(), 0);
    assert_eq!(store.list_streams(&scope, LogOwner::Environment(seed.env)).await.unwrap().len(), 1);
    assert_eq!(db.text("SELECT count(*) FROM build_logs").await, "1");
    wire.log("secrets/all", 0, b"text").await;
    assert_eq!(wire.close_code().await.0, 4400);
    hub.stop().await;
}

use futures::future::join_all;
use rcgen::KeyPair;
use stagely_domain::id::MachineId;
use stagely_domain::ingress;
use stagely_store::testing::TestDb;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::stack::{Hub, enrol, seed};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_the_same_until_used_and_gives_a_certificate_for_the_machine_alone() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let (token, ca) = hub.prepare(machine).await;
    assert_eq!(hub.prepare(machine).await.0, token);
    let key = KeyPair::generate().unwrap();
    let (status, answer) = enrol(hub.address, &ca, &machine.to_string(), &token, &key).await;
    assert_eq!(status, 200, "{answer}");
    let pem = answer["certificate_pem"].as_str().unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let name = ingress::machine_name(machine);
    let wildcard = format!("*.{name}");
    assert_eq!(names.value.general_names, [GeneralName::DNSName(&name), GeneralName::DNSName(&wildcard)]);
    assert!(!certificate.is_ca());
    assert_eq!(db.text("SELECT count(*) FROM work WHERE kind = 'machine'").await, "1");
    assert_eq!(
        db.text("SELECT position('stge_' IN encode(enrol_token_hash, 'escape')) FROM agent_connections").await,
        "0"
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_at_once_with_one_token_exactly_one_wins_and_the_machine_is_suspect() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let (token, ca) = hub.prepare(machine).await;
    let (id, address) = (machine.to_string(), hub.address);
    let answers = join_all((0..100).map(|_| async {
        let key = KeyPair::generate().unwrap();
        enrol(address, &ca, &id, &token, &key).await
    }))
    .await;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(200), count(409)), (1, 99));
    assert_eq!(db.text("SELECT suspect_at IS NOT NULL FROM agent_connections").await, "true");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again_to_the_same_key_but_not_after_the_deadline() {
    let db = TestDb::new().await;
    let machine = seed(&db).await.preview(&db).await;
    let hub = Hub::start(&db).await;
    let (token, ca) = hub.prepare(machine).await;
    let (id, key) = (machine.to_string(), KeyPair::generate().unwrap());
    for _ in 0..2 {
        assert_eq!(enrol(hub.address, &ca, &id, &token, &key).await.0, 200);
    }
    assert_eq!(db.text("SELECT suspect_at IS NULL FROM agent_connections").await, "true");
    db.execute("UPDATE agent_connections SET enrol_deadline = now() - interval '1 second'").await;
    assert_eq!(enrol(hub.address, &ca, &id, &token, &key).await.0, 403);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_attempt_looks_the_same() {
    let db = TestDb::new().await;
    let seed = seed(&db).await;
    let (one, other, late, unwanted) =
        (seed.preview(&db).await, seed.builder(&db).await, seed.builder(&db).await, seed.builder(&db).await);
    let hub = Hub::start(&db).await;
    let (token, ca) = hub.prepare(one).await;
    hub.prepare(other).await;
    let (expired, _) = hub.prepare(late).await;
    let (absent, _) = hub.prepare(unwanted).await;
    db.execute(&format!("UPDATE agent_connections SET enrol_deadline = now() WHERE machine_id = '{}'", late.uuid()))
        .await;
    db.execute(&format!("UPDATE machines SET desired = 'absent' WHERE id = '{}'", unwanted.uuid())).await;
    let attempts = [
        (one.to_string(), "stge_wrong".to_owned()),
        (one.to_string(), String::new()),
        (other.to_string(), token.clone()),
        (late.to_string(), expired),
        (unwanted.to_string(), absent),
        (MachineId::generate().to_string(), token.clone()),
        ("nonsense".to_owned(), token),
    ];
    let mut seen = Vec::new();
    for (machine, token) in attempts {
        seen.push(enrol(hub.address, &ca, &machine, &token, &KeyPair::generate().unwrap()).await);
    }
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:?}");
    assert_eq!(seen[0].0, 403);
    hub.stop().await;
}

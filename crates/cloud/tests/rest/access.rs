//! Credentials, refusals, limits and secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::id::{InstallationId, MachineId};
use tokio::net::TcpListener;

use super::double::{OTHER_TOKEN, TOKEN};
use super::{ONE_AWAKE, Rig, config, connect, provider, published};
use crate::double::NOTHING;
use crate::ear::Ear;
use crate::fault_proxy::{DeafPort, Fault, FaultProxy};

#[tokio::test]
async fn answers_of_gateways_are_understood() {
    let rig = Rig::start().await;
    let table = [
        (Fault::html(502), ErrorKind::Unavailable),
        (Fault::html(504), ErrorKind::Timeout),
        (Fault::html(200), ErrorKind::Protocol),
        (Fault::html(403), ErrorKind::Permission),
        (Fault::Truncate, ErrorKind::Unavailable),
        (Fault::Garble, ErrorKind::Protocol),
        (Fault::Answer { status: 200, headers: vec![], body: String::new() }, ErrorKind::Protocol),
        (Fault::Answer { status: 200, headers: vec![], body: "{}".to_owned() }, ErrorKind::Protocol),
    ];
    for (fault, expected) in table {
        rig.proxy.harm_when(|_| true, fault.clone());
        let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (expected, false), "{fault:?}: {error}");
    }
}

/// A redirect is an error, and nothing is sent to where it leads.
pub async fn follows_no_redirect(rig: &Rig, trap: &Rig) {
    let headers = vec![("location", format!("{}{}", trap.proxy.url(), Rig::MACHINES))];
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 307, headers, body: String::new() });
    let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert_eq!(trap.proxy.seen().len(), 0);
}

/// A refusal for haste with this header is a wait of so many seconds, in which nothing is sent.
pub async fn names_its_wait(header: &'static str, value: String, seconds: RangeInclusive<u64>) {
    let rig = Rig::start().await;
    rig.proxy.harm_when(|_| true, Fault::too_many(header, value));
    for sent in [1, 1] {
        let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
        let ErrorKind::RateLimited { retry_after: Some(wait) } = error.kind else { panic!("{error}") };
        let begun = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        assert!(seconds.contains(&begun), "{header}: {wait:?}");
        assert_eq!(rig.proxy.seen().len(), sent, "nobody knocks at a closed door");
    }
}

#[tokio::test]
async fn creates_leave_requests_for_deletes() {
    let rig = Rig::start().await;
    let (cloud, _) = published(&rig.double.url());
    let (request, created) = rig.running("").await;
    rig.leave(600);
    // The first answer tells what is left.
    cloud.list(InstallationId::generate()).await.unwrap();
    let other = CreateRequest { machine: MachineId::generate(), ..request };
    let error = cloud.create(&other).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { retry_after: Some(_) }), "{error}");
    assert!(!error.ambiguous);
    delete(&cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_hundred_creates_at_once_are_a_hundred_machines() {
    let rig = Rig::start().await;
    let first = rig.request().await;
    let requests: Vec<CreateRequest> =
        (0..100).map(|_| CreateRequest { machine: MachineId::generate(), ..first.clone() }).collect();
    let created = futures::future::join_all(requests.iter().map(|request| rig.cloud.create(request))).await;
    assert!(created.iter().all(Result::is_ok));
    let listing = rig.cloud.list(first.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (100, true));
    assert_eq!(rig.asked(&format!("POST {}", Rig::FIREWALLS)), 1);
    assert_eq!(rig.asked(&format!("POST {}", Rig::MACHINES)), 100);
}

#[tokio::test]
async fn no_answer_and_no_connection_are_told_apart() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let slow = FaultProxy::start(&rig.double.url()).await;
    let mut impatient = config(&slow.url(), TOKEN);
    impatient.timing.request = Duration::from_millis(150);
    let impatient = connect(impatient);
    impatient.create(&request).await.unwrap();
    // From the one that makes on every answer comes too late, also that of the look that follows.
    slow.harm_when(|seen| seen.nth > Rig::LOOKS_BEFORE_CREATE, Fault::AnswerLate(Duration::from_secs(30)));
    let other = CreateRequest { machine: MachineId::generate(), ..request.clone() };
    let error = impatient.create(&other).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Timeout, true));
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = provider(&format!("http://{port}"), TOKEN).create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false));
}

#[tokio::test]
async fn a_connection_that_does_not_come_in_time_had_no_effect() {
    let (rig, deaf) = (Rig::start().await, DeafPort::start().await);
    let request = rig.request().await;
    let mut impatient = config(&deaf.url(), TOKEN);
    impatient.timing.request = Duration::from_millis(200);
    let error = connect(impatient).create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Timeout, false), "{error}");
}

#[tokio::test]
async fn secrets_are_in_no_error_no_log_and_no_debug_text() {
    let (rig, ear) = (Rig::start().await, Ear::listen());
    let mut request = rig.request().await;
    assert!(!format!("{:?}", config("http://127.0.0.1:1", TOKEN)).contains(TOKEN));
    // The double repeats the token in its refusals.
    rig.double.world().refuse_next = [(422, "invalid_input")].into();
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert!(error.message.contains("***"), "{error}");
    let created = rig.cloud.create(&request).await.unwrap();
    rig.cloud.create(&request).await.unwrap();
    rig.settle(&request).await;
    put_to_sleep(&rig.cloud, &created.id).await;
    rig.cloud.wake(&created.id).await.unwrap();
    delete(&rig.cloud, &created.id).await;
    request.config.ca_pem = "x".repeat(Rig::USER_DATA_MAX + 5000);
    let too_long = rig.cloud.create(&request).await.unwrap_err();
    let heard = ear.heard();
    assert!(heard.contains("had been created before"), "{heard}");
    for text in [format!("{error} {error:?}"), format!("{too_long} {too_long:?}"), heard] {
        assert!(!text.contains(TOKEN) && !text.contains("contract-token"), "{text}");
    }
}

#[tokio::test]
async fn the_account_of_another_token_is_another_world() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let other = provider(&rig.double.url(), OTHER_TOKEN);
    assert_eq!(other.list(request.installation).await.unwrap().vms, []);
    delete(&other, &created.id).await;
    assert_eq!(rig.bill(), ONE_AWAKE);
}

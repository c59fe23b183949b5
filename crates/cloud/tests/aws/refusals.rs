//! What goes wrong on the way, and what is made of it.

use std::time::Duration;

use stagely_cloud::aws::Aws;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use tokio::net::TcpListener;

use super::{NOTHING, Rig, config, provider};
use crate::fault_proxy::{DeafPort, Fault};

pub(super) fn refusal(status: u16, code: &str, message: &str) -> Fault {
    let body =
        format!("<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>");
    Fault::Answer { status, headers: vec![], body }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn each_failure_has_its_kind() {
    let rig = Rig::start().await;
    let empty = Fault::Answer { status: 200, headers: vec![], body: String::new() };
    let redirect =
        Fault::Answer { status: 307, headers: vec![("location", rig.moto.url.clone())], body: String::new() };
    let table = [
        (Fault::ResetBefore, ErrorKind::Unavailable),
        (Fault::LoseAnswer, ErrorKind::Unavailable),
        (Fault::Truncate, ErrorKind::Unavailable),
        (Fault::Garble, ErrorKind::Protocol),
        (empty, ErrorKind::Protocol),
        (redirect, ErrorKind::Protocol),
        (Fault::html(200), ErrorKind::Protocol),
        (Fault::html(404), ErrorKind::Protocol),
        (Fault::html(403), ErrorKind::Permission),
        (Fault::html(500), ErrorKind::Unavailable),
        (Fault::html(503), ErrorKind::Unavailable),
        (Fault::html(504), ErrorKind::Timeout),
        (refusal(401, "AuthFailure", "no"), ErrorKind::Auth),
        (refusal(403, "UnauthorizedOperation", "no"), ErrorKind::Permission),
    ];
    for (fault, expected) in table {
        rig.proxy.harm_when(|_| true, fault.clone());
        let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (expected, false), "{fault:?}: {error}");
        assert_eq!(rig.proxy.calm(), 1, "{fault:?} is tried once");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_gateway_that_knows_nothing_deletes_nothing() {
    let rig = Rig::start().await;
    let (_, created) = rig.running().await;
    rig.proxy.harm_when(|_| true, Fault::html(404));
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap_err().kind, ErrorKind::Protocol);
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap_err().kind, ErrorKind::Protocol);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_wrong_clock_is_told_apart_from_a_wrong_key() {
    let rig = Rig::start().await;
    for (code, message, hinted) in [
        ("RequestExpired", "Request has expired. Timestamp date is 2026-11-23T20:00:00Z.", true),
        ("SignatureDoesNotMatch", "Signature not yet current: 20261123T213000Z is still later than", true),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match. Check your key.", false),
    ] {
        rig.proxy.harm_when(|_| true, refusal(400, code, message));
        let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
        assert_eq!((error.kind, error.message.contains("clock")), (ErrorKind::Auth, hinted), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_refusal_for_haste_names_a_wait_and_stops_what_follows_but_not_deletes() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    rig.moto.world().knobs.hasty = Some("RunInstances");
    rig.moto.world().actions.clear();
    let next = CreateRequest { machine: MachineId::generate(), ..request };
    for _ in 0..3 {
        let error = rig.cloud.create(&next).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::RateLimited { retry_after: Some(_) }), "{error}");
        assert!(!error.ambiguous);
    }
    assert_eq!(rig.asked("RunInstances"), 1, "nobody knocks at a closed door");
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn no_answer_and_no_connection_are_told_apart() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let mut impatient = config(&rig.proxy.url());
    impatient.timing.request = Duration::from_millis(700);
    let impatient = provider(impatient);
    impatient.create(&request).await.unwrap();
    rig.proxy.harm_when(|_| true, Fault::AnswerLate(Duration::from_secs(30)));
    let other = CreateRequest { machine: MachineId::generate(), ..request.clone() };
    let error = impatient.create(&other).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Timeout, true), "{error}");
    // Nobody listens there any more; what was known before is all that is needed to ask for a machine.
    let deaf = DeafPort::instead_of(rig.proxy).await;
    let error = impatient.create(&other).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false), "{error}");
    drop(deaf);
    let error = rig.cloud.create(&other).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false), "{error}");
}

#[tokio::test]
async fn nobody_is_reached_where_nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cloud = provider(config(&format!("http://{port}")));
    let error = cloud.list(InstallationId::generate()).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false), "{error}");
    assert!(error.message.contains("no connection"), "{error}");
}

#[test]
fn nothing_goes_out_unencrypted_but_to_this_host() {
    let open = |url: &str| Aws::new(config(url), std::sync::Arc::new(SystemClock));
    for url in ["https://ec2.example", "http://127.0.0.1:5000", "http://[::1]:5000", "http://localhost:1"] {
        assert!(open(url).is_ok(), "{url}");
    }
    for url in ["http://ec2.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "ec2"] {
        assert_eq!(open(url).err().map(|error| error.kind), Some(ErrorKind::Invalid), "{url}");
    }
    let mut small = config("http://127.0.0.1:1");
    small.disk_gib = 8;
    assert!(Aws::new(small, std::sync::Arc::new(SystemClock)).is_err());
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_caller_who_gives_up_half_way_leaves_what_is_found_again() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.cloud.create(&CreateRequest { machine: MachineId::generate(), ..request.clone() }).await.unwrap();
    rig.proxy.harm_when(|_| true, Fault::AnswerLate(Duration::from_secs(30)));
    let gave_up = tokio::time::timeout(Duration::from_millis(1500), rig.cloud.create(&request)).await;
    assert!(gave_up.is_err());
    rig.proxy.calm();
    assert_ne!(rig.bill(request.machine).await, NOTHING);
    let fresh = provider(config(&rig.proxy.url()));
    assert_eq!(fresh.find(request.machine).await.unwrap().len(), 1);
    let created = fresh.create(&request).await.unwrap();
    stagely_cloud::contract::delete(&fresh, &created.id).await;
    assert_eq!(rig.bill(request.machine).await, NOTHING);
}

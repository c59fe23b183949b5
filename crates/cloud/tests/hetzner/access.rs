//! Credentials, refusals, limits and secrets.

use std::time::Duration;

use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::id::InstallationId;
use tokio::net::TcpListener;

use super::double::{OTHER_TOKEN, READ_ONLY, TOKEN};
use super::{NOTHING, Rig, config, provider};
use crate::ear::Ear;
use crate::fault_proxy::{DeafPort, Fault, FaultProxy};

#[tokio::test]
async fn a_token_is_good_or_bad_or_may_only_read() {
    let rig = Rig::start().await;
    for (token, expected) in
        [(TOKEN, None), (READ_ONLY, Some(ErrorKind::Permission)), ("invented", Some(ErrorKind::Auth))]
    {
        let outcome = provider(&rig.double.url(), token).check_access().await;
        assert_eq!(outcome.err().map(|error| error.kind), expected, "{token}");
    }
}

#[tokio::test]
async fn what_the_provider_refuses_has_one_meaning_and_had_no_effect() {
    let table = [
        (412, "resource_unavailable", ErrorKind::Capacity, false),
        (403, "resource_limit_exceeded", ErrorKind::Quota, false),
        (423, "locked", ErrorKind::Conflict, false),
        (409, "conflict", ErrorKind::Conflict, false),
        (403, "forbidden", ErrorKind::Permission, false),
        (422, "invalid_input", ErrorKind::Invalid, false),
        (500, "server_error", ErrorKind::Unavailable, true),
        (503, "maintenance", ErrorKind::Unavailable, true),
        (504, "timeout", ErrorKind::Timeout, true),
    ];
    for (status, code, kind, ambiguous) in table {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.cloud
            .create(&CreateRequest { machine: stagely_domain::id::MachineId::generate(), ..request.clone() })
            .await
            .unwrap();
        rig.double.world().refuse_next = [(status, code)].into();
        let error = rig.cloud.create(&request).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (kind, ambiguous), "{error}");
        assert_eq!(rig.asked("POST /v1/servers"), 2, "one try for each machine, whatever the answer");
    }
}

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

#[tokio::test]
async fn a_redirect_does_not_take_the_token_elsewhere() {
    let (rig, trap) = (Rig::start().await, Rig::start().await);
    let headers = vec![("location", format!("{}/v1/servers", trap.proxy.url()))];
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 307, headers, body: String::new() });
    let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert_eq!(trap.proxy.seen().len(), 0);
}

#[tokio::test]
async fn a_refusal_for_haste_names_its_wait_and_stops_what_follows() {
    for (header, value, expected) in [
        ("retry-after", "7".to_owned(), 7..=7),
        ("ratelimit-reset", (super::double::world::now_secs() + 20).to_string(), 17..=20),
        // All requests are back in an hour, the first within a minute.
        ("ratelimit-reset", (super::double::world::now_secs() + 3600).to_string(), 60..=60),
        ("x-nothing", String::new(), 10..=10),
    ] {
        let rig = Rig::start().await;
        rig.proxy.harm_when(|_| true, Fault::too_many(header, value));
        for sent in [1, 1] {
            let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
            let ErrorKind::RateLimited { retry_after: Some(wait) } = error.kind else { panic!("{error}") };
            assert!(expected.contains(&wait.as_secs_f64().ceil_to_u64()), "{header}: {wait:?}");
            assert_eq!(rig.proxy.seen().len(), sent, "nobody knocks at a closed door");
        }
    }
}

trait Ceil {
    fn ceil_to_u64(self) -> u64;
}

impl Ceil for f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test")]
    fn ceil_to_u64(self) -> u64 {
        self.ceil() as u64
    }
}

#[tokio::test]
async fn creates_leave_requests_for_deletes() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("").await;
    rig.double.world().projects[0].left = 600;
    // The first answer tells what is left.
    rig.cloud.list(InstallationId::generate()).await.unwrap();
    let request = rig.request().await;
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { retry_after: Some(_) }), "{error}");
    assert!(!error.ambiguous);
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_hundred_creates_at_once_are_a_hundred_machines() {
    let rig = Rig::start().await;
    let first = rig.request().await;
    let requests: Vec<CreateRequest> = (0..100)
        .map(|_| CreateRequest { machine: stagely_domain::id::MachineId::generate(), ..first.clone() })
        .collect();
    let created = futures::future::join_all(requests.iter().map(|request| rig.cloud.create(request))).await;
    assert!(created.iter().all(Result::is_ok));
    let listing = rig.cloud.list(first.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (100, true));
    assert_eq!(rig.asked("POST /v1/firewalls"), 1);
    assert_eq!(rig.asked("POST /v1/servers"), 100);
}

#[tokio::test]
async fn no_answer_and_no_connection_are_told_apart() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    // Every answer of this proxy comes too late, also those of the look that follows.
    let slow = FaultProxy::start(&rig.double.url()).await;
    let mut impatient = config(&slow.url(), TOKEN);
    impatient.timing.request = Duration::from_millis(150);
    let impatient =
        stagely_cloud::hetzner::Hetzner::new(impatient, std::sync::Arc::new(stagely_domain::clock::SystemClock))
            .unwrap();
    impatient.create(&request).await.unwrap();
    slow.harm_when(|_| true, Fault::AnswerLate(Duration::from_secs(30)));
    let other = CreateRequest { machine: stagely_domain::id::MachineId::generate(), ..request.clone() };
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
    let impatient =
        stagely_cloud::hetzner::Hetzner::new(impatient, std::sync::Arc::new(stagely_domain::clock::SystemClock))
            .unwrap();
    let error = impatient.create(&request).await.unwrap_err();
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
    stagely_cloud::contract::put_to_sleep(&rig.cloud, &created.id).await;
    rig.cloud.wake(&created.id).await.unwrap();
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    request.config.ca_pem = "x".repeat(40_000);
    let too_long = rig.cloud.create(&request).await.unwrap_err();
    let heard = ear.heard();
    assert!(heard.contains("had been created before"), "{heard}");
    for text in [format!("{error} {error:?}"), format!("{too_long} {too_long:?}"), heard] {
        assert!(!text.contains(TOKEN) && !text.contains("contract-token"), "{text}");
    }
}

#[tokio::test]
async fn the_project_of_another_token_is_another_world() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let other = provider(&rig.double.url(), OTHER_TOKEN);
    assert_eq!(other.list(request.installation).await.unwrap().vms, []);
    stagely_cloud::contract::delete(&other, &created.id).await;
    assert_eq!(rig.bill(), super::ONE_AWAKE);
}

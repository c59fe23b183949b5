//! Credentials, refusals, limits and secrets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stagely_cloud::digitalocean::{DigitalOcean, PER_MINUTE};
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use tokio::net::TcpListener;

use super::double::scopes::Access;
use super::double::world::now_secs;
use super::double::{OTHER_TOKEN, READ_ONLY, TOKEN};
use super::{NOTHING, ONE_AWAKE, Rig, config, provider};
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
    assert_eq!(rig.bill(), NOTHING);
    rig.double.world().knobs.locked = true;
    assert_eq!(rig.cloud.check_access().await.unwrap_err().kind, ErrorKind::Permission);
}

#[tokio::test]
async fn every_scope_that_a_token_lacks_is_named_and_nothing_is_made() {
    let all: Vec<String> =
        include_str!("../../../../deploy/digitalocean/token-scopes.txt").lines().map(str::to_owned).collect();
    let rig = Rig::start().await;
    let lacks = async |scopes: Vec<String>| {
        rig.double.world().tokens.insert("scoped", (0, Access::Scopes(scopes)));
        let checked = provider(&rig.double.url(), "scoped").check_access().await;
        checked.err().map(|error| {
            assert_eq!(error.kind, ErrorKind::Permission, "{error}");
            error.message
        })
    };
    assert_eq!(lacks(all.clone()).await, None);
    for scope in &all {
        let others = all.iter().filter(|other| *other != scope).cloned().collect();
        assert_eq!(lacks(others).await, Some(format!("the token lacks {scope}")));
    }
    let told = lacks(vec!["account:read".to_owned()]).await.unwrap();
    // These two cannot be told while it may not even change a droplet, nor this while it may not delete an image.
    let untold = ["account:read", "image:create", "tag:create", "snapshot:delete"];
    for scope in &all {
        assert_eq!(told.contains(&**scope), !untold.contains(&&**scope), "{scope}: {told}");
    }
    let world = rig.double.world();
    let team = &world.teams[0];
    assert!(team.tags.is_empty() && team.things.is_empty() && team.actions.is_empty() && team.droplets.is_empty());
}

#[tokio::test]
async fn with_these_scopes_a_machine_lives_sleeps_and_ends() {
    let rig = Rig::start().await;
    let all = include_str!("../../../../deploy/digitalocean/token-scopes.txt").lines().map(str::to_owned).collect();
    rig.double.world().tokens.insert("scoped", (0, Access::Scopes(all)));
    rig.double.world().knobs.bakes_at_once = true;
    contract::keeps(&provider(&rig.double.url(), "scoped"), &SystemClock, &[]).await;
}

#[tokio::test]
async fn what_the_provider_refuses_has_one_meaning_and_is_asked_for_once() {
    let table = [
        (401, "Unable to authenticate you", ErrorKind::Auth, false),
        (403, "You are not authorized to perform this operation", ErrorKind::Permission, false),
        (404, "The resource you were accessing could not be found", ErrorKind::NotFound, false),
        (409, "conflict", ErrorKind::Conflict, false),
        (422, "creating this/these droplet(s) will exceed your droplet limit", ErrorKind::Quota, false),
        (422, "Size is not available in this region", ErrorKind::Capacity, false),
        (422, "Droplet already has a pending event", ErrorKind::Conflict, false),
        (422, "Name is not good", ErrorKind::Invalid, false),
        (500, "server error", ErrorKind::Unavailable, true),
        (503, "maintenance", ErrorKind::Unavailable, true),
        (504, "", ErrorKind::Timeout, true),
    ];
    for (status, message, kind, ambiguous) in table {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.cloud.create(&request).await.unwrap();
        let other = CreateRequest { machine: MachineId::generate(), ..request };
        let body = json!({"id": "reason", "message": message}).to_string();
        let refusal = Fault::Answer { status, headers: vec![], body };
        rig.proxy.harm_when(|seen| seen.method == "POST" && seen.path == "/v2/droplets", refusal);
        let error = rig.cloud.create(&other).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (kind, ambiguous), "{error}");
        assert_eq!((rig.bill(), rig.proxy.calm()), (ONE_AWAKE, 1), "one try, whatever the answer");
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
async fn neither_a_redirect_nor_the_address_of_a_page_takes_the_token_elsewhere() {
    let (rig, trap) = (Rig::start().await, Rig::start().await);
    let installation = InstallationId::generate();
    for number in 1..=201 {
        let tags = [format!("stagely-installation:{installation}")];
        rig.double.world().teams[0].plant("volumes", &number.to_string(), &tags);
    }
    rig.double.world().links_host = trap.proxy.url();
    let found = rig.cloud.list_residue(installation).await.unwrap();
    assert_eq!((found.items.len(), found.complete), (201, true));
    assert_eq!(rig.asked("GET /v2/volumes?page=2"), 1);
    let headers = vec![("location", format!("{}/v2/droplets", trap.proxy.url()))];
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 307, headers, body: String::new() });
    let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert_eq!(trap.proxy.seen().len(), 0);
}

#[tokio::test]
async fn a_refusal_for_haste_names_its_wait_and_stops_what_follows() {
    for (header, value, expected) in [
        ("retry-after", "7".to_owned(), 7..=7),
        ("ratelimit-reset", (now_secs() + 20).to_string(), 17..=20),
        ("ratelimit-reset", (now_secs() + 900).to_string(), 897..=900),
        ("ratelimit-reset", (now_secs() + 100_000).to_string(), 3600..=3600),
        ("x-nothing", String::new(), 10..=10),
    ] {
        let rig = Rig::start().await;
        rig.proxy.harm_when(|_| true, Fault::too_many(header, value));
        for sent in [1, 1] {
            let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
            let ErrorKind::RateLimited { retry_after: Some(wait) } = error.kind else { panic!("{error}") };
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            assert!(expected.contains(&seconds), "{header}: {wait:?}");
            assert_eq!(rig.proxy.seen().len(), sent, "nobody knocks at a closed door");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_a_burst_holds_creates_back_for_no_longer_than_it_says() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let headers = [("ratelimit-limit", "5000"), ("ratelimit-remaining", "0"), ("retry-after", "1")];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 429, headers, body: String::new() });
    let error = rig.cloud.create(&request).await.unwrap_err();
    let ErrorKind::RateLimited { retry_after: Some(wait) } = error.kind else { panic!("{error}") };
    rig.proxy.calm();
    tokio::time::sleep(wait).await;
    rig.cloud.create(&request).await.unwrap();
}

#[tokio::test]
async fn creates_leave_requests_for_deletes() {
    let rig = Rig::start().await;
    let mut usual = config(&rig.double.url(), TOKEN);
    usual.per_minute = PER_MINUTE;
    let cloud = DigitalOcean::new(usual, Arc::new(SystemClock)).unwrap();
    let (request, created) = rig.running("").await;
    rig.double.world().teams[0].left = 600;
    // The first answer tells what is left.
    cloud.list(InstallationId::generate()).await.unwrap();
    let other = CreateRequest { machine: MachineId::generate(), ..request };
    let error = cloud.create(&other).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { retry_after: Some(_) }), "{error}");
    assert!(!error.ambiguous);
    stagely_cloud::contract::delete(&cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_list_that_was_begun_is_read_to_its_end() {
    let rig = Rig::start().await;
    for number in 1..=401 {
        rig.double.world().teams[0].plant("images", &(10_000 + number).to_string(), &[]);
    }
    let mut usual = config(&rig.double.url(), TOKEN);
    usual.per_minute = 100;
    // Wherever the requests of a minute run out, it is between two lists.
    for before in 0..4 {
        let cloud = DigitalOcean::new(usual.clone(), Arc::new(SystemClock)).unwrap();
        for _ in 0..before {
            cloud.catalogue().await.unwrap();
        }
        while cloud.list(InstallationId::generate()).await.is_ok() {}
    }
    let page = |number: u32| rig.asked(&format!("GET /v2/images?private=true&page={number}&"));
    assert!(page(1) > 4);
    assert_eq!((page(2), page(3)), (page(1), page(1)));
}

#[tokio::test]
async fn three_hundred_creates_at_once_are_held_back_before_the_provider_has_to() {
    let rig = Rig::start().await;
    let mut usual = config(&rig.proxy.url(), TOKEN);
    usual.per_minute = PER_MINUTE;
    let cloud = DigitalOcean::new(usual, Arc::new(SystemClock)).unwrap();
    let first = rig.request().await;
    rig.proxy.calm();
    let requests: Vec<CreateRequest> =
        (0..300).map(|_| CreateRequest { machine: MachineId::generate(), ..first.clone() }).collect();
    let outcomes = futures::future::join_all(requests.iter().map(|request| cloud.create(request))).await;
    // A burst of a hundred, and what flows in while it lasts.
    assert!(rig.proxy.seen().len() <= 130, "{}", rig.proxy.seen().len());
    for error in outcomes.into_iter().filter_map(Result::err) {
        let ErrorKind::RateLimited { retry_after: Some(wait) } = error.kind else { panic!("{error}") };
        assert!(wait < Duration::from_secs(60) && !error.ambiguous);
    }
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
    assert_eq!(rig.asked("POST /v2/firewalls"), 1);
    assert_eq!(rig.asked("POST /v2/droplets"), 100);
}

#[tokio::test]
async fn no_answer_and_no_connection_are_told_apart() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let slow = FaultProxy::start(&rig.double.url()).await;
    let mut impatient = config(&slow.url(), TOKEN);
    impatient.timing.request = Duration::from_millis(150);
    let impatient = DigitalOcean::new(impatient, Arc::new(SystemClock)).unwrap();
    impatient.create(&request).await.unwrap();
    // The first look passes; then every answer comes too late, also that of the look that follows.
    slow.harm_when(|seen| seen.nth > 1, Fault::AnswerLate(Duration::from_secs(30)));
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
    let impatient = DigitalOcean::new(impatient, Arc::new(SystemClock)).unwrap();
    let error = impatient.create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Timeout, false), "{error}");
}

#[tokio::test]
async fn secrets_are_in_no_error_no_log_and_no_debug_text() {
    let (rig, ear) = (Rig::start().await, Ear::listen());
    let mut request = rig.request().await;
    assert!(!format!("{:?}", config("http://127.0.0.1:1", TOKEN)).contains(TOKEN));
    // The double repeats the token in its refusals.
    rig.double.world().refuse_next = [(422, "no")].into();
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert!(error.message.contains("***"), "{error}");
    let created = rig.cloud.create(&request).await.unwrap();
    rig.cloud.create(&request).await.unwrap();
    rig.settle(&request).await;
    stagely_cloud::contract::put_to_sleep(&rig.cloud, &created.id).await;
    rig.cloud.wake(&created.id).await.unwrap();
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    request.config.ca_pem = "x".repeat(70_000);
    let too_long = rig.cloud.create(&request).await.unwrap_err();
    let heard = ear.heard();
    assert!(heard.contains("had been created before"), "{heard}");
    for text in [format!("{error} {error:?}"), format!("{too_long} {too_long:?}"), heard] {
        assert!(!text.contains(TOKEN) && !text.contains("contract-token"), "{text}");
    }
}

#[tokio::test]
async fn the_team_of_another_token_is_another_world() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let other = provider(&rig.double.url(), OTHER_TOKEN);
    assert_eq!(other.list(request.installation).await.unwrap().vms, []);
    stagely_cloud::contract::delete(&other, &created.id).await;
    assert_eq!(rig.bill(), ONE_AWAKE);
}

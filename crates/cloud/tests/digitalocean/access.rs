//! Credentials, refusals, limits and secrets.

use std::time::Duration;

use serde_json::json;
use stagely_cloud::digitalocean::PER_MINUTE;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};

use super::double::scopes::Access;
use super::double::{READ_ONLY, TOKEN};
use super::rest::access::{follows_no_redirect, names_its_wait};
use super::{NOTHING, ONE_AWAKE, Rig, config, connect, provider};
use crate::double::now_secs;
use crate::fault_proxy::Fault;

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
    let team = &world.accounts[0];
    assert!(team.tags.is_empty() && team.things.is_empty() && team.actions.is_empty() && team.machines.is_empty());
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
async fn neither_a_redirect_nor_the_address_of_a_page_takes_the_token_elsewhere() {
    let (rig, trap) = (Rig::start().await, Rig::start().await);
    let installation = InstallationId::generate();
    for number in 1..=201 {
        let tags = [format!("stagely-installation:{installation}")];
        rig.double.world().accounts[0].plant("volumes", &number.to_string(), &tags);
    }
    rig.double.world().links_host = trap.proxy.url();
    let found = rig.cloud.list_residue(installation).await.unwrap();
    assert_eq!((found.items.len(), found.complete), (201, true));
    assert_eq!(rig.asked("GET /v2/volumes?page=2"), 1);
    follows_no_redirect(&rig, &trap).await;
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
        names_its_wait(header, value, expected).await;
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
async fn a_list_that_was_begun_is_read_to_its_end() {
    let rig = Rig::start().await;
    for number in 1..=401 {
        rig.double.world().accounts[0].plant("images", &(10_000 + number).to_string(), &[]);
    }
    let mut usual = config(&rig.double.url(), TOKEN);
    usual.per_minute = 100;
    // Wherever the requests of a minute run out, it is between two lists.
    for before in 0..4 {
        let cloud = connect(usual.clone());
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
    let cloud = connect(usual);
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

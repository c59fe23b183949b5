//! Credentials, refusals, limits and secrets.

use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::id::MachineId;

use super::double::{READ_ONLY, TOKEN};
use super::rest::access::{follows_no_redirect, names_its_wait};
use super::{Rig, provider};
use crate::double::now_secs;

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
        rig.cloud.create(&CreateRequest { machine: MachineId::generate(), ..request.clone() }).await.unwrap();
        rig.double.world().refuse_next = [(status, code)].into();
        let error = rig.cloud.create(&request).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (kind, ambiguous), "{error}");
        assert_eq!(rig.asked("POST /v1/servers"), 2, "one try for each machine, whatever the answer");
    }
}

#[tokio::test]
async fn a_redirect_does_not_take_the_token_elsewhere() {
    let (rig, trap) = (Rig::start().await, Rig::start().await);
    follows_no_redirect(&rig, &trap).await;
}

#[tokio::test]
async fn a_refusal_for_haste_names_its_wait_and_stops_what_follows() {
    for (header, value, expected) in [
        ("retry-after", "7".to_owned(), 7..=7),
        ("ratelimit-reset", (now_secs() + 20).to_string(), 17..=20),
        // All requests are back in an hour, the first within a minute.
        ("ratelimit-reset", (now_secs() + 3600).to_string(), 60..=60),
        ("x-nothing", String::new(), 10..=10),
    ] {
        names_its_wait(header, value, expected).await;
    }
}

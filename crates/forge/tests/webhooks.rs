//! Deliveries: which ones are GitHub's, what they are about, and how lost ones come back.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::TimeDelta;
use serde_json::{Value, json};
use stagely_domain::clock::Clock;
use stagely_domain::secret::Secret;
use stagely_forge::testing::GitHost;
use stagely_forge::webhook::{Delivery, Hook, WebhookError, parse, receive, sign, verify};
use stagely_forge::{ErrorKind, Forge};
use tokio_util::sync::CancellationToken;

use crate::support::{REPO, app, clock, install_tls, wait_for, with_token};

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// A delivery's headers without a signature.
fn unsigned(event: &str) -> HeaderMap {
    headers(&[
        ("x-github-event", event),
        ("x-github-delivery", "0b989ba4-242f-11e5-81e1-c7b6966d2516"),
        ("content-type", "application/json"),
    ])
}

fn signed(event: &str, secret: &Secret, body: &[u8]) -> HeaderMap {
    let mut headers = unsigned(event);
    headers.insert("x-hub-signature-256", sign(secret, body).parse().unwrap());
    headers
}

#[test]
fn githubs_published_example_is_accepted() {
    let secrets = [secret("It's a Secret to Everybody")];
    let given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = headers(&[("x-hub-signature-256", given)]);
    assert_eq!(verify(&secrets, &headers, b"Hello, World!"), Ok(()));
    assert_eq!(sign(&secrets[0], b"Hello, World!"), given);
}

#[test]
fn what_github_did_not_sign_is_refused() {
    let (right, body) = (secret("right"), br#"{"zen": "a",  "hook_id": 1}"#.as_slice());
    let secrets = [right.clone()];
    let good = sign(&right, body);
    let one = |value: &str| headers(&[("x-hub-signature-256", value)]);
    assert_eq!(verify(&secrets, &one(&good), body), Ok(()));

    for at in 0..body.len() {
        let mut flipped = body.to_vec();
        flipped[at] ^= 1;
        assert_eq!(verify(&secrets, &one(&good), &flipped), Err(WebhookError::BadSignature), "byte {at}");
    }
    let again = serde_json::from_slice::<Value>(body).unwrap().to_string();
    let mut turned = good.clone().into_bytes();
    turned[10] = if turned[10] == b'0' { b'1' } else { b'0' };
    let sha1 = headers(&[("x-hub-signature", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59")]);
    let two = headers(&[("x-hub-signature-256", &good), ("x-hub-signature-256", &good)]);
    let cases = [
        ("nothing", HeaderMap::new(), body, WebhookError::Unsigned),
        ("sha1 only", sha1, body, WebhookError::Unsigned),
        ("twice", two, body, WebhookError::Unsigned),
        ("two in one header", one(&format!("{good}, {good}")), body, WebhookError::BadSignature),
        ("one bit", one(&String::from_utf8(turned).unwrap()), body, WebhookError::BadSignature),
        ("cut short", one(&good[..good.len() - 2]), body, WebhookError::BadSignature),
        ("no prefix", one(&good[7..]), body, WebhookError::BadSignature),
        ("sha1's prefix", one(&good.replace("sha256", "sha1")), body, WebhookError::BadSignature),
        ("empty", one("sha256="), body, WebhookError::BadSignature),
        ("serialised anew", one(&good), again.as_bytes(), WebhookError::BadSignature),
        ("another secret", one(&sign(&secret("wrong"), body)), body, WebhookError::BadSignature),
        ("the empty secret", one(&sign(&secret(""), body)), body, WebhookError::BadSignature),
    ];
    for (name, headers, body, wanted) in cases {
        assert_eq!(verify(&secrets, &headers, body), Err(wanted), "{name}");
    }
    // A secret that was left empty in the configuration must not open the door.
    assert_eq!(verify(&[secret("")], &one(&sign(&secret(""), body)), body), Err(WebhookError::BadSignature));
}

#[test]
fn both_secrets_count_while_one_replaces_the_other() {
    let (old, new, body) = (secret("old"), secret("new"), b"{}".as_slice());
    let by = |secret: &Secret| signed("ping", secret, body);
    let both = [new.clone(), old.clone()];
    assert!(receive(&both, &by(&old), body).is_ok() && receive(&both, &by(&new), body).is_ok());
    assert_eq!(receive(&[new], &by(&old), body), Err(WebhookError::BadSignature));
}

#[test]
fn a_delivery_names_what_is_to_be_read_again() {
    let repository = json!({"id": 7, "full_name": "acme/shop"});
    let read =
        |event: &str, body: Value| parse(&unsigned(event), body.to_string().as_bytes()).map(|delivery| delivery.hook);
    let body = json!({"action": "opened", "number": 3, "repository": repository, "installation": {"id": 9}});
    let Delivery { guid, event, hook } = parse(&unsigned("pull_request"), body.to_string().as_bytes()).unwrap();
    assert_eq!((guid.to_string().as_str(), event.as_str()), ("0b989ba4-242f-11e5-81e1-c7b6966d2516", "pull_request"));
    let Hook::PullRequest { action, source, number } = hook else { panic!("{hook:?}") };
    assert_eq!((action.as_str(), number, source.repo_id, source.installation), ("opened", 3, 7, Some(9)));
    assert_eq!(source.repo.to_string(), "acme/shop");

    assert!(matches!(read("push", json!({"repository": repository})), Ok(Hook::Push { .. })));
    assert_eq!(read("ping", json!({"zen": "x"})), Ok(Hook::Ping));
    for event in ["installation", "installation_repositories"] {
        let hook = read(event, json!({"action": "added", "installation": {"id": 9}}));
        assert_eq!(hook, Ok(Hook::InstallationChanged { installation: 9 }));
    }
    let said = json!({"action": "created", "repository": repository, "issue": {"number": 3, "pull_request": {}}});
    assert!(matches!(read("issue_comment", said), Ok(Hook::IssueComment { number: 3, .. })));
    let said = json!({"action": "created", "repository": repository, "issue": {"number": 3}});
    assert_eq!(read("issue_comment", said), Ok(Hook::Unknown), "a plain issue is none of ours");
    assert_eq!(read("star", json!({"action": 5})), Ok(Hook::Unknown));
}

#[test]
fn what_is_amiss_in_a_delivery_is_named() {
    let good = json!({"action": "opened", "number": 3, "repository": {"id": 7, "full_name": "acme/shop"}});
    let cases = [
        ("/action", json!(""), "action"),
        ("/action", json!("<script>"), "action"),
        ("/action", json!("x".repeat(5000)), "action"),
        ("/number", json!(0), "number"),
        ("/number", json!("3"), "number"),
        ("/repository/id", json!(null), "repository.id"),
        ("/repository/full_name", json!("acme"), "repository.full_name"),
        ("/repository/full_name", json!("../etc/passwd"), "repository.full_name"),
    ];
    for (pointer, value, field) in cases {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value.clone();
        let outcome = parse(&unsigned("pull_request"), body.to_string().as_bytes());
        assert_eq!(outcome, Err(WebhookError::Malformed { field }), "{pointer} = {value}");
    }
    let mut odd = good.clone();
    odd["installation"] = json!({});
    let malformed = |field| Err(WebhookError::Malformed { field });
    assert_eq!(parse(&unsigned("pull_request"), odd.to_string().as_bytes()), malformed("installation.id"));
    assert_eq!(parse(&unsigned("installation"), b"{}"), malformed("installation.id"));
    for body in [b"".as_slice(), b"{", b"payload=%7B%7D", b"\x1f\x8b\x08\x00", b"[[[[", b"\xff"] {
        assert_eq!(parse(&unsigned("ping"), body), malformed("body"), "{body:?}");
    }
    assert_eq!(parse(&unsigned("pull_request"), b"[]"), malformed("action"));
    for (name, value) in [
        ("x-github-event", ""),
        ("x-github-event", "Pull Request"),
        ("x-github-delivery", "12"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "application/jsonp"),
    ] {
        let mut headers = unsigned("ping");
        headers.insert(name, value.parse().unwrap());
        assert_eq!(parse(&headers, b"{}"), malformed(name), "{name}: {value}");
        headers.remove(name);
        assert_eq!(parse(&headers, b"{}"), malformed(name), "without {name}");
    }
    let mut twice = unsigned("ping");
    twice.append("x-github-event", "push".parse().unwrap());
    assert_eq!(parse(&twice, b"{}"), malformed("x-github-event"));
}

/// What a webhook's receiver got.
type Got = Arc<std::sync::Mutex<Vec<Delivery>>>;

async fn take(State(got): State<Got>, headers: HeaderMap, body: axum::body::Bytes) -> StatusCode {
    match receive(&[Secret::new("hook")], &headers, &body) {
        Ok(delivery) => {
            got.lock().unwrap().push(delivery);
            StatusCode::ACCEPTED
        }
        Err(_) => StatusCode::UNAUTHORIZED,
    }
}

#[tokio::test]
async fn a_lost_delivery_is_found_and_sent_again_under_its_id() {
    install_tls();
    let (got, shutdown) = (Got::default(), CancellationToken::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/github", listener.local_addr().unwrap());
    let router = Router::new().route("/webhooks/github", axum::routing::post(take)).with_state(got.clone());
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(async move { axum::serve(listener, router).await });
    let clock = clock();
    let host = GitHost::start_at(0, Some((url, Secret::new("hook"))), Arc::new(clock.clone()), shutdown.clone()).await;
    let began = clock.now();
    let client = app(&host, &clock);
    host.create_repo(REPO, &[("a", b"a")]).await;
    host.commit(REPO, "b", Some("main"), &[("b", b"b")], "c").await;
    let number = host.open_pull_request(REPO, "b", "t").await;
    assert_eq!(got.lock().unwrap().len(), 1);
    assert_eq!(client.list_failed_deliveries(began).await.unwrap(), []);

    clock.advance(TimeDelta::minutes(1));
    host.drop_deliveries(1);
    host.close_pull_request(REPO, number).await;
    for _ in 0..120 {
        host.deliver("star", &json!({"action": "created"})).await;
    }
    let failed = client.list_failed_deliveries(began).await.unwrap();
    assert_eq!(failed.len(), 1, "found beyond the first page: {failed:?}");
    assert_eq!((failed[0].event.as_str(), failed[0].action.as_deref()), ("pull_request", Some("closed")));
    assert_eq!((failed[0].status, failed[0].attempts), (0, 1));
    let later = clock.now() + TimeDelta::seconds(1);
    assert_eq!(client.list_failed_deliveries(later).await.unwrap(), [], "not older ones");

    client.redeliver(failed[0].id).await.unwrap();
    let guid = failed[0].guid;
    let arrived = || async { got.lock().unwrap().iter().any(|delivery| delivery.guid == guid) };
    wait_for("the delivery", Duration::from_secs(10), arrived).await;
    let settled = || async { client.list_failed_deliveries(began).await.unwrap().is_empty() };
    wait_for("nothing left to send again", Duration::from_secs(10), settled).await;
    assert_eq!(client.redeliver(1).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(with_token(&host).list_failed_deliveries(began).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(host.violations(), Vec::<String>::new());
    shutdown.cancel();
}

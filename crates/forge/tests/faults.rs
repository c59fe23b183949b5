//! What a git host's bad days mean.

use std::sync::Arc;
use std::time::Duration;

use stagely_domain::clock::SystemClock;
use stagely_forge::testing::Fault;
use stagely_forge::{ErrorKind, Forge, GitHub};

use crate::support::{REPO, host, install_tls, token, with_token};

#[tokio::test]
async fn refusals_say_what_follows_from_them() {
    let (host, client, repo) = host().await;
    let limited = |secs| ErrorKind::RateLimited { retry_after: Duration::from_secs(secs) };
    for (fault, wanted) in [
        (Fault::Status(429), limited(7)),
        (Fault::Status(403), limited(7)),
        (Fault::RateLimit { reset_secs: -100 }, limited(1)),
        (Fault::RateLimit { reset_secs: 100_000 }, limited(3600)),
        (Fault::SecondaryRateLimit, limited(60)),
        (Fault::Status(500), ErrorKind::Unavailable),
        (Fault::Status(502), ErrorKind::Unavailable),
        (Fault::Status(503), ErrorKind::Unavailable),
        (Fault::Status(422), ErrorKind::Invalid),
        (Fault::Status(301), ErrorKind::Invalid),
        (Fault::Revoked, ErrorKind::Auth),
        (Fault::Garbage, ErrorKind::Protocol),
    ] {
        host.disturb_next(fault, 1);
        let error = client.pull_request(&repo, 1).await.unwrap_err();
        assert_eq!(error.kind, wanted, "{fault:?}: {error}");
    }
    host.disturb_next(Fault::RateLimit { reset_secs: 90 }, 1);
    let ErrorKind::RateLimited { retry_after } = client.pull_request(&repo, 1).await.unwrap_err().kind else {
        panic!()
    };
    // The header tells a second of the clock, and one may pass meanwhile.
    assert!((85..=90).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert_eq!(client.pull_request(&repo, 1).await, Ok(None), "and then it goes on");
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_not_told() {
    let (host, _, repo) = host().await;
    let stranger = GitHub::new(&host.api_url(), "http://127.0.0.1", token("ghs_wrong"), Arc::new(SystemClock)).unwrap();
    let error = stranger.pull_request(&repo, 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(!format!("{error:?} {error}").contains("ghs_wrong"));
}

#[tokio::test]
async fn a_repository_that_cannot_be_seen_is_not_one_without_the_pull_request() {
    let (host, client, repo) = host().await;
    let number = host.open_pull_request(REPO, "main", "t").await;
    assert_eq!(client.pull_request(&repo, number + 1).await, Ok(None));
    host.hide_repo(REPO, true);
    let error = client.pull_request(&repo, number).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(error.message.contains("acme/shop cannot be seen with these credentials"), "{error}");
    host.hide_repo(REPO, false);
    assert_eq!(client.pull_request(&repo, number).await.unwrap().map(|pull| pull.number), Some(number));
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn every_call_has_a_deadline() {
    let (host, _, repo) = host().await;
    let client = with_token(&host).with_deadline(Duration::from_millis(200));
    host.disturb_next(Fault::Slow(Duration::from_secs(60)), 1);
    let call = tokio::time::timeout(Duration::from_secs(20), client.pull_request(&repo, 1));
    let error = call.await.expect("the client's own deadline").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_comment_whose_answer_was_lost_is_not_posted_twice() {
    let (host, _, repo) = host().await;
    let number = host.open_pull_request(REPO, "main", "t").await;
    let client = with_token(&host);
    // The list is answered, the post is not.
    host.disturb_next(Fault::Slow(Duration::ZERO), 1);
    host.disturb_next(Fault::Status(502), 1);
    let marker = "<!-- stagely:env_1 -->";
    assert_eq!(client.ensure_comment(&repo, number, marker, None, "x").await.unwrap_err().kind, ErrorKind::Unavailable);
    client.ensure_comment(&repo, number, marker, None, "x").await.unwrap();
    client.ensure_comment(&repo, number, marker, None, "x").await.unwrap();
    assert_eq!(host.comments(REPO, number).len(), 1);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unavailable() {
    install_tls();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client =
        GitHub::new(&format!("http://127.0.0.1:{port}"), "http://x", token("x"), Arc::new(SystemClock)).unwrap();
    assert_eq!(client.pull_request(&REPO.parse().unwrap(), 1).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn requests_outside_githubs_document_are_refused_and_remembered() {
    let (host, _, _) = host().await;
    let client = reqwest::Client::new();
    let ask = |method: reqwest::Method, path: &str| {
        let request =
            client.request(method, format!("{}{path}", host.api_url())).bearer_auth(stagely_forge::testing::TOKEN);
        request.header("accept", "application/vnd.github+json").header("user-agent", "stagely")
    };
    let versioned = |request: reqwest::RequestBuilder| request.header("x-github-api-version", "2022-11-28");
    let comments = "/repos/acme/shop/issues/1/comments";
    let post = || versioned(ask(reqwest::Method::POST, comments));
    let cases = [
        (404, versioned(ask(reqwest::Method::GET, "/repos/acme/shop/nothing"))),
        (422, versioned(ask(reqwest::Method::GET, "/repos/acme/shop/pulls?state=broken"))),
        (422, versioned(ask(reqwest::Method::GET, "/repos/acme/shop/pulls?sate=open"))),
        (422, ask(reqwest::Method::GET, "/repos/acme/shop/pulls")),
        (422, post()),
        (422, post().body("{")),
        (422, post().json(&serde_json::json!({"body": 5}))),
        (422, post().json(&serde_json::json!({"body": "x", "bdoy": "y"}))),
    ];
    let count = cases.len();
    for (wanted, request) in cases {
        assert_eq!(request.send().await.unwrap().status().as_u16(), wanted);
    }
    assert_eq!(host.violations().len(), count, "{:?}", host.violations());
}

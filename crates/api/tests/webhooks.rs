//! What may come to the webhook's door, and what becomes of it.

use reqwest::RequestBuilder;
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{OLD_WEBHOOK_SECRET, Stand, WEBHOOK_SECRET, Wish, read};

fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

fn opened() -> Vec<u8> {
    json!({ "action": "opened", "number": 12, "repository": { "id": 1, "full_name": "own/shop" } })
        .to_string()
        .into_bytes()
}

impl Stand {
    /// A delivery with every header but the signature.
    fn unsigned(&self, event: &str, guid: &str, body: Vec<u8>) -> RequestBuilder {
        self.http
            .post(format!("{}/webhooks/github", self.url))
            .header("content-type", "application/json")
            .header("x-github-event", event)
            .header("x-github-delivery", guid)
            .body(body)
    }

    async fn deliver(&self, event: &str, guid: &str, body: Vec<u8>) -> (u16, Value) {
        let signature = signature(WEBHOOK_SECRET, &body);
        read(self.unsigned(event, guid, body).header("x-hub-signature-256", signature).send().await.unwrap()).await
    }

    async fn stored(&self) -> String {
        self.db.text("SELECT count(*) FROM inbox").await
    }
}

#[test]
fn the_published_test_vector_of_github_holds() {
    assert_eq!(
        signature(WEBHOOK_SECRET, b"Hello, World!"),
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    );
}

#[tokio::test]
async fn a_signed_delivery_is_stored_once_and_wakes_the_orchestrator() {
    let stand = Stand::start().await;
    let guid = Uuid::new_v4().to_string();
    let (status, receipt) = stand.deliver("pull_request", &guid, opened()).await;
    assert_eq!((status, receipt["outcome"].as_str().unwrap()), (202, "stored"));
    let row = "SELECT event || ' ' || action || ' ' || repo || ' ' || pr_number FROM inbox WHERE decision IS NULL";
    assert_eq!(stand.db.text(row).await, "pull_request opened own/shop 12");
    let woken = "SELECT count(*) FROM work w JOIN inbox i ON w.key = i.id WHERE w.kind = 'inbox' AND w.wake_seq = 1";
    assert_eq!(stand.db.text(woken).await, "1");

    let (status, again) = stand.deliver("pull_request", &guid, opened()).await;
    assert_eq!((status, again["outcome"].as_str().unwrap()), (202, "duplicate"));
    assert_eq!(again["delivery"], receipt["delivery"]);
    assert_eq!(stand.stored().await, "1");
    assert_eq!(stand.db.text(woken).await, "1", "a replay wakes nobody");
    stand.stop().await;
}

#[tokio::test]
async fn an_unsigned_or_wrongly_signed_delivery_leaves_nothing() {
    let stand = Stand::start().await;
    let body = opened();
    let good = signature(WEBHOOK_SECRET, &body);
    let mut flipped = good.clone().into_bytes();
    *flipped.last_mut().unwrap() ^= 1;
    let guid = Uuid::new_v4().to_string();
    let request = || stand.unsigned("pull_request", &guid, body.clone());
    let cases = [
        ("missing", request()),
        ("one bit flipped", request().header("x-hub-signature-256", flipped)),
        ("sha1 only", request().header("x-hub-signature", "sha1=0000000000000000000000000000000000000000")),
        ("two headers", request().header("x-hub-signature-256", &good).header("x-hub-signature-256", &good)),
        ("no prefix", request().header("x-hub-signature-256", good.strip_prefix("sha256=").unwrap())),
        ("another secret", request().header("x-hub-signature-256", signature("guess", &body))),
        ("an empty secret", request().header("x-hub-signature-256", signature("", &body))),
        ("another body", request().header("x-hub-signature-256", signature(WEBHOOK_SECRET, b"{}"))),
    ];
    for (name, request) in cases {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{name}");
        let (_, problem) = read(response).await;
        assert_eq!(problem["code"], "bad_signature", "{name}");
    }
    assert_eq!(stand.stored().await, "0");
    stand.stop().await;
}

#[tokio::test]
async fn both_secrets_count_while_one_is_being_replaced() {
    let stand = Stand::start().await;
    let guid = Uuid::new_v4().to_string();
    let signature = signature(OLD_WEBHOOK_SECRET, &opened());
    let request = stand.unsigned("pull_request", &guid, opened()).header("x-hub-signature-256", signature);
    assert_eq!(request.send().await.unwrap().status(), 202);
    stand.stop().await;
}

#[tokio::test]
async fn a_delivery_that_is_too_long_is_refused() {
    let stand = Stand::start_with(Wish { max_webhook_bytes: Some(1000), ..Wish::default() }).await;
    let (status, problem) = stand.deliver("pull_request", &Uuid::new_v4().to_string(), vec![b' '; 1001]).await;
    assert_eq!((status, problem["code"].as_str().unwrap()), (413, "too_large"));
    assert_eq!(stand.stored().await, "0");
    stand.stop().await;
}

#[tokio::test]
async fn a_malformed_delivery_is_told_what_is_wrong() {
    let stand = Stand::start().await;
    let guid = Uuid::new_v4().to_string();
    let bodies: [(&str, Vec<u8>, &str); 6] = [
        ("pull_request", b"{".to_vec(), "JSON"),
        ("pull_request", b"[]".to_vec(), "`action`"),
        ("pull_request", b"\xff\xfe".to_vec(), "JSON"),
        ("pull_request", b"{}".to_vec(), "`action`"),
        ("pull_request", br#"{"action":"opened","number":1}"#.to_vec(), "`repository.full_name`"),
        ("pull_request", br#"{"action":"opened","repository":{"id":1,"full_name":"a/b"}}"#.to_vec(), "`number`"),
    ];
    for (event, body, named) in bodies {
        let (status, problem) = stand.deliver(event, &guid, body).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    let headers = [("pull_request", "not-a-uuid", "x-github-delivery"), ("", guid.as_str(), "x-github-event")];
    for (event, guid, named) in headers {
        let (status, problem) = stand.deliver(event, guid, opened()).await;
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    assert_eq!(stand.stored().await, "0");
    stand.stop().await;
}

#[tokio::test]
async fn an_event_of_no_interest_is_kept_with_the_reason_and_a_ping_is_answered() {
    let stand = Stand::start().await;
    let body = json!({ "repository": { "full_name": "own/shop" } }).to_string().into_bytes();
    let (status, receipt) = stand.deliver("star", &Uuid::new_v4().to_string(), body).await;
    assert_eq!((status, receipt["outcome"].as_str().unwrap()), (202, "ignored"));
    let decided = "SELECT decision || ': ' || reason FROM inbox WHERE applied_at IS NOT NULL";
    assert_eq!(stand.db.text(decided).await, "ignored: Stagely does not act on `star` events");
    assert_eq!(stand.db.text("SELECT count(*) FROM work").await, "0");

    let (status, receipt) = stand.deliver("ping", &Uuid::new_v4().to_string(), b"{\"zen\": \"\"}".to_vec()).await;
    assert_eq!((status, receipt["outcome"].as_str().unwrap()), (200, "pong"));
    assert_eq!(stand.stored().await, "1");
    stand.stop().await;
}

#[tokio::test]
async fn a_delivery_while_the_database_is_away_fails_so_that_the_sweep_sees_it() {
    let stand = Stand::start().await;
    stand.db.execute("ALTER TABLE inbox RENAME TO inbox_away").await;
    let (status, problem) = stand.deliver("pull_request", &Uuid::new_v4().to_string(), opened()).await;
    assert_eq!((status, problem["code"].as_str().unwrap()), (503, "unavailable"));
    assert!(problem["instance"].as_str().unwrap().starts_with("urn:uuid:"));
    let text = problem.to_string();
    assert!(!text.contains("inbox") && !text.contains("SELECT") && !text.contains("INSERT"), "{text}");
    stand.stop().await;
}

//! Logs as text and as events.

use std::time::Duration;

use reqwest::Method;

use crate::support::{Stand, World};

/// A followed log.
struct Events {
    response: reqwest::Response,
    received: String,
}

impl Events {
    /// Everything received, as soon as it holds `text`.
    async fn until(&mut self, text: &str) -> String {
        let wait = async {
            while !self.received.contains(text) {
                let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
                self.received.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("no `{text}` in time"));
        self.received.clone()
    }
}

impl Stand {
    async fn events(&self, world: &World, last: Option<&str>) -> Events {
        let path = format!("/api/v1/builds/{}/logs", world.build);
        let mut request = self.request(Method::GET, &path, &world.viewer).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, received: String::new() }
    }

    async fn append(&self, world: &World, offset: u32, text: &str) {
        let stream = world.stream.uuid();
        let sql =
            format!("INSERT INTO build_logs (stream_id, byte_offset, content) VALUES ('{stream}', {offset}, '{text}')");
        self.db.execute(&sql).await;
    }
}

#[tokio::test]
async fn a_log_reads_as_text_from_the_build_and_from_the_environment() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    stand.append(&world, 6, "world").await;
    let (_, streams) = stand.get(&format!("/api/v1/environments/{}/logs", world.environment), &world.viewer).await;
    assert_eq!(streams["items"][0]["name"], "build/1");
    let stream = streams["items"][0]["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/builds/{}/logs", world.build),
        format!("/api/v1/environments/{}/logs/{stream}", world.environment),
    ] {
        let (status, text) = stand.get(&path, &world.viewer).await;
        assert_eq!((status, text.as_str().unwrap()), (200, "hello\nworld"));
    }
    let (_, rest) = stand.get(&format!("/api/v1/builds/{}/logs?from=6", world.build), &world.viewer).await;
    assert_eq!(rest.as_str().unwrap(), "world");
    stand.stop().await;
}

#[tokio::test]
async fn a_followed_log_grows_resumes_where_it_was_left_and_ends() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let mut events = stand.events(&world, None).await;
    let first = events.until("hello").await;
    assert!(first.contains("event: log"), "{first}");
    stand.append(&world, 6, "second").await;
    let both = events.until("second").await;
    let last = both.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();

    stand.append(&world, 12, "third").await;
    let mut resumed = stand.events(&world, Some(&last)).await;
    let text = resumed.until("third").await;
    assert!(!text.contains("hello") && !text.contains("second"), "{text}");
    stand.db.execute("UPDATE log_streams SET closed_at = now()").await;
    resumed.until("event: end").await;
    stand.stop().await;
}

#[tokio::test]
async fn a_followed_log_does_not_hold_up_a_shutdown() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let mut events = stand.events(&world, None).await;
    events.until("hello").await;
    stand.stop().await;
}

#[tokio::test]
async fn a_bad_last_event_id_is_refused() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let path = format!("/api/v1/builds/{}/logs", world.build);
    let request = stand.request(Method::GET, &path, &world.viewer).header("last-event-id", "soon");
    assert_eq!(request.send().await.unwrap().status(), 400);
    stand.stop().await;
}

use stagely_domain::route::{Notice, State};

use crate::rig::{Rig, free, redis_url};

#[tokio::test(flavor = "multi_thread")]
async fn every_state_has_its_page_and_strangers_text_stays_text() {
    let rig = Rig::start().await;
    assert!(rig.until("nobody.example", |answer| answer.starts_with("HTTP/1.1 404")).await.contains("x-stagely: edge"));
    let notice = Notice {
        title: "<script>alert(1)</script>".to_owned(),
        text: "image \"web\" did not build".to_owned(),
        url: "javascript:alert(1)".to_owned(),
    };
    for (state, status) in [(State::Waiting, 503), (State::Failed, 502), (State::Gone, 410), (State::Asleep, 503)] {
        let entry = rig.route("a.example", state, None, notice.clone()).await;
        let answer = rig.until("a.example", |answer| answer.starts_with(&format!("HTTP/1.1 {status}"))).await;
        assert!(answer.contains("&lt;script&gt;") && !answer.contains("<script>") && !answer.contains("javascript:"));
        assert!(answer.contains("cache-control: no-store"));
        if state == State::Asleep {
            let asked = async || rig.cache.list_wakes().await.unwrap().contains(&entry.environment);
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
            while !asked().await {
                assert!(tokio::time::Instant::now() < deadline, "nobody was asked to wake it");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    let json =
        rig.raw(b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: application/json\r\nConnection: close\r\n\r\n").await;
    assert!(json.contains("application/problem+json") && json.contains("\"status\":503"), "{json}");
}

const NOBODY: &[u8] = b"GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n";

/// Not even that there is no such preview is known before all were read.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_does_not_know_its_routes_asks_for_patience_and_is_not_ready() {
    let rig = Rig::start_with(&redis_url()).await;
    // It can ask Redis, which has nothing: what matters is that no answer of it is believed.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let answer = rig.raw(NOBODY).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 2"), "{answer}");
    assert!(!rig.is_ready().await);
    rig.cache.rebuild_routes(&[], 0).await.unwrap();
    rig.until("nobody.example", |answer| answer.starts_with("HTTP/1.1 404")).await;
    assert!(rig.is_ready().await);
    rig.cache.lose_everything_for_tests().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert!(rig.raw(NOBODY).await.starts_with("HTTP/1.1 404") && rig.is_ready().await, "what it knew, it knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_starts_without_redis_and_finds_it_when_it_is_there() {
    let (real, door) = (redis_url(), free().await);
    let host = real.split(['/', '@']).rfind(|part| part.contains(':') && !part.ends_with(':')).unwrap().to_owned();
    let rig = Rig::start_with(&real.replace(&host, &door.to_string())).await;
    assert!(rig.raw(NOBODY).await.starts_with("HTTP/1.1 503"));
    rig.cache.rebuild_routes(&[], 0).await.unwrap();
    let listener = tokio::net::TcpListener::bind(door).await.unwrap();
    let passing = tokio_util::task::TaskTracker::new();
    let passed = passing.clone();
    passing.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let host = host.clone();
            passed.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(host).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    rig.until("nobody.example", |answer| answer.starts_with("HTTP/1.1 404")).await;
    assert!(rig.is_ready().await);
}

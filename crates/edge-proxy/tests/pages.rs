use stagely_domain::route::{Notice, State};

use crate::rig::Rig;

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

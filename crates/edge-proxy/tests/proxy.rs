use std::sync::atomic::Ordering;

use stagely_domain::id::MachineId;

use crate::rig::Rig;

const HELLO: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Stagely: forged\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nhello";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_its_machine_with_our_fields_and_its_answer_comes_back_without_the_hops() {
    let rig = Rig::start().await;
    let machine = rig.machine(HELLO).await;
    rig.lead("a.example", &machine).await;
    let answer = rig
        .raw(b"GET /x?y=1 HTTP/1.1\r\nHost: A.example:80\r\nX-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX-Stagely-User: root\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(answer.contains("x-robots-tag: noindex") && !answer.contains("forged") && !answer.contains("x-hop"));
    let heard = String::from_utf8(machine.heard.lock().await.clone()).unwrap();
    assert!(heard.contains("GET /x?y=1 HTTP/1.1\r\n") && heard.contains("x-forwarded-for: 127.0.0.1\r\n"), "{heard}");
    assert!(!heard.contains("6.6.6.6") && !heard.to_lowercase().contains("x-stagely-user"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_machine_are_used_again() {
    let rig = Rig::start().await;
    let machine = rig.machine(HELLO).await;
    rig.lead("a.example", &machine).await;
    let before = machine.connections.load(Ordering::SeqCst);
    for _ in 0..20 {
        let answer = rig.raw(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("hello"), "{answer}");
    }
    assert!(machine.connections.load(Ordering::SeqCst) - before <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_two_readers_could_read_differently_are_refused() {
    let rig = Rig::start().await;
    let machine = rig.machine(HELLO).await;
    rig.lead("a.example", &machine).await;
    machine.heard.lock().await.clear();
    for bad in [
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ] {
        let answer = rig.raw(bad.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 405"), "{bad:?}: {answer}");
    }
    assert!(machine.heard.lock().await.is_empty(), "a refused request reached the machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_forwarded_with_one_length() {
    let rig = Rig::start().await;
    let machine = rig.machine(HELLO).await;
    rig.lead("a.example", &machine).await;
    machine.heard.lock().await.clear();
    let chunked = b"POST /in HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nwiki\r\n0\r\n\r\n";
    assert!(rig.raw(chunked).await.ends_with("hello"));
    let heard = String::from_utf8(machine.heard.lock().await.clone()).unwrap();
    assert!(heard.contains("transfer-encoding: chunked\r\n") && !heard.contains("content-length"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n4\r\nwiki\r\n0\r\n\r\n"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_as_it_should_be_is_a_502() {
    let rig = Rig::start().await;
    let bad: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ];
    for (index, answer) in bad.into_iter().enumerate() {
        let machine = rig.machine(answer).await;
        let host = format!("bad{index}.example");
        rig.lead(&host, &machine).await;
        let answer = rig.until(&host, |_| true).await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("x-stagely: edge"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_another_at_the_same_address_is_sent_nothing() {
    let rig = Rig::start().await;
    let machine = rig.machine_as(MachineId::generate(), MachineId::generate(), HELLO).await;
    rig.lead("a.example", &machine).await;
    let answer = rig.until("a.example", |_| true).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(machine.heard.lock().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_are_served_while_redis_has_lost_everything() {
    let rig = Rig::start().await;
    let machine = rig.machine(HELLO).await;
    rig.lead("a.example", &machine).await;
    rig.cache.lose_everything_for_tests().await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(rig.until("a.example", |_| true).await.ends_with("hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_in_the_files_are_used_for_the_next_connection() {
    let mut rig = Rig::start().await;
    let older = rig.machine(HELLO).await;
    rig.lead("old.example", &older).await;
    assert!(rig.until("old.example", |_| true).await.ends_with("hello"));
    rig.change_authority();
    let machine = rig.machine(HELLO).await;
    rig.lead("new.example", &machine).await;
    rig.until("new.example", |answer| answer.ends_with("hello")).await;
}

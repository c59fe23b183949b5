//! WebSockets, as the two who talk over one see it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{Machine, Rig};

/// Shorter than requests under way are waited for when the edge stops.
const DEADLINE: Duration = Duration::from_secs(8);

/// The machine's consent, with the first words of the new protocol right behind.
const CONSENT: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Stagely: forged\r\n\r\nwelcome";
/// The visitor's wish, likewise.
const WISH: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly";

/// A machine behind `a.example` that speaks another protocol to whoever asks for it.
async fn socket(rig: &Rig) -> Machine {
    let machine = rig.machine(CONSENT).await;
    rig.lead("a.example", &machine).await;
    machine
}

/// A visitor who has come so far; the head that the edge sent.
async fn switched(rig: &Rig) -> (TcpStream, String) {
    let mut visitor = TcpStream::connect(rig.edge).await.unwrap();
    visitor.write_all(WISH).await.unwrap();
    let heard = hear(&mut visitor, "\r\n\r\nwelcomeearly").await;
    (visitor, heard)
}

/// Reads until these are the last words.
async fn hear(visitor: &mut TcpStream, words: &str) -> String {
    let mut heard = Vec::new();
    let listen = async {
        while !heard.ends_with(words.as_bytes()) {
            if visitor.read_buf(&mut heard).await.unwrap() == 0 {
                return;
            }
        }
    };
    let came = timeout(DEADLINE, listen).await.is_ok();
    let heard = String::from_utf8(heard).unwrap();
    assert!(came && heard.ends_with(words), "{heard}");
    heard
}

/// Reads until the edge ends the connection, in whatever way.
async fn hear_the_end(visitor: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let ended = timeout(DEADLINE, visitor.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the connection is still open");
    String::from_utf8(heard).unwrap()
}

/// Waits until the machine has heard this.
async fn reaches(machine: &Machine, words: &str) {
    let listen = async {
        while !String::from_utf8_lossy(&machine.heard.lock().await).contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(DEADLINE, listen).await.is_ok(), "the machine never heard {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_talks_both_ways_from_the_first_byte_behind_either_head() {
    let rig = Rig::start().await;
    let machine = socket(&rig).await;
    let (mut visitor, head) = switched(&rig).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("x-robots-tag: noindex\r\n") && !head.contains("forged"), "{head}");
    for words in ["\u{1}\u{0}frames of any kind", "and more"] {
        visitor.write_all(words.as_bytes()).await.unwrap();
        hear(&mut visitor, words).await;
    }
    reaches(&machine, "GET /ws HTTP/1.1\r\n").await;
    reaches(&machine, "connection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_for_both_when_either_leaves() {
    let rig = Rig::start().await;
    let machine = socket(&rig).await;
    let (mut visitor, _) = switched(&rig).await;
    visitor.write_all(b"bye").await.unwrap();
    hear_the_end(&mut visitor).await;

    let (mut visitor, _) = switched(&rig).await;
    visitor.write_all(b"farewell").await.unwrap();
    hear(&mut visitor, "farewell").await;
    drop(visitor);
    reaches(&machine, "earlyfarewell").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_stops_ends_websockets_at_once_and_waits_for_a_request_under_way() {
    let rig = Rig::start().await;
    let machine = socket(&rig).await;
    let (mut visitor, _) = switched(&rig).await;
    let mut slow = TcpStream::connect(rig.edge).await.unwrap();
    slow.write_all(b"POST /slow HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    reaches(&machine, "POST /slow HTTP/1.1\r\n").await;
    drop(rig);
    hear_the_end(&mut visitor).await;
    reaches(&machine, "early").await;
    slow.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = hear_the_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "it was not asked to switch: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_switch_protocols_answers_as_to_any_request() {
    let rig = Rig::start().await;
    let machine = rig.machine(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    rig.lead("a.example", &machine).await;
    let wish = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = rig.raw(wish).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
}

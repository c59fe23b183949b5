//! Protocol switches (WebSocket, RFC 6455): after the 101 bytes are passed on both ways as they are.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::headers;
use crate::upstream::Body;

/// The protocol that a request asks to switch to.
pub fn wanted(fields: &HeaderMap) -> Option<HeaderValue> {
    let asks = fields.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|list| list.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    });
    // HTTP/2 over clear text is a hop's own affair.
    let protocol = fields.get(UPGRADE).filter(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"));
    protocol.filter(|_| asks).cloned()
}

/// The 101 as the visitor gets it.
pub fn switched(fields: &HeaderMap, protocol: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers::response_fields(fields);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}

/// How long one side may be silent once the other has ended.
const PATIENCE: Duration = Duration::from_secs(60);
const BUFFER: usize = 8 * 1024;

/// Passes bytes on until both sides have ended, or shutdown.
pub async fn relay(
    visitor: OnUpgrade,
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    first: Bytes,
    shutdown: CancellationToken,
) {
    let Ok(visitor) = visitor.await else { return };
    let mut visitor = TokioIo::new(visitor);
    // What came behind the machine's head belongs to the new protocol.
    if visitor.write_all(&first).await.is_err() {
        return;
    }
    tokio::select! {
        // How a conversation of theirs ends is theirs.
        _ = both_ways(tokio::io::split(visitor), (reader, writer), PATIENCE) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Until both sides have ended. A side that does not end after the other has it for as long as it says something.
async fn both_ways(
    mut visitor: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    mut machine: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    patience: Duration,
) -> Result<((), ())> {
    let ended = CancellationToken::new();
    tokio::try_join!(
        pass(&mut visitor.0, &mut machine.1, &ended, patience),
        pass(&mut machine.0, &mut visitor.1, &ended, patience),
    )
}

/// Passes on what one side says, and in the end that it ended.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    ended: &CancellationToken,
    patience: Duration,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let piece = async {
            let length = from.read(&mut buffer).await?;
            to.write_all(&buffer[..length]).await?;
            to.flush().await?;
            Ok::<_, Error>(length)
        };
        let silence = async {
            ended.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        let length = tokio::select! {
            length = piece => length?,
            () = silence => return Err(ErrorKind::TimedOut.into()),
        };
        if length == 0 {
            ended.cancel();
            return timeout(patience, to.shutdown()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
    use tokio::time::{sleep, timeout};
    use tokio_util::task::TaskTracker;

    use super::both_ways;

    const PATIENCE: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_visitor_who_left_is_not_waited_for_by_a_machine_that_ignores_it() {
        let (mut visitor, near) = duplex(64);
        let (mut machine, far) = duplex(64);
        let relay = TaskTracker::new().spawn(both_ways(split(near), split(far), PATIENCE));
        let mut heard = [0; 5];
        visitor.write_all(b"hello").await.unwrap();
        machine.read_exact(&mut heard).await.unwrap();
        // While neither has left, silence is no end.
        sleep(PATIENCE * 2).await;
        assert!(!relay.is_finished());
        visitor.shutdown().await.unwrap();
        assert!(timeout(DEADLINE, relay).await.unwrap().unwrap().is_err());
        assert_eq!(machine.read(&mut heard).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_still_said_after_one_side_ended_is_heard_to_its_end() {
        let (mut visitor, near) = duplex(64);
        let (mut machine, far) = duplex(64);
        let relay = TaskTracker::new().spawn(both_ways(split(near), split(far), PATIENCE));
        visitor.shutdown().await.unwrap();
        for _ in 0..8 {
            sleep(PATIENCE / 4).await;
            machine.write_all(b"word").await.unwrap();
        }
        drop(machine);
        let mut heard = String::new();
        timeout(DEADLINE, visitor.read_to_string(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, "word".repeat(8));
        timeout(DEADLINE, relay).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_side_that_ended_and_reads_nothing_does_not_keep_the_relay() {
        let (mut visitor, near) = duplex(64);
        let (mut machine, far) = duplex(64);
        let relay = TaskTracker::new().spawn(both_ways(split(near), split(far), PATIENCE));
        visitor.shutdown().await.unwrap();
        let chatter = async { while machine.write_all(&[0; 64]).await.is_ok() {} };
        timeout(DEADLINE, chatter).await.unwrap();
        assert!(timeout(DEADLINE, relay).await.unwrap().unwrap().is_err());
    }
}

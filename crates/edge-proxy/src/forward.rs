//! One request, from its route to its answer, in one task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use stagely_domain::route::{Entry, State};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::headers::{self, RequestFraming};
use crate::hints::Hints;
use crate::route::{self, Routes};
use crate::upstream::{
    AnswerFraming, Body, Connection, Head, Key, Pool, Return, Tls, Upload, UpstreamError, read_head,
};
use crate::{respond, upgrade};

/// How long a service may take to begin its answer, from the last byte of the request on that moved.
const ANSWER: Duration = Duration::from_secs(120);

type Writer = WriteHalf<TlsStream<TcpStream>>;

/// What one core works with.
pub struct Worker {
    pub routes: Arc<Routes>,
    pub hints: Arc<Hints>,
    pub tls: Tls,
    pub pool: Arc<Pool>,
    pub relays: TaskTracker,
    pub shutdown: CancellationToken,
    pub requests: Arc<AtomicU64>,
}

impl Worker {
    /// Answers one request.
    pub async fn serve(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let host = match headers::host(&request) {
            Ok(host) => host,
            Err((status, why)) => return closing(respond::refused(request.headers(), status, why)),
        };
        let Some(entry) = self.routes.find(&host) else {
            return if self.routes.are_whole() {
                respond::unknown(request.headers())
            } else {
                respond::starting(request.headers())
            };
        };
        let (State::Ready, Some(target)) = (entry.state, &entry.target) else {
            if entry.state == State::Asleep {
                self.hints.wake(entry.environment);
            }
            return respond::standing(request.headers(), &entry);
        };
        let Some(exposure) = route::exposure(target, request.uri().path()) else {
            return respond::unknown(request.headers());
        };
        let key = Key {
            machine: target.machine,
            address: target.address.clone(),
            exposure: exposure.to_owned(),
            version: entry.version,
        };
        self.hints.seen(entry.environment);
        self.forward(request, peer, key, &entry).await
    }

    async fn forward(&self, request: Request<Incoming>, peer: SocketAddr, key: Key, entry: &Entry) -> Response<Body> {
        let accept = accept_only(request.headers());
        match self.exchange(request, peer, key).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(env.id = %entry.environment, %error, "no answer from {}", entry.environment);
                closing(respond::unreachable(&accept, entry, &error.to_string()))
            }
        }
    }

    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        key: Key,
    ) -> Result<Response<Body>, UpstreamError> {
        let upgrade = upgrade::wanted(request.headers());
        let framing = match request.body().size_hint().exact() {
            Some(0) => RequestFraming::None,
            Some(length) => RequestFraming::Length(length),
            None => RequestFraming::Chunked,
        };
        let head = headers::request_head(&request, peer, framing, upgrade.as_ref());
        let method = request.method().clone();
        let visitor = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        // A request without a body may be sent again, if a rested connection turns out to be dead before any answer.
        let again = framing == RequestFraming::None && method.is_idempotent();
        let mut body = Some(request.into_body());
        loop {
            let connection = match self.pool.take(&key).filter(|_| upgrade.is_none()) {
                Some(connection) => connection,
                None => self.tls.connect(&key).await.map_err(UpstreamError::Connect)?,
            };
            let Connection { mut reader, writer, fresh } = connection;
            let (done, back) = oneshot::channel();
            let payload = if framing == RequestFraming::None { None } else { body.take() };
            let sent = Arc::new(AtomicU64::new(0));
            let upload = send(writer, head.clone(), payload, framing, Arc::clone(&sent), done);
            let mut sending: Option<Upload> = Some(Box::pin(upload));
            let mut buffer = BytesMut::with_capacity(8 * 1024);
            let answer = match both(&mut sending, &sent, read_head(&mut reader, &mut buffer, &method)).await {
                Ok(answer) => answer,
                Err(UpstreamError::Closed) if again && !fresh => continue,
                Err(error) => return Err(error),
            };
            if answer.status == StatusCode::SWITCHING_PROTOCOLS {
                let (Some(visitor), Some(protocol)) = (visitor, upgrade) else {
                    return Err(UpstreamError::Malformed("it switches protocols unasked"));
                };
                let mut back = back;
                let writer = back.try_recv().map_err(|_| UpstreamError::Closed)?;
                self.relays.spawn(upgrade::relay(visitor, reader, writer, buffer.freeze(), self.shutdown.clone()));
                return Ok(upgrade::switched(&answer.fields, protocol));
            }
            let back = answer.keeps.then(|| Return { pool: Arc::clone(&self.pool), key: key.clone(), writer: back });
            return Ok(response(answer, reader, buffer, sending, back));
        }
    }
}

/// Polls the upload until the head is there; whichever ends first does not stop the other. `sent` grows with the upload, and
/// as long as it does, there is time.
async fn both<T>(
    sending: &mut Option<Upload>,
    sent: &AtomicU64,
    head: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    let patience = tokio::time::sleep(ANSWER);
    tokio::pin!(head, patience);
    let mut known = 0;
    loop {
        let uploading = async {
            match sending.as_mut() {
                // A machine may answer and close without reading all: its answer is waited for in any case.
                Some(upload) => {
                    let _ = upload.await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = uploading => {
                *sending = None;
                patience.as_mut().reset(Instant::now() + ANSWER);
            }
            answer = &mut head => return answer,
            () = &mut patience => {
                let now = sent.load(Ordering::Relaxed);
                if sending.is_none() || now == known {
                    return Err(UpstreamError::Timeout);
                }
                known = now;
                patience.as_mut().reset(Instant::now() + ANSWER);
            }
        }
    }
}

/// Writes head and body, and gives the writer back when all is written. `sent` is how much of the body is.
async fn send(
    mut writer: Writer,
    head: Vec<u8>,
    body: Option<Incoming>,
    framing: RequestFraming,
    sent: Arc<AtomicU64>,
    done: oneshot::Sender<Writer>,
) -> std::io::Result<()> {
    writer.write_all(&head).await?;
    if let Some(mut body) = body {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionAborted))?;
            let Ok(data) = frame.into_data() else { continue };
            piece(&mut writer, &data, framing).await?;
            sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if framing == RequestFraming::Chunked {
            writer.write_all(b"0\r\n\r\n").await?;
        }
    }
    writer.flush().await?;
    // Nobody waits for it when the answer was cut short.
    let _ = done.send(writer);
    Ok(())
}

async fn piece(writer: &mut Writer, data: &Bytes, framing: RequestFraming) -> std::io::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    if framing == RequestFraming::Chunked {
        writer.write_all(format!("{:x}\r\n", data.len()).as_bytes()).await?;
        writer.write_all(data).await?;
        writer.write_all(b"\r\n").await?;
    } else {
        writer.write_all(data).await?;
    }
    writer.flush().await
}

fn response(
    answer: Head,
    reader: tokio::io::ReadHalf<TlsStream<TcpStream>>,
    buffer: BytesMut,
    sending: Option<Upload>,
    back: Option<Return>,
) -> Response<Body> {
    let fields = headers::response_fields(&answer.fields);
    let length = answer.fields.get(header::CONTENT_LENGTH).cloned();
    let mut response = Response::new(Body::streamed(reader, buffer, sending, answer.framing, back));
    *response.status_mut() = answer.status;
    *response.headers_mut() = fields;
    // An answer to HEAD says how long the body would be.
    if let (AnswerFraming::None, Some(length)) = (answer.framing, length)
        && answer.status != StatusCode::NO_CONTENT
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    response
}

/// A refused visitor's connection is not read on.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn accept_only(headers: &HeaderMap) -> HeaderMap {
    let mut only = HeaderMap::new();
    if let Some(value) = headers.get(header::ACCEPT) {
        only.insert(header::ACCEPT, value.clone());
    }
    only
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{ANSWER, both};
    use crate::upstream::{Upload, UpstreamError};

    /// So many pieces, a minute for each.
    fn slow(pieces: u64, sent: &Arc<AtomicU64>) -> Upload {
        let sent = Arc::clone(sent);
        Box::pin(async move {
            for _ in 0..pieces {
                sleep(Duration::from_secs(60)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_takes_nothing_from_the_time_for_the_answer() {
        let sent = Arc::default();
        let head = async {
            sleep(Duration::from_secs(60 * 60) + ANSWER - Duration::from_secs(1)).await;
            Ok("answer")
        };
        let mut sending = Some(slow(60, &sent));
        assert!(matches!(both(&mut sending, &sent, head).await, Ok("answer")));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_moves_and_no_answer_is_the_end() {
        let sent = Arc::default();
        let uploads: [(Upload, Duration); 3] = [
            (Box::pin(pending()), ANSWER),
            (Box::pin(async { Ok(()) }), ANSWER),
            (slow(10, &sent), Duration::from_secs(600) + ANSWER),
        ];
        for (upload, wanted) in uploads {
            let begun = Instant::now();
            let answer = both(&mut Some(upload), &sent, pending::<Result<(), _>>()).await;
            assert!(matches!(answer, Err(UpstreamError::Timeout)));
            assert_eq!(begun.elapsed().as_secs(), wanted.as_secs());
        }
    }
}

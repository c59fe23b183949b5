//! One connection: handshake, then frames in both directions until it ends. Reading never waits for writing, so
//! a hub that is slow to take logs still gets its wishes through.

use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, header};
use prost::Message as _;
use stagely_domain::error_chain::chain;
use stagely_domain::secret::Secret;
use stagely_proto::agent::agent_frame::Body as Up;
use stagely_proto::agent::hub_frame::Body as Down;
use stagely_proto::agent::{AgentFrame, Hello, HubFrame, Renew, Welcome};
use stagely_proto::agent_wire;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tracing::{info, warn};

use super::{Close, Link};
use crate::backoff::{self, Backoff};
use crate::credentials::{self, Granted};
use crate::tls;

/// Chunks that are not full wait for so long, so that a chatty program does not make a frame per line.
const LOG_PAUSE: Duration = Duration::from_millis(100);

type Socket = WebSocketStream<TlsStream<TcpStream>>;
type Sink = SplitSink<Socket, Message>;
type Source = SplitStream<Socket>;

/// Runs one connection to its end.
pub async fn run(link: &mut Link, backoff: &mut Backoff) -> Close {
    let deadline = link.timing.handshake;
    let opened = tokio::time::timeout(deadline * 2, open(link)).await;
    let (mut sink, mut source) = match opened {
        Ok(Ok(socket)) => socket.split(),
        Ok(Err(close)) => return close,
        Err(_) => return Close::Lost("the handshake took too long".to_owned()),
    };
    let greeted = tokio::time::timeout(deadline, greet(link, &mut sink, &mut source)).await;
    let welcome = match greeted {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(close)) => {
            // A hub that puts us off is there, if its database is not. One that refuses us may know us no more, and
            // then nobody else would end this machine.
            if matches!(close, Close::Drain { .. }) {
                link.lease.renew();
            }
            return close;
        }
        Err(_) => return Close::Lost("the hub's greeting took too long".to_owned()),
    };
    backoff.reset();
    info!(epoch = welcome.conn_epoch, "connected to the hub");
    link.lease.set(Duration::from_secs(u64::from(welcome.lease_secs.max(30))));
    link.logs.resume(&welcome.log_offsets);

    let acted = watch::Sender::new(0_u64);
    let renewal = watch::Sender::new(std::mem::take(&mut link.renewal_due));
    let heartbeat = Duration::from_secs(u64::from(welcome.heartbeat_secs.clamp(1, 30)));
    let woken = link.woken.clone();
    let close = tokio::select! {
        close = receive(link, &mut source, &acted) => close,
        close = send(link, &mut sink, heartbeat, acted.subscribe(), &renewal) => close,
        () = woken.notified() => Close::Woken,
    };
    // Asked for but not received: ask again on the next connection.
    link.renewal_due |= *renewal.borrow();
    let _ = tokio::time::timeout(Duration::from_millis(500), sink.close()).await;
    close
}

async fn open(link: &Link) -> Result<Socket, Close> {
    let granted = link.granted.borrow().clone();
    let lost = |error: tls::Error| Close::Lost(chain(&error));
    let uri = tls::url(&link.identity.hub_url, agent_wire::CONNECT_PATH).map_err(lost)?;
    let stream = tls::connect(&uri, &granted.ca_pem, link.timing.handshake).await.map_err(lost)?;
    let address = uri.to_string().replacen("https://", "wss://", 1);
    let mut request = address.into_client_request().map_err(|error| Close::of_error(&error))?;
    let bearer = Secret::new(format!("Bearer {}", granted.credential.reveal()));
    let mut bearer = HeaderValue::from_str(bearer.reveal())
        .map_err(|_| Close::Refused("the credential is not a header value".to_owned()))?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(agent_wire::SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(1024 * 1024)
        .max_message_size(Some(1024 * 1024))
        .max_frame_size(Some(256 * 1024));
    tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .map(|(socket, _)| socket)
        .map_err(|error| Close::of_error(&error))
}

/// Proves who we are and hears where things stand.
async fn greet(link: &Link, sink: &mut Sink, source: &mut Source) -> Result<Welcome, Close> {
    let frame = next_frame(source).await?;
    let Some(Down::Challenge(challenge)) = frame.body else {
        return Err(Close::Lost("the hub did not start with a challenge".into()));
    };
    let machine_id = link.identity.machine_id.to_string();
    let message = [agent_wire::SIGNATURE_CONTEXT, &challenge.nonce, machine_id.as_bytes()].concat();
    let signature = link.credentials.sign(&message).map_err(|error| Close::Lost(chain(&error)))?;
    let hello = Hello {
        protocol: agent_wire::PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id,
        signature,
        observed_generation: link.outbox.current().map_or(0, |o| o.generation),
    };
    send_frame(sink, 0, 0, Up::Hello(hello)).await?;
    let frame = next_frame(source).await?;
    let Some(Down::Welcome(welcome)) = frame.body else {
        return Err(Close::Lost("the hub did not welcome us".into()));
    };
    link.outbox.resume(frame.ack);
    Ok(welcome)
}

/// Takes frames until the connection ends.
async fn receive(link: &Link, source: &mut Source, acted: &watch::Sender<u64>) -> Close {
    let mut heard = Instant::now();
    loop {
        let message = match tokio::time::timeout_at(heard + link.timing.silence, source.next()).await {
            Err(_) => return Close::Lost("the hub is silent".to_owned()),
            Ok(None) => return Close::Lost("the stream ended".to_owned()),
            Ok(Some(Err(error))) => return Close::of_error(&error),
            Ok(Some(Ok(message))) => message,
        };
        heard = Instant::now();
        link.lease.renew();
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(frame) => return Close::of_frame(frame.as_ref()),
            Message::Text(_) => return Close::Lost("the hub sent text".to_owned()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let frame = match HubFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return Close::Lost(format!("the hub's frame makes no sense: {error}")),
        };
        link.outbox.acknowledge(frame.ack);
        match frame.body {
            Some(Down::Desired(desired)) => {
                if link.desired.send(desired).await.is_err() {
                    return Close::Lost("the agent is stopping".to_owned());
                }
                acted.send_modify(|seq| *seq = frame.seq.max(*seq));
            }
            Some(Down::LogAck(ack)) => link.logs.acknowledge(&ack.offsets),
            Some(Down::Renewed(renewed)) => keep(
                link,
                Granted {
                    credential: Secret::new(renewed.credential),
                    certificate_pem: renewed.certificate_pem,
                    ca_pem: renewed.ca_pem,
                },
            ),
            Some(Down::PowerOff(order)) => return Close::NotWanted(order.reason),
            // Not expected any more, or of a newer hub: both harmless.
            Some(Down::Challenge(_) | Down::Welcome(_)) | None => {}
        }
    }
}

fn keep(link: &Link, granted: Granted) {
    // A failure to write is survivable: the old files are good until they expire.
    if let Err(error) = link.credentials.keep(&granted) {
        warn!(error = chain(&error), "cannot keep the renewed credential");
    }
    link.granted.send_replace(granted);
    info!("credential and certificate renewed");
}

/// Sends frames, facts before logs, until the connection ends.
async fn send(
    link: &Link,
    sink: &mut Sink,
    heartbeat: Duration,
    mut acted: watch::Receiver<u64>,
    renewal: &watch::Sender<bool>,
) -> Close {
    let mut ping_at = Instant::now() + jittered(heartbeat);
    let mut logs_at = Instant::now();
    let mut granted = link.granted.subscribe();
    granted.mark_unchanged();
    let mut renew_at = Instant::now();
    if !*renewal.borrow() {
        renew_at += half_life(&granted.borrow());
    }
    loop {
        let ack = *acted.borrow_and_update();
        let sent = if let Some((seq, observed)) = link.outbox.take_unsent() {
            send_frame(sink, seq, ack, Up::Observed(observed)).await
        } else if Instant::now() >= ping_at {
            ping_at = Instant::now() + jittered(heartbeat);
            sink.send(Message::Ping(Bytes::new())).await.map_err(|error| Close::of_error(&error))
        } else if Instant::now() >= renew_at {
            renewal.send_replace(true);
            renew_at = Instant::now() + Duration::from_secs(60);
            match link.credentials.signing_request() {
                Ok(csr_der) => {
                    let body = Up::Renew(Renew { csr_der });
                    send_frame(sink, 0, ack, body).await
                }
                Err(error) => Err(Close::Lost(chain(&error))),
            }
        } else if Instant::now() >= logs_at
            && let Some(chunk) = link.logs.next_chunk()
        {
            if chunk.content.len() < crate::logs::CHUNK / 2 {
                logs_at = Instant::now() + LOG_PAUSE;
            }
            send_frame(sink, 0, ack, Up::Log(chunk)).await
        } else {
            let pause = logs_at > Instant::now();
            tokio::select! {
                () = link.outbox.changed() => {}
                () = link.logs.changed(), if !pause => {}
                () = tokio::time::sleep_until(logs_at), if pause => {}
                () = tokio::time::sleep_until(ping_at.min(renew_at)) => {}
                _ = granted.changed() => {
                    renewal.send_replace(false);
                    renew_at = Instant::now() + half_life(&granted.borrow_and_update());
                }
            }
            Ok(())
        };
        if let Err(close) = sent {
            return close;
        }
    }
}

/// When to renew: half of the credential's life after it was granted, or hourly when it does not say.
fn half_life(granted: &Granted) -> Duration {
    credentials::lifetime(&granted.credential).map_or(Duration::from_secs(3600), |life| life / 2)
}

/// Within 20 % of `duration`.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * backoff::fraction())
}

async fn send_frame(sink: &mut Sink, seq: u64, ack: u64, body: Up) -> Result<(), Close> {
    let frame = AgentFrame { seq, ack, body: Some(body) };
    sink.send(Message::Binary(Bytes::from(frame.encode_to_vec()))).await.map_err(|error| Close::of_error(&error))
}

async fn next_frame(source: &mut Source) -> Result<HubFrame, Close> {
    loop {
        match source.next().await {
            None => return Err(Close::Lost("the stream ended".to_owned())),
            Some(Err(error)) => return Err(Close::of_error(&error)),
            Some(Ok(Message::Binary(bytes))) => {
                return HubFrame::decode(bytes)
                    .map_err(|error| Close::Lost(format!("the hub's frame makes no sense: {error}")));
            }
            Some(Ok(Message::Close(frame))) => return Err(Close::of_frame(frame.as_ref())),
            Some(Ok(_)) => {}
        }
    }
}

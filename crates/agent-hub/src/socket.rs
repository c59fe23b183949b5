//! One WebSocket to one agent: limits, deadlines, numbered frames, close codes.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use stagely_proto::agent::{AgentFrame, HubFrame, hub_frame};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::connections::Goodbye;

/// Silence that ends a connection.
const SILENCE: Duration = Duration::from_secs(40);
/// The longest that a frame may take to be sent.
const SEND: Duration = Duration::from_secs(10);
/// The longest that a goodbye may take.
const CLOSE: Duration = Duration::from_secs(2);
/// Frames of any kind, pings too, that an agent may send in one second.
const FRAMES_PER_SECOND: u32 = 2000;

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The other side is gone; nothing can be said to it.
    Gone,
    /// The frame was larger than the limits (RFC 6455 code 1009).
    TooBig,
    /// This is to be said to it.
    Say(Goodbye),
}

/// A WebSocket with an agent at its other end.
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    sent: u64,
    acted_on: u64,
    window: Instant,
    frames: u32,
}

impl Socket {
    /// Takes over an upgraded connection.
    pub async fn accept(upgraded: Upgraded) -> Self {
        // The library's defaults cost 128 KiB a connection and have no bound on what waits to be sent.
        let limits = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(4 * 1024)
            .max_write_buffer_size(1024 * 1024)
            .max_message_size(Some(1024 * 1024))
            .max_frame_size(Some(256 * 1024));
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
        Self { stream, sent: 0, acted_on: 0, window: Instant::now(), frames: 0 }
    }

    /// The next frame; waits for at most forty seconds of silence.
    ///
    /// # Errors
    /// [`End`].
    pub async fn next(&mut self) -> Result<AgentFrame, End> {
        loop {
            let message = timeout(SILENCE, self.stream.next()).await.map_err(|_| End::Gone)?;
            if let Some(frame) = self.read(message)? {
                return Ok(frame);
            }
        }
    }

    /// A frame that is here already.
    ///
    /// # Errors
    /// [`End`].
    pub fn next_now(&mut self) -> Result<Option<AgentFrame>, End> {
        while let Some(message) = self.stream.next().now_or_never() {
            if let Some(frame) = self.read(message)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Waits until something comes that is not a protocol frame, as [`Socket::next`] does, but also tells of
    /// pings: `None` for those.
    ///
    /// # Errors
    /// [`End`].
    pub async fn next_sign(&mut self) -> Result<Option<AgentFrame>, End> {
        let message = timeout(SILENCE, self.stream.next()).await.map_err(|_| End::Gone)?;
        self.read(message)
    }

    fn read(&mut self, message: Option<Result<Message, Error>>) -> Result<Option<AgentFrame>, End> {
        self.count()?;
        match message {
            None => Err(End::Gone),
            Some(Ok(Message::Binary(bytes))) => {
                let frame = AgentFrame::decode(bytes).map_err(|_| End::Say(Goodbye::Protocol("malformed frame")))?;
                self.acknowledged(&frame)?;
                Ok(Some(frame))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
            Some(Ok(Message::Text(_))) => Err(End::Say(Goodbye::Protocol("frames are binary"))),
            Some(Ok(Message::Close(_) | Message::Frame(_))) => Err(End::Gone),
            Some(Err(Error::Capacity(_))) => Err(End::TooBig),
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => Err(End::Say(Goodbye::Protocol("not a WebSocket frame"))),
            Some(Err(_)) => Err(End::Gone),
        }
    }

    fn acknowledged(&mut self, frame: &AgentFrame) -> Result<(), End> {
        if frame.ack > self.sent {
            return Err(End::Say(Goodbye::Protocol("acknowledged a frame that was never sent")));
        }
        self.acted_on = self.acted_on.max(frame.seq);
        Ok(())
    }

    fn count(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if now - self.window >= Duration::from_secs(1) {
            (self.window, self.frames) = (now, 0);
        }
        self.frames += 1;
        if self.frames > FRAMES_PER_SECOND {
            return Err(End::Say(Goodbye::Protocol("too many frames")));
        }
        Ok(())
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`End::Gone`] when it cannot be sent in time.
    pub async fn send(&mut self, body: hub_frame::Body) -> Result<(), End> {
        self.sent += 1;
        let frame = HubFrame { seq: self.sent, ack: self.acted_on, body: Some(body) };
        let message = Message::Binary(frame.encode_to_vec().into());
        match timeout(SEND, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }

    /// Says goodbye, if there is somebody to hear it.
    pub async fn end(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => return,
            End::TooBig => (1009, "message too big".to_owned()),
            End::Say(goodbye) => spell(&goodbye),
        };
        let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        // Afterwards what still comes is read and dropped, or the close frame could be lost in a reset.
        let _ = timeout(CLOSE, async {
            if self.stream.close(Some(close)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        })
        .await;
    }
}

fn spell(goodbye: &Goodbye) -> (u16, String) {
    match goodbye {
        Goodbye::Protocol(reason) => (4400, (*reason).to_owned()),
        Goodbye::Refused => (4401, "credential refused".to_owned()),
        Goodbye::Replaced => (4409, "a newer connection exists".to_owned()),
        Goodbye::Unwanted => (4410, "machine not wanted".to_owned()),
        Goodbye::Restart(secs) => (1012, format!("retry_after={secs}")),
        Goodbye::Busy(secs) => (1013, format!("retry_after={secs}")),
    }
}

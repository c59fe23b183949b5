//! An answer's body, read straight from the machine's connection by the task that writes it to the visitor. While it
//! is read, what is left of the request's body goes on its way in the same poll.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::upstream::head::AnswerFraming;
use crate::upstream::{Connection, Key, Pool, Upload};

const PIECE: usize = 32 * 1024;
const MAX_LINE: usize = 4096;

/// A body that the edge answers with.
pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    Streamed(Box<Streamed>),
}

/// What is needed to let a connection rest again.
pub struct Return {
    pub pool: Arc<Pool>,
    pub key: Key,
    /// Comes back when the request was sent whole.
    pub writer: tokio::sync::oneshot::Receiver<WriteHalf<TlsStream<TcpStream>>>,
}

struct Streamed {
    reader: Option<ReadHalf<TlsStream<TcpStream>>>,
    buffer: BytesMut,
    upload: Option<Upload>,
    state: Reading,
    back: Option<Return>,
}

enum Reading {
    Length(u64),
    Eof,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(usize),
    Done,
}

impl Body {
    /// A body that is here already.
    pub fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(Some(bytes)))
    }

    /// The body that follows a head; `back` is given when the connection may be used again.
    pub fn streamed(
        reader: ReadHalf<TlsStream<TcpStream>>,
        buffer: BytesMut,
        upload: Option<Upload>,
        framing: AnswerFraming,
        back: Option<Return>,
    ) -> Self {
        let state = match framing {
            AnswerFraming::None | AnswerFraming::Length(0) => Reading::Done,
            AnswerFraming::Length(length) => Reading::Length(length),
            AnswerFraming::Chunked => Reading::ChunkSize,
            AnswerFraming::Eof => Reading::Eof,
        };
        let mut streamed = Streamed { reader: Some(reader), buffer, upload, state, back };
        if matches!(streamed.state, Reading::Done) {
            streamed.finish();
        }
        Self(Kind::Streamed(Box::new(streamed)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Kind::Streamed(streamed) => streamed.poll(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Streamed(streamed) => matches!(streamed.state, Reading::Done),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Streamed(streamed) => match streamed.state {
                Reading::Length(left) => SizeHint::with_exact(left),
                Reading::Done => SizeHint::with_exact(0),
                _ => SizeHint::default(),
            },
        }
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(upload) = &mut self.upload
            && upload.as_mut().poll(cx).is_ready()
        {
            // A machine that has answered need not read the rest; its answer counts.
            self.upload = None;
        }
        loop {
            match self.state {
                Reading::Done => return Poll::Ready(None),
                Reading::Length(left) => {
                    let piece = match ready!(self.piece(cx, left)) {
                        Ok(Some(piece)) => piece,
                        Ok(None) => return Poll::Ready(Some(Err(cut()))),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    self.state = Reading::Length(left - piece.len() as u64);
                    if left == piece.len() as u64 {
                        self.state = Reading::Done;
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Reading::Eof => match ready!(self.piece(cx, u64::MAX)) {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                    Ok(None) => self.state = Reading::Done,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Reading::ChunkData(left) => {
                    let piece = match ready!(self.piece(cx, left)) {
                        Ok(Some(piece)) => piece,
                        Ok(None) => return Poll::Ready(Some(Err(cut()))),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { Reading::ChunkEnd } else { Reading::ChunkData(left) };
                    return Poll::Ready(Some(Ok(piece)));
                }
                Reading::ChunkSize | Reading::ChunkEnd | Reading::Trailers(_) => {
                    let line = match ready!(self.line(cx)) {
                        Ok(line) => line,
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    if let Err(error) = self.take_line(&line) {
                        self.state = Reading::Done;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }

    /// Between chunks (RFC 9112, section 7.1). Extensions are skipped, trailers dropped.
    fn take_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.state = match self.state {
            Reading::ChunkEnd if line.is_empty() => Reading::ChunkSize,
            Reading::ChunkSize => match chunk_size(line) {
                Some(0) => Reading::Trailers(0),
                Some(size) => Reading::ChunkData(size),
                None => return Err(malformed("a chunk's size")),
            },
            Reading::Trailers(_) if line.is_empty() => {
                self.state = Reading::Done;
                self.finish();
                return Ok(());
            }
            Reading::Trailers(count) if count < 64 => Reading::Trailers(count + 1),
            _ => return Err(malformed("a chunk's end")),
        };
        Ok(())
    }

    /// Up to `limit` bytes; `None` at the end of the connection.
    fn piece(&mut self, cx: &mut Context<'_>, limit: u64) -> Poll<io::Result<Option<Bytes>>> {
        if self.buffer.is_empty() && ready!(self.fill(cx))? == 0 {
            return Poll::Ready(Ok(None));
        }
        let take = usize::try_from(limit).unwrap_or(usize::MAX).min(self.buffer.len());
        Poll::Ready(Ok(Some(self.buffer.split_to(take).freeze())))
    }

    /// A line without its CR LF.
    fn line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                if at == 0 || self.buffer[at - 1] != b'\r' {
                    return Poll::Ready(Err(malformed("a line's end")));
                }
                let line = self.buffer.split_to(at - 1).freeze();
                self.buffer.advance(2);
                return Poll::Ready(Ok(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Poll::Ready(Err(malformed("a line's length")));
            }
            if ready!(self.fill(cx))? == 0 {
                return Poll::Ready(Err(cut()));
            }
        }
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(Ok(0)) };
        let mut space = [0; PIECE];
        let mut piece = ReadBuf::new(&mut space);
        ready!(Pin::new(reader).poll_read(cx, &mut piece))?;
        self.buffer.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Lets the connection rest, if the request was sent whole and the machine said nothing more.
    fn finish(&mut self) {
        let (Some(mut back), Some(reader)) = (self.back.take(), self.reader.take()) else { return };
        if let (true, Ok(writer)) = (self.buffer.is_empty(), back.writer.try_recv()) {
            back.pool.put(back.key, Connection { reader, writer, fresh: false });
        }
    }
}

/// Hexadecimal digits, at most sixteen, before an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?;
    let digits = std::str::from_utf8(digits).ok()?.trim_end_matches([' ', '\t']);
    let good = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the machine's answer was cut off")
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

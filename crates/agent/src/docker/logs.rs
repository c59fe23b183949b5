//! Container output. Without a terminal the engine sends frames of an 8-byte header (stream, three zero bytes,
//! length in big-endian) and as many bytes; with one it sends the bytes as they are.

use http::Method;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::{Container, Engine, Error};
use crate::logs::Writer;

/// Copies what `container` prints from `since` (Unix seconds) on to `log`, until it ends or `cancel` says so.
///
/// # Errors
/// The engine's.
pub async fn follow(
    engine: &Engine,
    container: &Container,
    since: i64,
    log: &mut Writer,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let path = format!("/containers/{}/logs?follow=1&stdout=1&stderr=1&since={since}", container.id);
    let mut body = engine.open(Method::GET, &path).await?;
    let mut frames = Frames::default();
    loop {
        let frame = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(bytes) = frame?.into_data() else {
            continue;
        };
        if container.config.tty {
            log.write(&bytes);
        } else {
            frames.push(&bytes, |text| log.write(text));
        }
    }
}

/// The text of a whole answer, with or without a terminal.
pub(super) fn text_of(bytes: &[u8]) -> String {
    let framed = matches!(bytes, [0..=2, 0, 0, 0, _, _, _, _, ..]);
    if !framed {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = Vec::with_capacity(bytes.len());
    Frames::default().push(bytes, |piece| text.extend_from_slice(piece));
    String::from_utf8_lossy(&text).into_owned()
}

/// Takes the headers out.
#[derive(Default)]
pub(super) struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    pub(super) fn push(&mut self, mut bytes: &[u8], mut see: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (text, rest) = bytes.split_at(self.left.min(bytes.len()));
                see(text);
                self.left -= text.len();
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at((8 - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(head);
            bytes = rest;
            if let [_, _, _, _, a, b, c, d] = self.header[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frames, text_of};

    #[test]
    fn headers_are_taken_out_wherever_the_pieces_end() {
        let bytes = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02de";
        assert_eq!(text_of(bytes), "abcde");
        for cut in 0..bytes.len() {
            let mut text = Vec::new();
            let mut frames = Frames::default();
            frames.push(&bytes[..cut], |piece| text.extend_from_slice(piece));
            frames.push(&bytes[cut..], |piece| text.extend_from_slice(piece));
            assert_eq!(text, b"abcde", "{cut}");
        }
        assert_eq!(text_of(b"raw text"), "raw text");
    }
}

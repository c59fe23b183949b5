//! Copying both ways until both sides are done, or nothing has moved in either direction for an hour.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

const IDLE: Duration = Duration::from_secs(3600);
const BUFFER: usize = 16 * 1024;

/// Copies until the end. Faults on either side end it; there is nobody to tell.
pub async fn both_ways(edge: TlsStream<TcpStream>, mut service: TcpStream) {
    let moved = Arc::new(AtomicU64::new(0));
    let mut edge = Counted { inner: edge, moved: moved.clone() };
    let copy = tokio::io::copy_bidirectional_with_sizes(&mut edge, &mut service, BUFFER, BUFFER);
    let idle = async {
        let mut before = moved.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(IDLE).await;
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        _ = copy => {}
        () = idle => {}
    }
}

/// Counts reads and writes that moved something.
struct Counted<S> {
    inner: S,
    moved: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if result.is_ready() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if result.is_ready() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

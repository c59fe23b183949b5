//! A virtio port as a stream. Such a port reads as ended while no host is connected to it; here that is waiting,
//! since the host comes back after the machine was restored.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How often an unconnected port is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the host's port is.
pub const PATH: &str = "/dev/virtio-ports/stagely.identity";

/// The port, open in both directions.
pub struct Port {
    file: AsyncFd<File>,
    pause: Pin<Box<Sleep>>,
    paused: bool,
}

impl Port {
    /// Opens it.
    ///
    /// # Errors
    /// If it cannot be opened, or is open already.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { file: watch(file)?, pause: Box::pin(tokio::time::sleep(Duration::ZERO)), paused: false })
    }

    fn start_pause(&mut self) {
        self.pause.as_mut().reset(Instant::now() + PAUSE);
        self.paused = true;
    }
}

#[expect(unsafe_code, reason = "tokio has no safe way to wait for a character device")]
fn watch(file: File) -> std::io::Result<AsyncFd<File>> {
    // SAFETY: the file owns its descriptor and is owned by the result, so the descriptor stays open and the same
    // for as long as it is watched.
    unsafe { Ok(AsyncFd::register(file)?) }
}

impl AsyncRead for Port {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.paused {
                ready!(self.pause.as_mut().poll(cx));
                self.paused = false;
            }
            let mut guard = ready!(self.file.poll_read_ready(cx))?;
            let read = guard.try_io(|file| file.get_ref().read(buf.initialize_unfilled()));
            match read {
                Err(_would_block) => {}
                Ok(Ok(0)) => self.start_pause(),
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.file.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

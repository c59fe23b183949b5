//! The machine's lease: renewed by every sign of life from a hub that does not refuse the machine. When it lapses the
//! machine ends itself, since nobody may know of it any more.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Renewed by the connection, watched by the agent. Cheap to clone.
#[derive(Clone)]
pub struct Lease(watch::Sender<(Duration, Instant)>);

impl Lease {
    /// A lease of `length` from now on.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self(watch::Sender::new((length, Instant::now())))
    }

    /// The hub says how long the lease is; it starts over.
    pub fn set(&self, length: Duration) {
        self.0.send_replace((length, Instant::now()));
    }

    /// Starts over with the same length.
    pub fn renew(&self) {
        self.0.send_modify(|lease| lease.1 = Instant::now());
    }

    /// Waits until the lease has lapsed.
    pub async fn lapsed(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let (length, since) = *changes.borrow_and_update();
            if tokio::time::timeout_at(since + length, changes.changed()).await.is_err() {
                return;
            }
        }
    }
}

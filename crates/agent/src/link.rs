//! The connection to the hub, kept up for the machine's whole life. One [`session`] after the other, with waits
//! between them that keep a fleet from coming back all at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use stagely_proto::agent::Desired;

use crate::backoff::Backoff;
use crate::config::Timing;
use crate::credentials::{Credentials, Granted};
use crate::identity::Identity;
use crate::lease::Lease;
use crate::logs::LogBook;
use crate::outbox::Outbox;

mod close;
mod session;

pub use close::Close;

/// What a connection needs. The rest of the agent meets it through these.
pub struct Link {
    /// Who we are.
    pub identity: Identity,
    /// Our key.
    pub credentials: Arc<Credentials>,
    /// What was granted: followed by the ingress, replaced by renewals.
    pub granted: watch::Sender<Granted>,
    /// Facts to send.
    pub outbox: Outbox,
    /// Logs to send.
    pub logs: LogBook,
    /// Wishes received.
    pub desired: mpsc::Sender<Desired>,
    /// Renewed by the hub's signs of life.
    pub lease: Lease,
    /// Rung when the machine woke up: connect at once, whatever the waits.
    pub woken: Arc<Notify>,
    /// How long things may take.
    pub timing: Timing,
    /// True when the credential's age is unknown or past its middle.
    pub renewal_due: bool,
}

/// Why the link is over for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// The agent is stopping.
    Stopped,
    /// The hub does not want the machine any more.
    NotWanted(String),
}

impl Link {
    /// Connects, and connects again, until the machine is not wanted or the agent stops.
    pub async fn run(mut self, cancel: CancellationToken) -> Over {
        let mut backoff = Backoff::new(self.timing.retry);
        loop {
            let close = tokio::select! {
                () = cancel.cancelled() => return Over::Stopped,
                close = session::run(&mut self, &mut backoff) => close,
            };
            let wait = match close {
                Close::NotWanted(reason) => return Over::NotWanted(reason),
                Close::Woken => {
                    info!("the machine woke up, connecting again");
                    backoff.reset();
                    self.renewal_due = true;
                    Duration::ZERO
                }
                Close::Drain { retry_after } => {
                    info!("the hub is restarting, connecting to another");
                    backoff.reset();
                    retry_after.unwrap_or_else(|| backoff.pause())
                }
                Close::Superseded => {
                    warn!("a newer connection of this machine exists");
                    backoff.slow_down();
                    backoff.pause()
                }
                Close::Refused(reason) => {
                    warn!(%reason, "the hub refused this machine's credential");
                    backoff.slow_down();
                    backoff.pause()
                }
                Close::Lost(reason) => {
                    warn!(%reason, "the connection to the hub is down");
                    backoff.pause()
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return Over::Stopped,
                () = tokio::time::sleep(wait) => {}
                () = self.woken.notified() => {
                    backoff.reset();
                    self.renewal_due = true;
                }
            }
        }
    }
}

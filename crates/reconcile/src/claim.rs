//! Claims on resources, and where they are kept.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

/// The proof of a lease. Every write of a reconciler carries it, and is refused once the epoch has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The work row's kind.
    pub kind: &'static str,
    /// The work row's key.
    pub key: Uuid,
    /// The epoch of the claim: +1 for each.
    pub epoch: i64,
}

/// A resource that this process may work on until its lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What to show with every write.
    pub fence: Fence,
    /// How many claims in a row, with this one, have not ended well.
    pub attempt: u32,
}

/// When a resource is due again. A wake that came during the work makes it due at once in every case, but not
/// before the back-off of a failure is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// All is as wished; look again only when woken, or after that long.
    Done {
        /// The next look by itself.
        again_in: Option<Duration>,
    },
    /// It failed; not before that long.
    Retry {
        /// The back-off.
        after: Duration,
        /// What went wrong, for the operator.
        error: String,
        /// Whether it was a failed try. Being told to come later is none.
        counts: bool,
    },
    /// It cannot succeed as things are; only a wake brings it back.
    Park {
        /// What went wrong, for the operator.
        error: String,
    },
}

impl Next {
    /// How long until the resource is due again, if it is without a wake.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        match self {
            Self::Done { again_in } => *again_in,
            Self::Retry { after, .. } => Some(*after),
            Self::Park { .. } => None,
        }
    }
}

/// The store did not answer.
#[derive(Debug, thiserror::Error)]
#[error("work queue: {doing}")]
pub struct WorkError {
    /// What was being done.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A keyed work queue with leases. Only the store's clock decides about time.
#[async_trait]
pub trait WorkStore: Send + Sync + 'static {
    /// Takes up to `limit` due resources of `kind` for `lease`.
    async fn claim(
        &self,
        kind: &'static str,
        owner: &str,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<Claim>, WorkError>;

    /// Prolongs a lease; false when it is lost.
    async fn renew(&self, fence: &Fence, lease: Duration) -> Result<bool, WorkError>;

    /// Ends a claim; false when it was lost already.
    async fn finish(&self, fence: &Fence, next: &Next) -> Result<bool, WorkError>;

    /// Ends a claim unfinished: the resource is due at once, for anybody, and the attempt does not count.
    async fn give_back(&self, fence: &Fence) -> Result<(), WorkError>;

    /// Notified when a resource of `kind` was woken. It may be missed: the poll is the net.
    fn wake_signal(&self, kind: &'static str) -> Arc<Notify>;
}

//! What a provider's refusal means.

use std::time::Duration;

/// The kinds of failure, each with one consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The credentials are wrong or expired.
    Auth,
    /// The credentials do not allow this action.
    Permission,
    /// The account may not have more.
    Quota,
    /// There is none left of this type or in this place: try the next.
    Capacity,
    /// The request is wrong, and will be next time.
    Invalid,
    /// Something else is going on with the resource: wait.
    Conflict,
    /// A foreign resource has the name.
    Exists,
    /// There is no such resource.
    NotFound,
    /// Too many requests.
    RateLimited {
        /// Not before that long, when the provider said so.
        retry_after: Option<Duration>,
    },
    /// The provider is not well.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// An answer that cannot be understood.
    Protocol,
    /// This provider cannot do that.
    Unsupported,
}

/// A failed call. The message is for people and holds no credential.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct CloudError {
    /// What follows from it.
    pub kind: ErrorKind,
    /// What was being done.
    pub doing: &'static str,
    /// What the provider said, or what went wrong.
    pub message: String,
    /// The call may have taken effect all the same: look before trying again.
    pub ambiguous: bool,
}

impl CloudError {
    /// A failure that certainly had no effect.
    pub fn new(kind: ErrorKind, doing: &'static str, message: impl Into<String>) -> Self {
        Self { kind, doing, message: message.into(), ambiguous: false }
    }

    /// The same failure of a call that may have taken effect.
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        self.ambiguous = true;
        self
    }

    pub(crate) fn io(doing: &'static str, error: &std::io::Error) -> Self {
        Self::new(ErrorKind::Unavailable, doing, error.to_string()).ambiguous()
    }
}

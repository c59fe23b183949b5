//! What a git host's refusal means.

use std::time::Duration;

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The credential is wrong or does not suffice.
    Auth,
    /// There is no such thing, or we may not see it.
    NotFound,
    /// Too many requests.
    RateLimited {
        /// Not before that long.
        retry_after: Duration,
    },
    /// The host is not well, or did not answer in time.
    Unavailable,
    /// The request is wrong, and will be next time.
    Invalid,
    /// An answer that cannot be understood.
    Protocol,
}

/// A failed call. The message is for people and holds no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct ForgeError {
    /// What follows from it.
    pub kind: ErrorKind,
    /// What was being done.
    pub doing: &'static str,
    /// What the host said, or what went wrong.
    pub message: String,
}

impl ForgeError {
    pub(crate) fn new(kind: ErrorKind, doing: &'static str, message: impl Into<String>) -> Self {
        Self { kind, doing, message: message.into() }
    }

    pub(crate) fn transport(doing: &'static str, error: &reqwest::Error) -> Self {
        let message = if error.is_timeout() { "no answer in time" } else { "the git host cannot be reached" };
        Self::new(ErrorKind::Unavailable, doing, message)
    }
}

//! How a step can fail, and what follows.

use std::time::Duration;

/// What an error means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may work next time: exponential back-off.
    Transient,
    /// The other side said when.
    RateLimited {
        /// Not before that long.
        retry_after: Duration,
    },
    /// Trying again changes nothing: the row parks and a person is told.
    Permanent,
    /// The lease is somebody else's: nothing to do and nothing to say.
    Fenced,
}

/// Why a step failed, and what follows from that.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StepError {
    /// What follows from it.
    pub class: ErrorClass,
    /// What was being done.
    pub doing: String,
    /// Whether it may park after many tries. Teardown never does.
    pub may_park: bool,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// An error of `class` while `doing`.
    pub fn new(
        class: ErrorClass,
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { class, doing: doing.into(), may_park: true, source: Some(source.into()) }
    }

    /// The same, of a step that must be tried for ever.
    #[must_use]
    pub fn never_parks(mut self) -> Self {
        self.may_park = false;
        self
    }

    /// The message with every cause behind it.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// The error and all its causes on one line. `domain::error_chain` has the same, on which this crate does not depend.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

//! How a step can fail, and what follows.

use std::time::Duration;

/// What a failure means for the next try.
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

/// A failed step.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Failure {
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

impl Failure {
    /// A failure of `class` while `doing`.
    pub fn new(
        class: ErrorClass,
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { class, doing: doing.into(), may_park: true, source: Some(source.into()) }
    }

    /// The same failure of a step that must be tried for ever.
    #[must_use]
    pub fn never_parks(mut self) -> Self {
        self.may_park = false;
        self
    }

    /// The message with every cause behind it.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.doing.clone();
        let mut cause: Option<&(dyn std::error::Error + 'static)> =
            self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

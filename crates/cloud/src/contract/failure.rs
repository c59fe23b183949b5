//! Why a case does not hold.

use std::fmt;

/// What was done, what was to come of it, and what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was done.
    pub did: String,
    /// What every provider has to do then.
    pub expected: String,
    /// What this one did.
    pub came: String,
}

impl Failure {
    pub(super) fn new(did: impl Into<String>, expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self { did: did.into(), expected: expected.into(), came: came.into() }
    }

    /// A call that had to succeed.
    pub(super) fn refused(did: impl Into<String>, error: &crate::CloudError) -> Self {
        Self::new(did, "success", format!("{:?}: {error}", error.kind))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.did, self.expected, self.came)
    }
}

impl std::error::Error for Failure {}

/// Fails unless it is so; what came is written down only then.
pub(super) fn expect(
    holds: bool,
    did: &str,
    expected: &str,
    came: impl FnOnce() -> String,
) -> std::result::Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(did, expected, came())) }
}

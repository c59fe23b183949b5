//! What became of a write that expects the row to be in some state.

/// Whether a compare-and-set took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The row was as expected and is changed.
    Written,
    /// The row was not as expected, because somebody else changed it first: nothing was written.
    Stale,
}

impl Outcome {
    /// The outcome of a statement that changed this many rows.
    pub(crate) const fn of(rows: u64) -> Self {
        if rows == 0 { Self::Stale } else { Self::Written }
    }
}

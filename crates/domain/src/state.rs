//! What the state machines of the nouns have in common.

/// A transition that the rules do not know. Seeing one is a bug or a stale writer, never a user's
/// mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{noun} in state {state} cannot take {event}")]
pub struct IllegalTransition {
    noun: &'static str,
    state: String,
    event: String,
}

impl IllegalTransition {
    pub(crate) fn new(noun: &'static str, state: impl std::fmt::Debug, event: impl std::fmt::Debug) -> Self {
        Self { noun, state: format!("{state:?}").to_lowercase(), event: format!("{event:?}") }
    }
}

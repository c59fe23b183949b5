//! What the edge knows about a host. Written by the orchestrator, copied through Redis, read by the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentId, MachineId};

/// What the edge does with requests for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Shows the waiting page.
    Waiting,
    /// Forwards.
    Ready,
    /// Asks for a wake-up and shows the waiting page.
    Asleep,
    /// Shows the failure page.
    Failed,
    /// Shows the gone page (410).
    Gone,
}

impl State {
    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Asleep => "asleep",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One host's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Lower-case host name without port.
    pub host: String,
    /// Rises with every change of any route; of two entries for a host the higher is the newer.
    pub version: u64,
    /// The environment, for last-seen and wake requests.
    pub environment: EnvironmentId,
    /// What to do.
    pub state: State,
    /// Where to forward; always there when `state` is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What the pages say (title of the pull request, phase, reason of a failure): untrusted text.
    #[serde(default)]
    pub notice: Notice,
}

/// A machine's ingress and what to ask of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The machine; its ingress certificate must name it.
    pub machine: MachineId,
    /// `ip:port` of the ingress.
    pub address: String,
    /// Longest prefix wins; the last is `/`.
    pub rules: Vec<Rule>,
}

/// Which exposure serves a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// A path prefix that ends at a segment border.
    pub path: String,
    /// The ingress's name for the port: [`crate::ingress::label`].
    pub exposure: String,
}

/// Text for the edge's own pages. Escaped where it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `owner/name#12`, say.
    #[serde(default)]
    pub title: String,
    /// The phase under way, or the sentence of the failure.
    #[serde(default)]
    pub text: String,
    /// Where to read more.
    #[serde(default)]
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn words_are_as_serde_writes_them() {
        for state in [State::Waiting, State::Ready, State::Asleep, State::Failed, State::Gone] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}

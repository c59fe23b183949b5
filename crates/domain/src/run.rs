//! Runs: one attempt to bring one commit live.

use serde::{Deserialize, Serialize};

use crate::state::IllegalTransition;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RunState")]
pub enum State {
    /// Recorded; the commit has not been read.
    Pending,
    /// Images are being built.
    Building,
    /// The agent was given the deployment.
    Deploying,
    /// Routes are written; the proof request is under way.
    Verifying,
    /// The test phase runs against the live URL.
    Testing,
    /// Live. Final.
    Succeeded,
    /// Final; the run's failure says why.
    Failed,
    /// Closed or destroyed before its end. Final.
    Cancelled,
    /// A newer generation took its place. Final.
    Superseded,
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Builds were asked for.
    BuildsAsked,
    /// The agent was given the deployment.
    DeploySent,
    /// The agent reports the project healthy and routes are written.
    Deployed,
    /// The URL answered, and tests are to run.
    TestsStarted,
    /// The URL answered and there is nothing left to do.
    Proved,
    /// Something failed.
    Failed,
    /// The environment is not wanted any more.
    Cancelled,
    /// There is a newer generation.
    Superseded,
}

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Building,
        Self::Deploying,
        Self::Verifying,
        Self::Testing,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`]; nothing leaves a final state.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        if self.is_final() {
            return Err(IllegalTransition::new("run", self, event));
        }
        Ok(match (self, event) {
            (Self::Pending | Self::Building, Event::BuildsAsked) => Self::Building,
            (Self::Pending | Self::Building | Self::Deploying, Event::DeploySent) => Self::Deploying,
            (Self::Deploying | Self::Verifying, Event::Deployed) => Self::Verifying,
            (Self::Verifying | Self::Testing, Event::TestsStarted) => Self::Testing,
            (Self::Verifying | Self::Testing, Event::Proved) => Self::Succeeded,
            (_, Event::Failed) => Self::Failed,
            (_, Event::Cancelled) => Self::Cancelled,
            (_, Event::Superseded) => Self::Superseded,
            _ => return Err(IllegalTransition::new("run", self, event)),
        })
    }

    /// Whether the run is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Superseded)
    }
}

//! Runs: one attempt to bring one commit live.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// How long a run may take in all.
pub const LIMIT: TimeDelta = TimeDelta::minutes(60);

/// Why a run was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RunCause")]
pub enum Cause {
    /// The pull request got its environment.
    Opened,
    /// It has another commit.
    Push,
    /// A member asked for the same commit again.
    Redeploy,
    /// The machine of a live preview was lost.
    MachineLost,
}

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

    /// Whether a row in this state may be put into `to`. Nothing leaves a final state; an open run may end at any
    /// time, and is deployed again when its machine was lost before the proof.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Superseded => false,
            _ if matches!(to, Self::Failed | Self::Cancelled | Self::Superseded) => true,
            Self::Pending => matches!(to, Self::Pending | Self::Building | Self::Deploying),
            Self::Building => matches!(to, Self::Building | Self::Deploying),
            Self::Deploying => matches!(to, Self::Deploying | Self::Verifying),
            Self::Verifying => matches!(to, Self::Verifying | Self::Deploying | Self::Testing | Self::Succeeded),
            Self::Testing => matches!(to, Self::Testing | Self::Succeeded),
        }
    }

    /// Whether the run is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    /// Every pair; a row for each state, a column for each in the order of [`State::ALL`].
    #[test]
    fn the_table_of_every_pair_of_states() {
        let table = [
            "pending    yes yes yes no  no  no  yes yes yes",
            "building   no  yes yes no  no  no  yes yes yes",
            "deploying  no  no  yes yes no  no  yes yes yes",
            "verifying  no  no  yes yes yes yes yes yes yes",
            "testing    no  no  no  no  yes yes yes yes yes",
            "succeeded  no  no  no  no  no  no  no  no  no",
            "failed     no  no  no  no  no  no  no  no  no",
            "cancelled  no  no  no  no  no  no  no  no  no",
            "superseded no  no  no  no  no  no  no  no  no",
        ];
        for (from, row) in State::ALL.into_iter().zip(table) {
            for (to, word) in State::ALL.into_iter().zip(row.split_whitespace().skip(1)) {
                assert_eq!(from.may_become(to), word == "yes", "{from:?} to {to:?}");
            }
        }
    }
}

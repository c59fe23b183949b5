//! Preview environments: the states one goes through, and the host it is reached by.

use serde::{Deserialize, Serialize};

/// Where an environment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EnvironmentState")]
pub enum State {
    /// A commit is wished for; nothing has begun.
    Queued,
    /// Waits for a member to allow this commit of a fork.
    AwaitingApproval,
    /// Images are being built (the machine may be booting already).
    Building,
    /// Images are there; the machine is not yet.
    Provisioning,
    /// The agent brings the compose project up.
    Deploying,
    /// Proved through the public edge.
    Live,
    /// Being hibernated.
    Sleeping,
    /// Hibernated.
    Asleep,
    /// Being woken.
    Waking,
    /// The newest commit could not be brought live.
    Failed,
    /// The machine does not answer; it may come back.
    Unreachable,
    /// Being removed.
    Destroying,
    /// Nothing is left. Final.
    Destroyed,
}

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 13] = [
        Self::Queued,
        Self::AwaitingApproval,
        Self::Building,
        Self::Provisioning,
        Self::Deploying,
        Self::Live,
        Self::Sleeping,
        Self::Asleep,
        Self::Waking,
        Self::Failed,
        Self::Unreachable,
        Self::Destroying,
        Self::Destroyed,
    ];

    /// Whether a row in this state may be put into `to`. Where an environment stands is read off its run, machine and
    /// routes, which change in any order; what must hold is that nothing on its way out comes back.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Destroyed => matches!(to, Self::Destroyed),
            Self::Destroying => matches!(to, Self::Destroying | Self::Destroyed),
            _ => !matches!(to, Self::Destroyed),
        }
    }

    /// Whether nothing more is on its way to what is wished for.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Live | Self::Asleep | Self::Failed | Self::Destroyed)
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    /// Every pair; a row for each state, a column for each in the order of the rows. The last two are those that nothing
    /// returns from.
    #[test]
    fn the_table_of_every_pair_of_states() {
        let table = [
            "queued            yes yes yes yes yes yes yes yes yes yes yes yes no",
            "awaiting_approval yes yes yes yes yes yes yes yes yes yes yes yes no",
            "building          yes yes yes yes yes yes yes yes yes yes yes yes no",
            "provisioning      yes yes yes yes yes yes yes yes yes yes yes yes no",
            "deploying         yes yes yes yes yes yes yes yes yes yes yes yes no",
            "live              yes yes yes yes yes yes yes yes yes yes yes yes no",
            "sleeping          yes yes yes yes yes yes yes yes yes yes yes yes no",
            "asleep            yes yes yes yes yes yes yes yes yes yes yes yes no",
            "waking            yes yes yes yes yes yes yes yes yes yes yes yes no",
            "failed            yes yes yes yes yes yes yes yes yes yes yes yes no",
            "unreachable       yes yes yes yes yes yes yes yes yes yes yes yes no",
            "destroying        no  no  no  no  no  no  no  no  no  no  no  yes yes",
            "destroyed         no  no  no  no  no  no  no  no  no  no  no  no  yes",
        ];
        assert_eq!(table.len(), State::ALL.len());
        for (from, row) in State::ALL.into_iter().zip(table) {
            let (name, row) = row.split_once(' ').unwrap();
            assert_eq!(serde_json::to_value(from).unwrap(), name);
            let words: Vec<_> = row.split_whitespace().collect();
            assert_eq!(words.len(), State::ALL.len());
            for (to, word) in State::ALL.into_iter().zip(words) {
                assert_eq!(from.may_become(to), word == "yes", "{from:?} to {to:?}");
            }
        }
    }
}

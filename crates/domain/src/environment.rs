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

    /// Whether nothing more happens by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Destroyed)
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn of_every_pair_nothing_on_its_way_out_comes_back_and_only_what_was_being_removed_is_gone() {
        for from in State::ALL {
            for to in State::ALL {
                let expected = match (from, to) {
                    (State::Destroyed, to) => to == State::Destroyed,
                    (State::Destroying, to) => matches!(to, State::Destroying | State::Destroyed),
                    (_, State::Destroyed) => false,
                    _ => true,
                };
                assert_eq!(from.may_become(to), expected, "{from:?} to {to:?}");
            }
        }
    }
}

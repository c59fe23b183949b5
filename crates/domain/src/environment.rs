//! Preview environments: the states one goes through, and the host it is reached by.

use serde::{Deserialize, Serialize};

use crate::state::IllegalTransition;

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

/// What can happen to an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A new generation: a push, a redeploy.
    Wished,
    /// The commit needs a member's approval.
    ApprovalNeeded,
    /// Builds were asked for.
    BuildStarted,
    /// Every image of this generation is there, the machine is not.
    ImagesReady,
    /// The machine was given the deployment.
    DeployStarted,
    /// The URL answered through the edge.
    Proved,
    /// It was asked to sleep.
    SleepRequested,
    /// The provider confirmed it.
    FellAsleep,
    /// It was asked to wake.
    WakeRequested,
    /// The run of this generation failed.
    RunFailed,
    /// The agent is silent past its lease.
    Lost,
    /// The agent speaks again.
    Found,
    /// Nobody wants it any more.
    DestroyRequested,
    /// The last machine and route are gone.
    Emptied,
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

    /// The state after `event`. An event that says what is known already changes nothing.
    ///
    /// # Errors
    /// [`IllegalTransition`]; nothing but [`Event::Emptied`] leaves [`State::Destroying`], and nothing at all
    /// leaves [`State::Destroyed`].
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        use State::{
            Asleep, AwaitingApproval, Building, Deploying, Destroyed, Destroying, Failed, Live, Provisioning, Queued,
            Sleeping, Unreachable, Waking,
        };
        Ok(match (self, event) {
            (Destroyed, _) => return Err(IllegalTransition::new("environment", self, event)),
            (Destroying, Event::DestroyRequested) => Destroying,
            (Destroying, Event::Emptied) => Destroyed,
            (Destroying, _) => return Err(IllegalTransition::new("environment", self, event)),
            (_, Event::DestroyRequested) => Destroying,
            (_, Event::Wished) => Queued,
            (_, Event::RunFailed) => Failed,
            (Queued | AwaitingApproval, Event::ApprovalNeeded) => AwaitingApproval,
            (Queued | AwaitingApproval | Building, Event::BuildStarted) => Building,
            (Queued | Building | Provisioning, Event::ImagesReady) => Provisioning,
            (Queued | Building | Provisioning | Deploying | Waking, Event::DeployStarted) => Deploying,
            (Deploying | Live | Waking | Unreachable, Event::Proved) => Live,
            (Live | Sleeping, Event::SleepRequested) => Sleeping,
            (Sleeping | Asleep, Event::FellAsleep) => Asleep,
            (Sleeping | Asleep | Waking, Event::WakeRequested) => Waking,
            (Provisioning | Deploying | Live | Waking | Unreachable, Event::Lost) => Unreachable,
            (Unreachable | Live, Event::Found) => Live,
            _ => return Err(IllegalTransition::new("environment", self, event)),
        })
    }

    /// Whether nothing more happens by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Destroyed)
    }
}

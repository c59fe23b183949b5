//! Build jobs: one image for one platform.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::machine::Size;
use crate::state::IllegalTransition;

/// Where a build job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "BuildState")]
pub enum State {
    /// Waits for a machine.
    Queued,
    /// Has a machine; the agent has not started it.
    Assigned,
    /// `BuildKit` works.
    Building,
    /// The image goes to the registry.
    Pushing,
    /// The registry has it; the digest is known. Final.
    Succeeded,
    /// Final; the job's failure says why.
    Failed,
    /// Not wanted any more. Final.
    Cancelled,
}

/// What can happen to a build job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// It was given a machine.
    Assigned,
    /// Its machine was lost before the end: it waits for another.
    MachineLost,
    /// The agent started.
    Started,
    /// The build is done, the push began.
    PushStarted,
    /// The registry answered with a digest.
    Pushed,
    /// It failed.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
}

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Assigned, Self::Building, Self::Pushing, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state after `event`. Facts may be seen late: a build may go from assigned to pushed at once.
    ///
    /// # Errors
    /// [`IllegalTransition`]; nothing leaves a final state.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        Ok(match (self, event) {
            (state, _) if state.is_final() => {
                return Err(IllegalTransition::new("build job", self, event));
            }
            (Self::Queued | Self::Assigned, Event::Assigned) => Self::Assigned,
            (_, Event::MachineLost) => Self::Queued,
            (Self::Assigned | Self::Building, Event::Started) => Self::Building,
            (Self::Assigned | Self::Building | Self::Pushing, Event::PushStarted) => Self::Pushing,
            (Self::Assigned | Self::Building | Self::Pushing, Event::Pushed) => Self::Succeeded,
            (_, Event::Failed) => Self::Failed,
            (_, Event::Cancelled) => Self::Cancelled,
            _ => return Err(IllegalTransition::new("build job", self, event)),
        })
    }

    /// Whether the job is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What is to be built, resolved and checked (`build_jobs.spec`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The commit, 40 hexadecimal digits.
    pub sha: String,
    /// Directory inside the repository, without a leading slash; `.` is its root.
    pub context: String,
    /// Path of the Dockerfile inside the context.
    pub dockerfile: String,
    /// The stage to build; empty for the last.
    pub stage: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Names of the project's secrets given to the build as `BuildKit` secrets.
    pub secrets: Vec<String>,
    /// The builder's size.
    pub size: Size,
    /// `repository:tag` inside the registry, without its host.
    pub image: String,
    /// The longest that it may take.
    pub timeout_secs: u32,
}

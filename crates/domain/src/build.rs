//! Build jobs: one image for one platform.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::machine::Size;

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

/// An event that cannot happen in a state. Seeing one is a bug or a stale writer, never a user's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a build job that is {state:?} cannot take {event:?}")]
pub struct IllegalTransition {
    state: State,
    event: Event,
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
            (state, _) if state.is_final() => return Err(IllegalTransition { state, event }),
            (Self::Queued | Self::Assigned, Event::Assigned) => Self::Assigned,
            (_, Event::MachineLost) => Self::Queued,
            (Self::Assigned | Self::Building, Event::Started) => Self::Building,
            (Self::Assigned | Self::Building | Self::Pushing, Event::PushStarted) => Self::Pushing,
            (Self::Assigned | Self::Building | Self::Pushing, Event::Pushed) => Self::Succeeded,
            (_, Event::Failed) => Self::Failed,
            (_, Event::Cancelled) => Self::Cancelled,
            (state, event) => return Err(IllegalTransition { state, event }),
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
    /// Git's name for the content of the context at the commit; `None` when it is not known, or does not tell all that
    /// the build reads.
    #[serde(default)]
    pub source: Option<String>,
    /// Directory inside the repository, without a leading slash; `.` is its root.
    pub context: String,
    /// Path of the Dockerfile, from the context or else from the repository's root.
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

impl Job {
    /// Whether this build would read the very same things as `earlier`: then the earlier image will do. A build with
    /// secrets, or with a Dockerfile from outside its context, is never taken to be the same.
    #[must_use]
    pub fn reads_the_same_as(&self, earlier: &Self) -> bool {
        let tells = |job: &Self| {
            let inside = !job.dockerfile.split('/').any(|part| part == "..");
            job.source.clone().filter(|_| inside && job.secrets.is_empty())
        };
        tells(self).is_some_and(|source| tells(earlier) == Some(source))
            && (&self.context, &self.dockerfile, &self.stage, &self.args)
                == (&earlier.context, &earlier.dockerfile, &earlier.stage, &earlier.args)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Job, State};
    use crate::machine::Size;

    fn job() -> Job {
        Job {
            sha: "1".repeat(40),
            source: Some("tree".to_owned()),
            context: "api".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            stage: String::new(),
            args: [("A".to_owned(), "1".to_owned())].into(),
            secrets: Vec::new(),
            size: Size::Medium,
            image: "p/api:x-1".to_owned(),
            timeout_secs: 60,
        }
    }

    #[test]
    fn an_image_is_taken_again_only_while_everything_that_its_build_reads_is_the_same() {
        // Another commit, tag, size or limit makes no other image.
        let later = Job { sha: "2".repeat(40), image: "p/api:x-2".into(), size: Size::Large, timeout_secs: 9, ..job() };
        assert!(later.reads_the_same_as(&job()));
        let differing = [
            Job { source: Some("other".into()), ..job() },
            Job { source: None, ..job() },
            Job { context: "web".into(), ..job() },
            Job { dockerfile: "Other".into(), ..job() },
            Job { stage: "test".into(), ..job() },
            Job { args: [("A".to_owned(), "2".to_owned())].into(), ..job() },
            Job { secrets: vec!["TOKEN".into()], ..job() },
            Job { dockerfile: "../Dockerfile".into(), ..job() },
        ];
        for other in differing {
            assert!(!other.reads_the_same_as(&job()) && !job().reads_the_same_as(&other), "{other:?}");
            // What cannot be known to be the same is not the same as itself either.
            let unknown = other.source.is_none() || !other.secrets.is_empty() || other.dockerfile.starts_with("..");
            assert_eq!(other.reads_the_same_as(&other), !unknown, "{other:?}");
        }
    }

    /// Every pair of state and event; `-` is refused.
    #[test]
    fn the_table_of_every_state_and_event() {
        use State::{Assigned, Building, Cancelled, Failed, Pushing, Queued, Succeeded};
        let events = [
            Event::Assigned,
            Event::MachineLost,
            Event::Started,
            Event::PushStarted,
            Event::Pushed,
            Event::Failed,
            Event::Cancelled,
        ];
        let table: [(State, [Option<State>; 7]); 7] = [
            (Queued, [Some(Assigned), Some(Queued), None, None, None, Some(Failed), Some(Cancelled)]),
            (
                Assigned,
                [
                    Some(Assigned),
                    Some(Queued),
                    Some(Building),
                    Some(Pushing),
                    Some(Succeeded),
                    Some(Failed),
                    Some(Cancelled),
                ],
            ),
            (
                Building,
                [None, Some(Queued), Some(Building), Some(Pushing), Some(Succeeded), Some(Failed), Some(Cancelled)],
            ),
            (Pushing, [None, Some(Queued), None, Some(Pushing), Some(Succeeded), Some(Failed), Some(Cancelled)]),
            (Succeeded, [None; 7]),
            (Failed, [None; 7]),
            (Cancelled, [None; 7]),
        ];
        for (state, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                assert_eq!(state.next(event).ok(), expected, "{state:?} on {event:?}");
            }
        }
        assert_eq!(table.map(|(state, _)| state), State::ALL);
    }
}

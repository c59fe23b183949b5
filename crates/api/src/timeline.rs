//! Where a run's time went: a waterfall computed from the times that rows carry anyway.
//!
//! A phase noted by the orchestrator (`workflow_runs.phases`) wins; `queue`, `builder`, `build`, `push` and
//! `boot` otherwise follow from the run's, the builds' and the machine's own rows. Phases overlap: a machine
//! boots while images build.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use stagely_domain::build::State;
use stagely_domain::offering;
use stagely_store::{BuildView, MachineView, RunView};

use crate::json::Timestamp;

/// Every phase in the order in which people read it, with the other names that a row may use for it.
const PHASES: [(&str, &[&str]); 12] = [
    ("queue", &[]),
    ("read", &[]),
    ("builder", &[]),
    ("build", &[]),
    ("push", &[]),
    ("boot", &[]),
    ("pull", &[]),
    ("up", &[]),
    ("hooks", &["on_start"]),
    ("healthy", &[]),
    ("routed", &["route"]),
    ("proved", &["prove"]),
];

/// One bar of the waterfall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; null while under way.
    pub finished_at: Option<Timestamp>,
    /// How long it took, in milliseconds; null while under way.
    pub ms: Option<i64>,
    /// Of `boot`: as what and where the machine was made, and what had no room for it.
    pub detail: Option<String>,
}

/// A stretch of time, open at its end while under way.
type Span = (DateTime<Utc>, Option<DateTime<Utc>>);

/// The phases that have begun.
#[must_use]
pub fn phases(run: &RunView, builds: &[BuildView], machine: Option<&MachineView>) -> Vec<Phase> {
    // An image of an earlier run that was taken as it was took no time.
    let builds: Vec<&BuildView> = builds.iter().filter(|build| !is_reused(build)).collect();
    PHASES
        .iter()
        .filter_map(|&(name, aliases)| {
            let noted = std::iter::once(&name).chain(aliases).find_map(|name| noted(&run.phases, name));
            let (start, end) = noted.or_else(|| derived(name, run, &builds, machine))?;
            // Two clocks may disagree by a little; a bar is never shorter than nothing.
            let end = end.map(|end| end.max(start));
            Some(Phase {
                name,
                started_at: start.into(),
                finished_at: end.map(Timestamp),
                ms: end.map(|end| (end - start).num_milliseconds()),
                detail: machine.filter(|_| name == "boot").and_then(place),
            })
        })
        .collect()
}

fn place(machine: &MachineView) -> Option<String> {
    offering::story(machine.offering.as_ref().filter(|_| machine.placed_at.is_some()), &machine.tried)
}

fn is_reused(build: &BuildView) -> bool {
    build.state == State::Succeeded && build.assigned_at.is_none()
}

fn noted(phases: &Value, name: &str) -> Option<Span> {
    let phase = phases.get(name)?;
    Some((instant(phase.get("started_at")?)?, phase.get("finished_at").and_then(instant)))
}

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.to_utc())
}

fn derived(name: &str, run: &RunView, builds: &[&BuildView], machine: Option<&MachineView>) -> Option<Span> {
    match name {
        "queue" => {
            let read = noted(&run.phases, "read").map(|(start, _)| start);
            let asked = builds.iter().map(|build| build.queued_at).min();
            Some((run.created_at, read.or(asked).or(run.finished_at)))
        }
        "builder" => span(builds, |build| Some(build.queued_at), |build| build.building_at),
        "build" => span(builds, |build| build.building_at, |build| build.pushing_at.or(build.finished_at)),
        "push" => span(builds, |build| build.pushing_at, |build| build.finished_at),
        "boot" => {
            // A machine that was there before the run did not boot for it.
            let machine = machine.filter(|machine| machine.intended_at >= run.created_at)?;
            Some((machine.intended_at, machine.enrolled_at))
        }
        _ => None,
    }
}

/// From the first start to the last end; open while any build that started has not ended.
fn span(
    builds: &[&BuildView],
    start: impl Fn(&BuildView) -> Option<DateTime<Utc>>,
    end: impl Fn(&BuildView) -> Option<DateTime<Utc>>,
) -> Option<Span> {
    let started: Vec<_> =
        builds.iter().filter_map(|build| Some((start(build)?, end(build).or(build.finished_at)))).collect();
    let first = started.iter().map(|(start, _)| *start).min()?;
    let open = started.len() < builds.len() || started.iter().any(|(_, end)| end.is_none());
    let last = started.iter().filter_map(|(_, end)| *end).max();
    Some((first, if open { None } else { last }))
}

#[cfg(test)]
mod tests;

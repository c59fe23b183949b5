//! From an agent's report to what is stored: every text cut to size, every list cut short, NUL taken out,
//! secrets hidden. A report is hostile until it has been through here.

use stagely_domain::build;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::mask::Patterns;
use stagely_proto::agent;
use stagely_store::agents::{BuildFact, Observed, Phase, Service, Step};

/// The longest list.
const MAX_ITEMS: usize = 200;
/// The longest name, state or digest, in bytes.
const MAX_WORD: usize = 256;
/// The longest message of a failure, in bytes.
const MAX_MESSAGE: usize = 4 * 1024;
/// The longest tail of a log, in bytes.
const MAX_TAIL: usize = 16 * 1024;

/// The report as it may be stored.
#[must_use]
pub fn parse(report: agent::Observed, patterns: &Patterns) -> Observed {
    let phase = report.phase();
    Observed {
        generation: report.generation,
        phase: match phase {
            agent::Phase::Unspecified | agent::Phase::Idle => Phase::Idle,
            agent::Phase::Working => Phase::Working,
            agent::Phase::Running => Phase::Running,
            agent::Phase::Failed => Phase::Failed,
            agent::Phase::Stopped => Phase::Stopped,
        },
        steps: report.steps.into_iter().take(MAX_ITEMS).map(step).collect(),
        services: report.services.into_iter().take(MAX_ITEMS).map(service).collect(),
        failure: report.failure.map(|reported| failure(reported, patterns)),
        builds: report.builds.into_iter().take(MAX_ITEMS).filter_map(|reported| build(reported, patterns)).collect(),
        disk_free_bytes: report.disk_free_bytes,
    }
}

fn step(reported: agent::Step) -> Step {
    Step {
        name: word(&reported.name),
        started_ms: reported.started_ms,
        finished_ms: (reported.finished_ms > 0).then_some(reported.finished_ms),
    }
}

fn service(reported: agent::ServiceStatus) -> Service {
    Service {
        name: word(&reported.name),
        state: word(&reported.state),
        health: word(&reported.health),
        exit_code: reported.exit_code,
        image: word(&reported.image),
        listening: reported.listening.into_iter().take(MAX_ITEMS).filter_map(|port| port.try_into().ok()).collect(),
    }
}

fn failure(reported: agent::Failure, patterns: &Patterns) -> Failure {
    Failure {
        code: Code::parse(&reported.code),
        phase: word(&reported.phase),
        service: (!reported.service.is_empty()).then(|| word(&reported.service)),
        exit_code: (reported.exit_code != 0).then_some(reported.exit_code),
        message: cut(&patterns.mask(&reported.message), MAX_MESSAGE),
        log_tail: last(&patterns.mask(&reported.log_tail), MAX_TAIL),
    }
}

/// `None` for an id that is none: such a job cannot be ours.
fn build(reported: agent::BuildStatus, patterns: &Patterns) -> Option<BuildFact> {
    use agent::build_status::State;
    let state = match reported.state() {
        State::Unspecified | State::Queued => build::State::Assigned,
        State::Building => build::State::Building,
        State::Pushing => build::State::Pushing,
        State::Succeeded => build::State::Succeeded,
        State::Failed => build::State::Failed,
        State::Cancelled => build::State::Cancelled,
    };
    Some(BuildFact {
        job: reported.job_id.parse().ok()?,
        state,
        digest: is_digest(&reported.digest).then_some(reported.digest),
        failure: reported.failure.map(|reported| failure(reported, patterns)),
        cached_steps: reported.cached_steps,
        total_steps: reported.total_steps,
    })
}

/// `sha256:` and 64 lower-case hexadecimal digits: it ends up in image references.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn word(text: &str) -> String {
    cut(text, MAX_WORD)
}

/// The beginning of `text`.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].replace('\0', "")
}

/// The end of `text`.
fn last(text: &str, max: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(max))..].replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::{MAX_ITEMS, MAX_MESSAGE, MAX_TAIL, parse};
    use stagely_domain::mask::Patterns;
    use stagely_proto::agent;

    #[test]
    fn a_huge_report_is_cut_to_size_and_cleaned() {
        let service = agent::ServiceStatus {
            name: "n\0".repeat(100_000),
            listening: vec![80, 70_000],
            ..agent::ServiceStatus::default()
        };
        let report = agent::Observed {
            services: vec![service; 1000],
            failure: Some(agent::Failure {
                code: "no such code".to_owned(),
                message: "ü".repeat(100_000),
                log_tail: format!("{}the end hunter2hunter2", "x".repeat(100_000)),
                ..agent::Failure::default()
            }),
            builds: vec![agent::BuildStatus { job_id: "nonsense".to_owned(), ..agent::BuildStatus::default() }],
            ..agent::Observed::default()
        };
        let kept = parse(report, &Patterns::new(["hunter2hunter2"]).unwrap());
        let failure = kept.failure.unwrap();
        assert_eq!(kept.services.len(), MAX_ITEMS);
        assert!(!kept.services[0].name.contains('\0'));
        assert_eq!(kept.services[0].listening, [80]);
        assert!(failure.message.len() <= MAX_MESSAGE && failure.log_tail.len() <= MAX_TAIL);
        assert!(failure.log_tail.ends_with("the end ***REDACTED***"), "{}", failure.log_tail);
        assert!(kept.builds.is_empty());
    }
}

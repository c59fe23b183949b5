//! The rules, as a pure function.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::environment::State;
use stagely_store::environments::Environment;
use stagely_store::{Power, Presence};

/// What must happen to an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its project is gone.
    Abandon,
    /// Its time is up.
    Expire,
    /// Nobody visits.
    Sleep,
}

/// The verdict on one environment; `project_exists` is whether its repository is still watched.
pub fn decide(env: &Environment, project_exists: bool, now: DateTime<Utc>) -> Option<Verdict> {
    if env.desired == Presence::Absent {
        return None;
    }
    if !project_exists {
        return Some(Verdict::Abandon);
    }
    if env.pinned {
        return None;
    }
    if env.expires_at <= now {
        return Some(Verdict::Expire);
    }
    let idle = env.sleep_after_secs.is_some_and(|secs| now - env.last_activity_at > TimeDelta::seconds(secs));
    (idle && env.state == State::Live && env.power == Power::Awake).then_some(Verdict::Sleep)
}

#[cfg(test)]
mod tests {
    use super::{Verdict, decide};
    use chrono::{DateTime, TimeDelta};
    use stagely_domain::environment::State;
    use stagely_domain::id::{EnvironmentId, ProjectId, TeamId};
    use stagely_store::environments::{Environment, PullRequest};
    use stagely_store::{Power, Presence};

    #[test]
    fn an_environment_ends_when_its_time_is_over_and_sleeps_when_nobody_comes() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let pr = PullRequest {
            number: 1,
            title: String::new(),
            branch: String::new(),
            author: String::new(),
            url: String::new(),
            sha: String::new(),
        };
        let live = Environment {
            id: EnvironmentId::generate(),
            team: TeamId::generate(),
            project: ProjectId::generate(),
            pr,
            hash: String::new(),
            desired: Presence::Present,
            power: Power::Awake,
            generation: 1,
            state: State::Live,
            reason: None,
            pinned: false,
            ttl_secs: 60,
            expires_at: now + TimeDelta::minutes(1),
            sleep_after_secs: Some(600),
            last_activity_at: now,
            created_at: now,
            updated_at: now,
            gone_at: None,
        };
        let after = |env: &Environment, exists, minutes| decide(env, exists, now + TimeDelta::minutes(minutes));
        assert_eq!(after(&live, true, 0), None);
        assert_eq!(after(&live, true, 2), Some(Verdict::Expire));
        assert_eq!(after(&live, false, 0), Some(Verdict::Abandon));
        let long = Environment { expires_at: now + TimeDelta::days(1), ..live.clone() };
        assert_eq!(after(&long, true, 11), Some(Verdict::Sleep));
        assert_eq!(after(&Environment { sleep_after_secs: None, ..long.clone() }, true, 11), None);
        assert_eq!(after(&Environment { state: State::Deploying, ..long.clone() }, true, 11), None);
        assert_eq!(after(&Environment { pinned: true, ..live.clone() }, true, 2), None);
        assert_eq!(after(&Environment { desired: Presence::Absent, ..live }, true, 2), None);
    }
}

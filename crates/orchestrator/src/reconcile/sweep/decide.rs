//! What a sweep does with each resource that the provider shows: a pure function of what is known of it.

use chrono::{DateTime, TimeDelta, Utc};

/// How old a resource that no row knows must be, and for how long it must have been seen.
pub const GRACE: TimeDelta = TimeDelta::minutes(10);

/// What the rows say of a resource's machine or image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStatus {
    /// It is to exist, or its row's reconciler is still removing it.
    Open,
    /// Its row was closed: it was intended to be gone.
    Closed,
    /// It is to exist, and its row means another one that runs, too.
    Twin,
    /// There is no such row.
    Unknown,
    /// There is no such row, and it was made at a time of which the rows know nothing: they may be an older copy.
    Forgotten,
}

/// One machine, or one resource that a machine left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    pub row: RowStatus,
    /// A person has said at the provider that it must stay.
    pub hold: bool,
    /// When it was made; unknown counts as just now.
    pub created_at: Option<DateTime<Utc>>,
    /// When a sweep first saw that nothing wants it.
    pub marked_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Remembered, and looked at again by a later sweep.
    Mark,
    Remove,
}

/// What the lists before have shown in the same sweep, and how much of it is removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    pub shown: usize,
    pub removals: usize,
}

/// The verdict on each of `resources`, in their order, and how many more would go if so many at once were not
/// suspicious: more than five and than a fifth of all that the sweep was shown so far. `may_remove` says whether anything
/// may go, which nothing does on a partial list. While `paused`, so that a person can look, what has no row stays.
pub fn decide(
    resources: &[Resource],
    before: Before,
    may_remove: bool,
    paused: bool,
    now: DateTime<Utc>,
) -> (Vec<Verdict>, usize) {
    let limit = ((before.shown + resources.len()) / 5).max(5).saturating_sub(before.removals);
    let mut removals = 0;
    let mut one = |resource: &Resource| match verdict(resource, now) {
        Verdict::Remove if !may_remove || (paused && resource.row == RowStatus::Unknown) => Verdict::Mark,
        Verdict::Remove => {
            removals += 1;
            if removals > limit { Verdict::Mark } else { Verdict::Remove }
        }
        other => other,
    };
    let verdicts = resources.iter().map(&mut one).collect();
    (verdicts, removals.saturating_sub(limit))
}

fn verdict(resource: &Resource, now: DateTime<Utc>) -> Verdict {
    if is_kept(resource) {
        return Verdict::Keep;
    }
    let Some(marked_at) = resource.marked_at else { return Verdict::Mark };
    let is_old = now - marked_at > GRACE && resource.created_at.is_some_and(|made| now - made > GRACE);
    match resource.row {
        RowStatus::Closed => Verdict::Remove,
        _ if is_old => Verdict::Remove,
        _ => Verdict::Mark,
    }
}

/// Whether it stays, whatever else is true of it.
fn is_kept(resource: &Resource) -> bool {
    resource.hold || matches!(resource.row, RowStatus::Open | RowStatus::Forgotten)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::{Strategy, any, prop, proptest};

    use super::{Before, GRACE, Resource, RowStatus, Verdict, decide, is_kept};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn any_resource() -> impl Strategy<Value = Resource> {
        let rows = prop::sample::select(vec![
            RowStatus::Open,
            RowStatus::Closed,
            RowStatus::Twin,
            RowStatus::Unknown,
            RowStatus::Forgotten,
        ]);
        let past = || prop::option::of((0..40_i64).prop_map(|age| now() - TimeDelta::minutes(age)));
        (rows, any::<bool>(), past(), past()).prop_map(|(row, hold, created_at, marked_at)| Resource {
            row,
            hold,
            created_at,
            marked_at,
        })
    }

    proptest! {
        #[test]
        fn nothing_goes_that_is_wanted_held_new_or_seen_for_the_first_time(
            resources in prop::collection::vec(any_resource(), 0..60),
            may_remove in any::<bool>(),
            paused in any::<bool>(),
        ) {
            let (verdicts, beyond) = decide(&resources, Before::default(), may_remove, paused, now());
            assert_eq!(verdicts.len(), resources.len());
            let mut removed = 0;
            for (resource, verdict) in resources.iter().zip(&verdicts) {
                if *verdict == Verdict::Remove {
                    removed += 1;
                    assert!(may_remove && !is_kept(resource) && resource.marked_at.is_some());
                    assert!(!paused || resource.row != RowStatus::Unknown);
                    assert!(resource.row == RowStatus::Closed || resource.created_at.unwrap() < now() - GRACE);
                }
                // What nothing wants is at least remembered, so that it goes one day.
                assert_eq!(*verdict == Verdict::Keep, is_kept(resource));
            }
            let limit = (resources.len() / 5).max(5);
            assert!(removed <= limit && (beyond == 0 || removed == limit));
        }

        #[test]
        fn two_lists_of_one_sweep_lose_no_more_than_one_list_of_all_could(
            first in prop::collection::vec(any_resource(), 0..60),
            second in prop::collection::vec(any_resource(), 0..60),
        ) {
            let removed = |resources: &[Resource], before: Before| {
                let (verdicts, beyond) = decide(resources, before, true, false, now());
                (verdicts.iter().filter(|verdict| **verdict == Verdict::Remove).count(), beyond)
            };
            let (before, _) = removed(&first, Before::default());
            let (after, beyond) = removed(&second, Before { shown: first.len(), removals: before });
            let limit = ((first.len() + second.len()) / 5).max(5);
            assert!(before + after <= limit && (beyond == 0 || before + after == limit));
        }

        #[test]
        fn what_nothing_wants_is_gone_in_the_end(mut resources in prop::collection::vec(any_resource(), 0..60)) {
            let mut at = now();
            for _ in 0..40 {
                let (verdicts, _) = decide(&resources, Before::default(), true, false, at);
                let mut next = Vec::new();
                for (resource, verdict) in resources.into_iter().zip(verdicts) {
                    match verdict {
                        Verdict::Keep => next.push(resource),
                        Verdict::Mark => next.push(Resource { marked_at: resource.marked_at.or(Some(at)), ..resource }),
                        Verdict::Remove => {}
                    }
                }
                (resources, at) = (next, at + TimeDelta::minutes(1));
            }
            let stays = |resource: &Resource| {
                is_kept(resource) || (resource.row != RowStatus::Closed && resource.created_at.is_none())
            };
            assert!(resources.iter().all(stays), "{resources:?}");
        }
    }
}

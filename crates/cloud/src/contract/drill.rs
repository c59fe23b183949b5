//! The cases and their steps for tests, which end at the first thing that is wrong.

use std::time::Duration;

use stagely_domain::clock::Clock;
use stagely_domain::id::InstallationId;

use super::{CASES, Case, Patience, Purse, Trial, request};
use crate::catalogue::candidates;
use crate::{Cloud, CreateRequest, DeleteProgress, ProviderId, SleepProgress};

/// For doubles, which are quick.
const QUICK: Patience = Patience {
    step: Duration::from_secs(60),
    look: Duration::from_millis(1),
    case: Duration::from_secs(300),
    clearing: Duration::from_secs(120),
};

/// Asks every case but those of these numbers, which must be exactly those that such a provider is not asked.
///
/// # Panics
/// When a case does not hold, or cannot be cleared up after.
pub async fn keeps(cloud: &dyn Cloud, clock: &dyn Clock, not_asked: &[u8]) {
    let offerings = cloud.catalogue().await.expect("the catalogue");
    let capabilities = cloud.capabilities();
    let spared: Vec<u8> = CASES
        .iter()
        .filter(|case| case.not_asked(&capabilities, &offerings).is_some())
        .map(|case| case.number)
        .collect();
    assert_eq!(spared, not_asked, "the cases that are not asked");
    let purse = Purse::bottomless();
    let mut failures = Vec::new();
    for case in CASES.iter().filter(|case| !spared.contains(&case.number)) {
        failures.extend(failure(case, &Trial::new(cloud, clock, &offerings, QUICK, &purse)).await);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn failure(case: &Case, trial: &Trial<'_>) -> Option<String> {
    let asked = case.ask(trial).await;
    let left = trial.clear().await;
    let about = format!("case {} ({})", case.number, case.name);
    match asked {
        Err(failure) => Some(format!("{about}: {failure}; left: {left:?}")),
        Ok(()) if left.is_empty() => None,
        Ok(()) => Some(format!("{about}: left: {left:?}")),
    }
}

/// A request of the cheapest type that the provider has in its catalogue.
///
/// # Panics
/// When the catalogue cannot be read.
pub async fn offered(cloud: &dyn Cloud, installation: InstallationId, clock: &dyn Clock) -> CreateRequest {
    let request = request(installation, clock);
    let offerings = cloud.catalogue().await.expect("the catalogue");
    let offering = candidates(&offerings, request.size, request.arch, &[]).first().copied().cloned();
    CreateRequest { offering, ..request }
}

/// Puts a machine to sleep, however many calls that takes.
///
/// # Panics
/// When it fails, or does not end.
pub async fn put_to_sleep(cloud: &dyn Cloud, id: &ProviderId) {
    for _ in 0..120 {
        if cloud.hibernate(id).await.expect("hibernate") == SleepProgress::Asleep {
            return;
        }
    }
    panic!("{id} does not fall asleep");
}

/// Deletes a machine, however many calls that takes.
///
/// # Panics
/// When it fails, or does not end.
pub async fn delete(cloud: &dyn Cloud, id: &ProviderId) {
    for _ in 0..120 {
        if cloud.delete(id).await.expect("delete") == DeleteProgress::Gone {
            return;
        }
    }
    panic!("{id} does not go");
}

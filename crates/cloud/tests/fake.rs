use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::contract::{CASES, Failure, Patience, Purse, Trial};
use stagely_cloud::testing::{FakeCloud, Fault};
use stagely_cloud::{CreateRequest, Created, ErrorKind, Offering, Price};
use stagely_domain::clock::SystemClock;
use stagely_domain::cost::Billing;
use stagely_domain::machine::{Arch, Provider};

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let cloud = FakeCloud::new(Arc::new(SystemClock));
    cloud.bake_at_once();
    stagely_cloud::contract::keeps(&cloud, &SystemClock, &[39, 29]).await;
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_images() {
    let cloud = FakeCloud::new(Arc::new(SystemClock));
    let power_off = async |request: &CreateRequest, _: &Created| cloud.power_off(request.machine);
    stagely_cloud::contract::golden_images(&cloud, &SystemClock, power_off).await;
    assert_eq!((cloud.machines(), cloud.residue()), (vec![], vec![]));
}

/// The case that makes one machine, on a cloud that fails so; what is set aside for one start, and in all.
async fn makes_one(cloud: &FakeCloud, faults: &[Fault], limit_micros: u64) -> (Result<(), Failure>, u64) {
    let offering = Offering {
        name: "small".to_owned(),
        location: "here".to_owned(),
        arch: Arch::Amd64,
        vcpus: 1,
        memory_mib: 2048,
        price: Some(Price { micros_per_hour: 1000, currency: "EUR".to_owned() }),
        available: true,
    };
    let quick = Duration::from_millis(1);
    let patience = Patience { look: quick, ..Patience::default() };
    let purse = Purse::new(limit_micros, Billing::of(Provider::Hetzner), Duration::from_secs(600));
    let offerings = [offering];
    let trial = Trial::new(cloud, &SystemClock, &offerings, patience, &purse);
    faults.iter().for_each(|fault| cloud.fail_next(*fault));
    let case = CASES.iter().find(|case| case.number == 2).unwrap();
    let asked = case.ask(&trial).await;
    assert_eq!(trial.clear().await, Vec::<String>::new());
    (asked, purse.spent_micros())
}

#[tokio::test]
async fn what_may_have_been_made_is_looked_for_and_paid_for() {
    let new = || FakeCloud::new(Arc::new(SystemClock));
    let after = Fault::After;
    // The answer is lost: it is found, and not made again.
    let cloud = new();
    let (asked, spent) = makes_one(&cloud, &[after], 1000).await;
    assert_eq!((asked, spent, cloud.creates()), (Ok(()), 1000, 1));
    // It is found at the second look.
    let cloud = new();
    let (asked, spent) = makes_one(&cloud, &[after, Fault::Before(ErrorKind::Unavailable)], 1000).await;
    assert_eq!((asked, spent, cloud.creates()), (Ok(()), 1000, 1));
    // The look is refused for good: what was made has cost.
    let cloud = new();
    let (asked, spent) = makes_one(&cloud, &[after, Fault::Before(ErrorKind::Quota)], 1000).await;
    assert!(asked.is_err());
    assert_eq!((spent, cloud.creates()), (1000, 1));
    // What certainly was not made has cost nothing, however often it was asked for.
    let cloud = new();
    let busy = Fault::Before(ErrorKind::Unavailable);
    let (asked, spent) = makes_one(&cloud, &[busy, busy, Fault::Before(ErrorKind::Quota)], 1000).await;
    assert!(asked.is_err());
    assert_eq!((spent, cloud.creates()), (0, 0));
}

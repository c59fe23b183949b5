//! The simulated cloud: it keeps the contract when it is well-behaved, and misbehaves as real ones do when told to.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::catalogue::candidates;
use stagely_cloud::contract::{self, baking, dropped, golden_images, request};
use stagely_cloud::testing::sim::{Billing, Habits, SimCloud};
use stagely_cloud::testing::{Chance, Doom};
use stagely_cloud::{
    CaptureProgress, CaptureRequest, Cloud, CreateRequest, DeleteProgress, ErrorKind, Offering, Price, SleepProgress,
    VmState,
};
use stagely_domain::clock::{Clock, ManualClock};
use stagely_domain::id::{ImageId, InstallationId};
use stagely_domain::machine::{Arch, Size};

fn world(habits: Habits) -> (SimCloud, ManualClock) {
    let clock = ManualClock::at(DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap());
    let doom = Arc::new(Doom::new(Chance::new(1)));
    let cloud = SimCloud::new(Chance::new(2), Arc::new(clock.clone()), doom);
    cloud.behave(habits);
    (cloud, clock)
}

fn offering(name: &str, micros_per_hour: u64) -> Offering {
    Offering {
        name: name.to_owned(),
        location: "a".to_owned(),
        arch: Arch::Amd64,
        vcpus: 2,
        memory_mib: 4096,
        price: Some(Price { micros_per_hour, currency: "EUR".to_owned() }),
        available: true,
    }
}

#[tokio::test]
async fn the_simulation_keeps_the_contract() {
    let (cloud, clock) = world(Habits::default());
    cloud.sell(vec![(offering("small", 6000), None)]);
    contract::keeps(&cloud, &clock, &[]).await;
    assert!(cloud.records().iter().all(|record| !record.is_alive()));
}

#[tokio::test]
async fn what_is_new_shows_late_and_what_is_gone_fades() {
    let span = TimeDelta::seconds(30);
    let (cloud, clock) = world(Habits { shows_after: span, fades_after: span, ..Habits::default() });
    let request = request(InstallationId::generate(), &clock);
    let created = cloud.create(&request).await.unwrap();
    let shows_at = cloud.records()[0].shown_from();
    assert!(shows_at > clock.now(), "this seed shows nothing late");
    assert_eq!(cloud.find(request.machine).await.unwrap(), []);
    assert_eq!(
        cloud.create(&request).await.unwrap().id,
        created.id,
        "the same request is the same machine all the same"
    );
    clock.advance(span);
    assert_eq!(cloud.list(request.installation).await.unwrap().vms.len(), 1);
    assert_eq!(cloud.delete(&created.id).await.unwrap(), DeleteProgress::Gone);
    assert_eq!(cloud.find(request.machine).await.unwrap().len(), 1, "this seed fades at once");
    clock.advance(span);
    assert_eq!(cloud.find(request.machine).await.unwrap(), []);
}

#[tokio::test]
async fn a_lost_answer_has_its_effect_and_a_late_landing_has_it_later() {
    let (cloud, clock) = world(Habits { loses_answers: 1000, ..Habits::default() });
    let first = request(InstallationId::generate(), &clock);
    let error = cloud.create(&first).await.unwrap_err();
    assert!(error.ambiguous && cloud.records().len() == 1);
    cloud.behave(Habits { lands_late: 1000, late_by: TimeDelta::seconds(90), ..Habits::default() });
    let second = request(first.installation, &clock);
    assert!(cloud.create(&second).await.unwrap_err().ambiguous);
    assert!(cloud.records().len() == 1 && cloud.has_landings());
    clock.advance(TimeDelta::seconds(90));
    assert!(cloud.records().len() == 2 && !cloud.has_landings());
}

#[tokio::test]
async fn quota_room_and_rate_are_refused_with_certainty() {
    let (cloud, clock) = world(Habits { quota: Some(1), ..Habits::default() });
    cloud.sell(vec![(offering("full", 1), Some(0)), (offering("free", 2), None)]);
    let of =
        |name: &str| CreateRequest { offering: Some(offering(name, 1)), ..request(InstallationId::generate(), &clock) };
    let refused = async |request| {
        let error = cloud.create(&request).await.unwrap_err();
        assert!(!error.ambiguous);
        error.kind
    };
    assert_eq!(refused(of("full")).await, ErrorKind::Capacity);
    assert_eq!(refused(of("retired")).await, ErrorKind::Invalid);
    cloud.create(&of("free")).await.unwrap();
    assert_eq!(refused(of("free")).await, ErrorKind::Quota);
    cloud.behave(Habits { per_minute: Some(5), ..Habits::default() });
    cloud.check_access().await.unwrap();
    assert!(matches!(refused(of("free")).await, ErrorKind::RateLimited { .. }));
    clock.advance(TimeDelta::minutes(1));
    cloud.check_access().await.unwrap();
}

/// Case 24 of the contract: nobody is left to delete it, and it ends.
#[tokio::test]
async fn a_machine_whose_time_is_up_ends_itself_or_stops_where_that_does_not_delete() {
    for (power_off_deletes, expected) in [(true, None), (false, Some(VmState::Stopped))] {
        let (cloud, clock) = world(Habits { power_off_deletes, ..Habits::default() });
        let request = request(InstallationId::generate(), &clock);
        cloud.create(&request).await.unwrap();
        clock.advance(TimeDelta::minutes(59));
        assert_eq!(cloud.find(request.machine).await.unwrap()[0].state, VmState::Running);
        clock.advance(TimeDelta::minutes(1));
        let state = cloud.find(request.machine).await.unwrap().first().map(|vm| vm.state.clone());
        assert_eq!(state, expected);
    }
}

/// Case 38.
#[tokio::test]
async fn a_machine_costs_what_the_providers_table_says() {
    let (least, hours) = (Billing::Seconds { least: 60 }, Billing::Hours);
    for (billing, awake_secs, micros) in [
        (Billing::Seconds { least: 0 }, 1, 1),
        (Billing::Seconds { least: 0 }, 1800, 1800),
        (least, 1, 60),
        (least, 61, 61),
        (hours, 1, 3600),
        (hours, 3600, 3600),
        (hours, 3601, 7200),
    ] {
        let (cloud, clock) = world(Habits { billing, ..Habits::default() });
        cloud.sell(vec![(offering("small", 3600), None)]);
        let request = CreateRequest {
            offering: Some(offering("small", 3600)),
            expires_at: clock.now() + TimeDelta::days(30),
            ..request(InstallationId::generate(), &clock)
        };
        let created = cloud.create(&request).await.unwrap();
        clock.advance(TimeDelta::seconds(awake_secs));
        cloud.hibernate(&created.id).await.unwrap();
        clock.advance(TimeDelta::days(3));
        assert_eq!(cloud.spent_micros(), micros, "{billing:?} after {awake_secs} s; asleep it costs nothing");
        cloud.wake(&created.id).await.unwrap();
        clock.advance(TimeDelta::seconds(awake_secs));
        cloud.delete(&created.id).await.unwrap();
        clock.advance(TimeDelta::days(3));
        assert_eq!(cloud.spent_micros(), 2 * micros, "{billing:?}: each time that it is awake is billed by itself");
    }
}

/// Case 39.
#[tokio::test]
async fn a_full_type_is_marked_and_not_dropped_and_every_price_has_a_currency() {
    let (cloud, _) = world(Habits::default());
    cloud.sell(vec![(offering("dear", 9), None), (offering("full", 1), Some(0)), (offering("cheap", 2), Some(3))]);
    let catalogue = cloud.catalogue().await.unwrap();
    let order: Vec<(&str, bool)> = candidates(&catalogue, Size::Medium, Arch::Amd64, &[])
        .into_iter()
        .map(|offering| (offering.name.as_str(), offering.available))
        .collect();
    assert_eq!(order, [("cheap", true), ("dear", true), ("full", false)]);
    assert!(catalogue.iter().flat_map(|offering| &offering.price).all(|price| price.currency == "EUR"));
}

#[tokio::test]
async fn the_simulation_keeps_the_contract_of_images() {
    for power_off_deletes in [true, false] {
        let (cloud, clock) = world(Habits { power_off_deletes, bakes_in: TimeDelta::minutes(1), ..Habits::default() });
        cloud.sell(vec![(offering("small", 6000), None)]);
        golden_images(&cloud, &clock, async |_, _| clock.advance(TimeDelta::minutes(1))).await;
        assert!(cloud.records().iter().all(|record| !record.is_alive()));
        assert!(cloud.pictures().iter().all(|picture| !picture.is_alive()));
    }
}

#[tokio::test]
async fn an_image_takes_its_time_shows_late_and_has_twins_where_names_are_not_unique() {
    let span = TimeDelta::seconds(60);
    for makes_twins in [false, true] {
        let slow =
            Habits { shows_after: span, images_in: span * 2, loses_answers: 1000, makes_twins, ..Habits::default() };
        let (cloud, clock) = world(Habits::default());
        let bake = baking(&cloud, InstallationId::generate(), &clock).await;
        let machine = cloud.create(&bake).await.unwrap().id;
        let wanted = CaptureRequest { image: ImageId::generate(), installation: bake.installation, machine };
        cloud.behave(slow);
        for _ in 0..2 {
            assert!(cloud.capture(&wanted).await.unwrap_err().ambiguous);
        }
        cloud.change(|habits| habits.loses_answers = 0);
        assert_eq!(cloud.pictures().len(), if makes_twins { 2 } else { 1 });
        assert_eq!(cloud.capture(&wanted).await.unwrap(), CaptureProgress::InProgress);
        clock.advance(span * 2);
        let CaptureProgress::Ready(image) = cloud.capture(&wanted).await.unwrap() else { panic!("not ready") };
        assert_eq!(image.reference, cloud.pictures()[0].reference, "the older one is meant");
        dropped(&cloud, wanted.installation, wanted.image).await;
        assert!(cloud.pictures().iter().all(|picture| !picture.is_alive()));
        let unknown = CreateRequest { image: Some(image.reference), ..request(wanted.installation, &clock) };
        assert_eq!(cloud.create(&unknown).await.unwrap_err().kind, ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn what_is_half_asleep_is_shown_asleep_and_costs() {
    let (cloud, clock) = world(Habits { sleeps_by_halves: true, ..Habits::default() });
    cloud.sell(vec![(offering("small", 3600), None)]);
    let request =
        CreateRequest { offering: Some(offering("small", 3600)), ..request(InstallationId::generate(), &clock) };
    let id = cloud.create(&request).await.unwrap().id;
    let ten_seconds_later = || {
        clock.advance(TimeDelta::seconds(10));
        cloud.spent_micros()
    };
    assert_eq!(cloud.hibernate(&id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(cloud.find(request.machine).await.unwrap()[0].state, VmState::Hibernated);
    assert_eq!(ten_seconds_later(), 10);
    assert_eq!(cloud.wake(&id).await.unwrap().state, VmState::Running);
    assert_eq!(ten_seconds_later(), 20);
    assert_eq!(cloud.hibernate(&id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(ten_seconds_later(), 30);
    for _ in 0..2 {
        assert_eq!(cloud.hibernate(&id).await.unwrap(), SleepProgress::Asleep);
        assert_eq!(ten_seconds_later(), 30);
    }
    assert_eq!(cloud.records()[0].awake.len(), 1);
}

#[tokio::test]
async fn what_bakes_in_vain_stays_up_past_its_end() {
    let (cloud, clock) = world(Habits { bakes_in_vain: 1000, ..Habits::default() });
    let bake = baking(&cloud, InstallationId::generate(), &clock).await;
    let machine = cloud.create(&bake).await.unwrap().id;
    clock.advance(TimeDelta::days(1));
    assert_eq!(cloud.find(bake.machine).await.unwrap()[0].state, VmState::Running);
    let wanted = CaptureRequest { image: ImageId::generate(), installation: bake.installation, machine };
    assert_eq!(cloud.capture(&wanted).await.unwrap(), CaptureProgress::InProgress);
    assert!(cloud.pictures().is_empty());
}

#[tokio::test]
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    let (cloud, clock) = world(Habits::default());
    let request = request(InstallationId::generate(), &clock);
    let created = cloud.create(&request).await.unwrap();
    cloud.hold(request.machine, true);
    assert_eq!(cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held);
    assert!(cloud.records()[0].is_awake());
    cloud.hold(request.machine, false);
    assert_eq!(cloud.delete(&created.id).await.unwrap(), DeleteProgress::Gone);
}

//! Sleep, waking and deletion, undisturbed.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, SleepProgress, VmState};

use super::double::world::{Action, Misplaced};
use super::rest::sleeping::{half_asleep, takes_long};
use super::{NOTHING, ONE_ASLEEP, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn sleep_costs_only_a_snapshot_and_keeps_the_disk() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    let before = rig.cloud.find(request.machine).await.unwrap().remove(0);
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
    assert!(rig.double.world().accounts[0].images.values().all(|image| image.clean), "it was shut down first");
    let shown = rig.double.world().accounts[0].images.values().last().unwrap().shown.clone();
    let (installation, machine) = (request.installation, request.machine);
    for tag in [format!("stagely-installation:{installation}"), format!("stagely-machine:{machine}")] {
        assert!(shown["tags"].as_array().unwrap().contains(&tag.into()), "{shown}");
    }
    let asleep = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((&asleep.state, &asleep.address), (&VmState::Hibernated, &None));
    assert_eq!((&asleep.id, asleep.expires_at), (&created.id, request.expires_at));
    assert_eq!(rig.cloud.list(request.installation).await.unwrap().vms, [asleep]);
    let awake = rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!((&awake.state, &awake.id), (&VmState::Running, &created.id));
    assert_eq!((awake.expires_at, awake.environment), (request.expires_at, request.environment));
    assert_ne!(awake.address, before.address, "another droplet has another address");
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
    let asked = rig.double.world().accounts[0].machines.values().next().unwrap().asked.clone();
    assert_eq!((&asked["size"], &asked["region"]), (&"s-1vcpu-2gb".into(), &"ams3".into()), "where it was before");
    assert!(rig.user_data().contains("blackhole") && !rig.user_data().contains("contract-token"));
}

#[tokio::test]
async fn a_shutdown_that_is_never_heard_and_long_under_way_ends_in_a_power_cut() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    (rig.double.world().knobs.deaf, rig.double.world().knobs.looks) = (true, 300);
    let mut calls = 0;
    while rig.cloud.hibernate(&created.id).await.unwrap() == SleepProgress::InProgress {
        calls += 1;
        assert!(calls < 2000);
    }
    assert_eq!((rig.bill(), rig.asked("POST /v2/droplets/") <= 5), (ONE_ASLEEP, true));
}

#[tokio::test]
async fn what_takes_long_is_asked_again() {
    for early in [false, true] {
        let rig = Rig::start().await;
        rig.double.world().knobs.early = early;
        takes_long(&rig).await;
    }
}

#[tokio::test]
async fn a_machine_sleeps_and_wakes_again_and_again_under_one_id() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("0").await;
    for night in 1..=3 {
        put_to_sleep(&rig.cloud, &created.id).await;
        assert_eq!(rig.cloud.wake(&created.id).await.unwrap().id, created.id);
        assert_eq!(rig.disk(), (night - 1).to_string());
        rig.write(&night.to_string());
        assert_eq!(rig.cloud.create(&request).await.unwrap().id, created.id);
        assert_eq!(rig.bill(), ONE_AWAKE);
    }
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_snapshot_that_fails_is_an_error_and_the_machine_stays() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.fail_snapshots = 1;
    let mut error = None;
    for _ in 0..20 {
        error = error.or(rig.cloud.hibernate(&created.id).await.err());
        if error.is_some() {
            break;
        }
    }
    assert_eq!((error.unwrap().kind, rig.bill()), (ErrorKind::Unavailable, ONE_AWAKE));
    put_to_sleep(&rig.cloud, &created.id).await;
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(rig.disk(), "work");
}

#[tokio::test]
async fn a_machine_that_cannot_return_to_its_place_keeps_sleeping() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    rig.double.world().knobs.full = [("s-1vcpu-2gb", "ams3")].into();
    assert_eq!(rig.cloud.wake(&created.id).await.unwrap_err().kind, ErrorKind::Capacity);
    rig.double.world().knobs.full.clear();
    for (misplaced, looks) in [(Misplaced::Fails, 2), (Misplaced::Vanishes, 1000)] {
        rig.double.world().knobs.misplace = [misplaced].into();
        rig.double.world().knobs.looks = looks;
        assert_eq!(rig.cloud.wake(&created.id).await.unwrap_err().kind, ErrorKind::Capacity);
        assert_eq!(rig.bill(), ONE_ASLEEP);
    }
    rig.double.world().knobs.looks = 2;
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Hibernated);
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
}

#[tokio::test]
async fn a_machine_that_a_person_turned_on_while_it_fell_asleep_loses_nothing() {
    for (interrupted, off_again) in [(false, false), (true, false), (false, true), (true, true)] {
        let rig = Rig::start().await;
        let (_, created) = half_asleep(&rig).await;
        {
            let mut world = rig.double.world();
            let world = &mut *world;
            let team = &mut world.accounts[0];
            for (id, droplet) in &mut team.machines {
                droplet.status = if off_again { "off" } else { "active" };
                let (region, droplet) = (droplet.region.clone(), *id);
                let on = Action { kind: "power_on", droplet, region, left: 0, failed: false, image: None };
                team.actions.insert(world.knobs.id(), on);
            }
        }
        rig.write("newer");
        if interrupted {
            let snapshot =
                |seen: &crate::fault_proxy::Seen| String::from_utf8_lossy(&seen.body).contains("\"snapshot\"");
            rig.proxy.harm_when(snapshot, Fault::ResetBefore);
            while rig.cloud.hibernate(&created.id).await.is_ok() {}
            assert_eq!(rig.proxy.calm(), 1);
        }
        put_to_sleep(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), ONE_ASLEEP);
        rig.cloud.wake(&created.id).await.unwrap();
        assert_eq!(rig.disk(), "newer");
    }
}

#[tokio::test]
async fn a_wake_that_meets_a_droplet_that_is_going_keeps_the_snapshot_until_something_runs() {
    let rig = Rig::start().await;
    let (_, created) = half_asleep(&rig).await;
    rig.double.world().knobs.looks = 40;
    // The droplet is told to go, and is seen for a while yet.
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    let mut refused = 0;
    while let Err(error) = rig.cloud.wake(&created.id).await {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        refused += 1;
        assert!(refused < 100);
    }
    assert!(refused > 0);
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
}

#[tokio::test]
async fn a_machine_that_is_woken_while_its_snapshot_is_taken_loses_nothing() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    rig.double.world().knobs.looks = 300;
    let is_taken = || rig.double.world().accounts[0].images.values().any(|image| image.shown["status"] == "pending");
    let mut calls = 0;
    while !is_taken() {
        assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
        calls += 1;
        assert!(calls < 1000);
    }
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Stopped);
    let mut refused = 0;
    while let Err(error) = rig.cloud.wake(&created.id).await {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        refused += 1;
        assert!(refused < 1000);
    }
    assert!(refused > 0);
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
}

#[tokio::test]
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    for what in ["awake", "asleep", "unlisted"] {
        let rig = Rig::start().await;
        let (_, created) = rig.running("").await;
        if what == "asleep" {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        rig.hold_machines(true);
        rig.hold_snapshots(true);
        rig.double.world().knobs.unlisted = what == "unlisted";
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held, "{what}");
        assert_eq!(rig.bill(), if what == "asleep" { ONE_ASLEEP } else { ONE_AWAKE });
        rig.double.world().knobs.unlisted = false;
        rig.hold_machines(false);
        rig.hold_snapshots(false);
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

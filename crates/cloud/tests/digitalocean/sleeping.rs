//! Sleep, waking and deletion, undisturbed.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, Created, DeleteProgress, ErrorKind, ProviderId, SleepProgress, VmState};
use stagely_domain::id::MachineId;

use super::double::world::{Action, Bill, Misplaced};
use super::{NOTHING, ONE_ASLEEP, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn sleep_costs_only_a_snapshot_and_keeps_the_disk() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    let before = rig.cloud.find(request.machine).await.unwrap().remove(0);
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
    assert!(rig.double.world().teams[0].images.values().all(|image| image.clean), "it was shut down first");
    let shown = rig.double.world().teams[0].images.values().last().unwrap().shown.clone();
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
    let asked = rig.double.world().teams[0].droplets.values().next().unwrap().asked.clone();
    assert_eq!((&asked["size"], &asked["region"]), (&"s-1vcpu-2gb".into(), &"ams3".into()), "where it was before");
    let user_data = asked["user_data"].as_str().unwrap();
    assert!(user_data.contains("blackhole") && !user_data.contains("contract-token"));
}

#[tokio::test]
async fn a_machine_that_does_not_listen_is_turned_off() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.deaf = true;
    put_to_sleep(&rig.cloud, &created.id).await;
    // Shutdown, power off and snapshot, each once.
    assert_eq!((rig.bill(), rig.asked("POST /v2/droplets/")), (ONE_ASLEEP, 3));
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(rig.disk(), "work");
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
        let (_, created) = rig.running("work").await;
        (rig.double.world().knobs.looks, rig.double.world().knobs.early) = (300, early);
        let mut calls = 0;
        while rig.cloud.hibernate(&created.id).await.unwrap() == SleepProgress::InProgress {
            calls += 1;
            assert!(calls < 2000);
        }
        assert!(calls > 2);
        assert_eq!(rig.bill(), ONE_ASLEEP);
        let mut refused = 0;
        while let Err(error) = rig.cloud.wake(&created.id).await {
            assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
            refused += 1;
            assert!(refused < 2000);
        }
        assert!(refused > 0);
        assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
        let mut calls = 0;
        while rig.cloud.delete(&created.id).await.unwrap() == DeleteProgress::InProgress {
            calls += 1;
            assert!(calls < 2000);
        }
        assert_eq!(rig.bill(), NOTHING);
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
async fn a_machine_that_turned_itself_off_is_stopped_and_can_sleep_wake_or_go() {
    for what in ["sleep", "wake", "delete"] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("work").await;
        for droplet in rig.double.world().teams[0].droplets.values_mut() {
            droplet.status = "off";
        }
        assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Stopped);
        match what {
            "sleep" => put_to_sleep(&rig.cloud, &created.id).await,
            "wake" => assert_eq!(rig.cloud.wake(&created.id).await.unwrap().state, VmState::Running),
            _ => delete(&rig.cloud, &created.id).await,
        }
        let expected = match what {
            "sleep" => ONE_ASLEEP,
            "wake" => ONE_AWAKE,
            _ => NOTHING,
        };
        assert_eq!(rig.bill(), expected, "{what}");
    }
}

#[tokio::test]
async fn a_machine_is_deleted_in_whatever_state_it_is() {
    let rig = Rig::start().await;
    // Being made: it is locked until it is there.
    let request = rig.request().await;
    rig.double.world().knobs.looks = 30;
    let created = rig.cloud.create(&request).await.unwrap();
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    rig.double.world().knobs.looks = 2;
    // Asleep.
    let (_, created) = rig.running("").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    // Being put to sleep.
    let (_, created) = rig.running("").await;
    rig.double.world().knobs.looks = 100;
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    delete(&rig.cloud, &created.id).await;
}

#[tokio::test]
async fn a_provider_id_that_is_no_machine_of_ours_is_never_sent() {
    let rig = Rig::start().await;
    let machine = MachineId::generate().label();
    for id in ["4711", "../droplets/1", "", &format!("{machine}/x"), &format!("{machine}/")] {
        assert_eq!(rig.cloud.delete(&ProviderId(id.to_owned())).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(rig.asked(""), 0);
    let absent = ProviderId(machine);
    assert_eq!(rig.cloud.wake(&absent).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.console_tail(&absent).await.unwrap(), None);
}

/// Asleep but for the removal of its droplet.
async fn half_asleep(rig: &Rig) -> (CreateRequest, Created) {
    let (request, created) = rig.running("work").await;
    rig.proxy.harm_when(|seen| seen.method == "DELETE", Fault::ResetBefore);
    while rig.cloud.hibernate(&created.id).await.is_ok() {}
    rig.proxy.calm();
    assert_eq!(rig.bill(), Bill { snapshots: 1, ..ONE_AWAKE });
    (request, created)
}

#[tokio::test]
async fn a_machine_that_is_half_asleep_is_one_that_sleeps() {
    let rig = Rig::start().await;
    let (request, _) = half_asleep(&rig).await;
    let found = rig.cloud.find(request.machine).await.unwrap();
    assert_eq!(found.iter().map(|vm| &vm.state).collect::<Vec<_>>(), [&VmState::Hibernated]);
    assert_eq!(rig.cloud.list(request.installation).await.unwrap().vms, found);
}

#[tokio::test]
async fn a_machine_that_a_person_turned_on_while_it_fell_asleep_loses_nothing() {
    for (interrupted, off_again) in [(false, false), (true, false), (false, true), (true, true)] {
        let rig = Rig::start().await;
        let (_, created) = half_asleep(&rig).await;
        {
            let mut world = rig.double.world();
            let world = &mut *world;
            let team = &mut world.teams[0];
            for (id, droplet) in &mut team.droplets {
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
    let is_taken = || rig.double.world().teams[0].images.values().any(|image| image.shown["status"] == "pending");
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
async fn a_droplet_stays_until_its_snapshot_is_whole() {
    let rig = Rig::start().await;
    let (_, created) = half_asleep(&rig).await;
    let set = |status: &str| {
        for image in rig.double.world().teams[0].images.values_mut() {
            image.shown["status"] = status.into();
        }
    };
    set("pending");
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(rig.bill().droplets, 1);
    set("available");
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
}

#[tokio::test]
async fn a_snapshot_that_a_person_holds_while_its_machine_falls_asleep_is_held_whatever_becomes_of_it() {
    for what in ["sleep", "wake", "turned on", "delete"] {
        let rig = Rig::start().await;
        let (request, created) = half_asleep(&rig).await;
        {
            let team = &mut rig.double.world().teams[0];
            team.tags.insert("stagely-hold:ada".to_owned());
            for image in team.images.values_mut().filter(|image| image.droplet != 0) {
                image.shown["tags"].as_array_mut().unwrap().push("stagely-hold:ada".into());
            }
            if what == "turned on" {
                team.droplets.values_mut().for_each(|droplet| droplet.status = "active");
            }
        }
        assert!(rig.cloud.list(request.installation).await.unwrap().vms[0].hold);
        match what {
            "sleep" | "turned on" => put_to_sleep(&rig.cloud, &created.id).await,
            "wake" => drop(rig.cloud.wake(&created.id).await.unwrap()),
            // Its owner looked before it was held.
            _ => assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held),
        }
        let bill = match what {
            "wake" => ONE_AWAKE,
            "delete" => Bill { snapshots: 1, ..ONE_AWAKE },
            _ => ONE_ASLEEP,
        };
        assert_eq!(rig.bill(), bill, "{what}");
        assert!(rig.cloud.find(request.machine).await.unwrap()[0].hold, "{what}");
    }
}

#[tokio::test]
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    const HOLD: &str = "stagely-hold:ada";
    for what in ["awake", "asleep", "unlisted"] {
        let rig = Rig::start().await;
        let (_, created) = rig.running("").await;
        if what == "asleep" {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        {
            let team = &mut rig.double.world().teams[0];
            team.droplets.values_mut().for_each(|droplet| droplet.tags.push(HOLD.to_owned()));
            let snapshots = team.images.values_mut().filter(|image| image.droplet != 0);
            snapshots.for_each(|image| image.shown["tags"].as_array_mut().unwrap().push(HOLD.into()));
        }
        rig.double.world().knobs.unlisted = what == "unlisted";
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held, "{what}");
        assert_eq!(rig.bill(), if what == "asleep" { ONE_ASLEEP } else { ONE_AWAKE });
        {
            let world = &mut *rig.double.world();
            world.knobs.unlisted = false;
            world.teams[0].droplets.values_mut().for_each(|droplet| droplet.tags.retain(|tag| tag != HOLD));
            let snapshots = world.teams[0].images.values_mut().filter(|image| image.droplet != 0);
            snapshots.for_each(|image| image.shown["tags"].as_array_mut().unwrap().retain(|tag| tag != HOLD));
        }
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

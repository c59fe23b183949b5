//! Sleep, waking and deletion, undisturbed.

use serde_json::Value;
use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, Created, DeleteProgress, ErrorKind, ProviderId, SleepProgress, VmState};
use stagely_domain::id::MachineId;

use super::double::world::Bill;
use super::{NOTHING, ONE_ASLEEP, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn sleep_costs_only_a_snapshot_and_keeps_the_disk() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
    assert!(rig.double.world().projects[0].images.values().all(|image| image.clean), "it was shut down first");
    let asleep = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((&asleep.state, &asleep.address), (&VmState::Hibernated, &None));
    assert_eq!(asleep.expires_at, request.expires_at);
    assert_eq!(rig.cloud.list(request.installation).await.unwrap().vms, [asleep]);
    let awake = rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(
        (&awake.state, awake.expires_at, awake.environment),
        (&VmState::Running, request.expires_at, request.environment)
    );
    assert_ne!(awake.address, created.address, "another server has another address");
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
    let server = rig.double.world().projects[0].servers.values().next().unwrap().user_data.clone();
    assert!(server.contains("blackhole") && !server.contains("contract-token"));
}

#[tokio::test]
async fn a_machine_that_does_not_listen_is_turned_off() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.deaf = true;
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!((rig.bill(), rig.asked("POST /v1/servers/1")), (ONE_ASLEEP, 3));
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(rig.disk(), "work");
}

#[tokio::test]
async fn what_takes_long_is_asked_again() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.looks = 300;
    let mut calls = 0;
    while rig.cloud.hibernate(&created.id).await.unwrap() == SleepProgress::InProgress {
        calls += 1;
        assert!(calls < 1000);
    }
    assert!(calls > 2);
    assert_eq!(rig.bill(), ONE_ASLEEP);
    let mut refused = 0;
    while let Err(error) = rig.cloud.wake(&created.id).await {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        refused += 1;
        assert!(refused < 1000);
    }
    assert!(refused > 0);
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
    while rig.cloud.delete(&created.id).await.unwrap() == DeleteProgress::InProgress {}
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_machine_that_cannot_return_to_its_place_keeps_sleeping() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    rig.double.world().knobs.full = [("cx23", "fsn1")].into();
    assert_eq!(rig.cloud.wake(&created.id).await.unwrap_err().kind, ErrorKind::Capacity);
    rig.double.world().knobs.full.clear();
    rig.double.world().knobs.fail_placing = [("resource_unavailable", false)].into();
    assert_eq!(rig.cloud.wake(&created.id).await.unwrap_err().kind, ErrorKind::Capacity);
    assert_eq!(rig.bill(), ONE_ASLEEP);
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Hibernated);
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "work"));
}

#[tokio::test]
async fn a_machine_that_turned_itself_off_is_stopped_and_can_sleep_wake_or_go() {
    for what in ["sleep", "wake", "delete"] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("work").await;
        for server in rig.double.world().projects[0].servers.values_mut() {
            server.status = "off";
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
    let created = rig.cloud.create(&request).await.unwrap();
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    // Asleep.
    let (_, created) = rig.running("").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    // Being put to sleep.
    let (_, created) = rig.running("").await;
    rig.double.world().knobs.looks = 30;
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    delete(&rig.cloud, &created.id).await;
}

#[tokio::test]
async fn a_provider_id_that_is_no_machine_of_ours_is_never_sent() {
    let rig = Rig::start().await;
    for id in ["4711", "../servers/1", "", "env-01h455vb4pex5vsknk084sn02q"] {
        assert_eq!(rig.cloud.delete(&ProviderId(id.to_owned())).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(rig.asked(""), 0);
    let absent = ProviderId(MachineId::generate().label());
    assert_eq!(rig.cloud.wake(&absent).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.console_tail(&absent).await.unwrap(), None);
}

/// Asleep but for the removal of its server.
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
    for interrupted in [false, true] {
        let rig = Rig::start().await;
        let (_, created) = half_asleep(&rig).await;
        for server in rig.double.world().projects[0].servers.values_mut() {
            server.status = "running";
        }
        rig.write("newer");
        if interrupted {
            rig.proxy.harm_when(|seen| seen.path.ends_with("create_image"), Fault::ResetBefore);
            assert!(rig.cloud.hibernate(&created.id).await.is_err());
            assert_eq!(rig.proxy.calm(), 1);
        }
        put_to_sleep(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), ONE_ASLEEP);
        rig.cloud.wake(&created.id).await.unwrap();
        assert_eq!(rig.disk(), "newer");
    }
}

#[tokio::test]
async fn a_server_stays_until_its_snapshot_is_whole() {
    let rig = Rig::start().await;
    let (_, created) = half_asleep(&rig).await;
    let set = |status: &str| {
        for image in rig.double.world().projects[0].images.values_mut() {
            image.shown["status"] = status.into();
        }
    };
    set("creating");
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(rig.bill().servers, 1);
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
            let project = &mut rig.double.world().projects[0];
            for image in project.images.values_mut().filter(|image| image.shown["type"] == "snapshot") {
                image.shown["labels"]["stagely-hold"] = "ada".into();
                image.shown["labels"]["note"] = "mine".into();
            }
            if what == "turned on" {
                project.servers.values_mut().for_each(|server| server.status = "running");
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
        if what == "sleep" {
            let note = rig.double.world().projects[0].images.values().last().unwrap().shown["labels"]["note"].clone();
            assert_eq!(note, "mine");
        }
    }
}

#[tokio::test]
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    for asleep in [false, true] {
        let rig = Rig::start().await;
        let (_, created) = rig.running("").await;
        if asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        let hold = |held: bool| {
            let change = |labels: &mut Value| match held {
                true => labels["stagely-hold"] = "ada".into(),
                false => drop(labels.as_object_mut().unwrap().remove("stagely-hold")),
            };
            let project = &mut rig.double.world().projects[0];
            project.servers.values_mut().for_each(|server| change(&mut server.labels));
            let snapshots = project.images.values_mut().filter(|image| image.shown["type"] == "snapshot");
            snapshots.for_each(|image| change(&mut image.shown["labels"]));
        };
        hold(true);
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held);
        assert_eq!(rig.bill(), if asleep { ONE_ASLEEP } else { ONE_AWAKE });
        hold(false);
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

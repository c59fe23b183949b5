//! Sleep, waking and deletion, undisturbed.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, Created, DeleteProgress, ErrorKind, ProviderId, SleepProgress, VmState};
use stagely_domain::id::MachineId;

use super::{ONE_AWAKE, Rig};
use crate::double::{Bill, NOTHING, ONE_ASLEEP};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_machine_that_does_not_listen_is_turned_off() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.deaf = true;
    put_to_sleep(&rig.cloud, &created.id).await;
    // Shutdown, power off and snapshot, each once.
    assert_eq!((rig.bill(), rig.asked(&format!("POST {}/", Rig::MACHINES))), (ONE_ASLEEP, 3));
    rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(rig.disk(), "work");
}

/// A machine falls asleep, wakes and goes, each in many calls.
pub async fn takes_long(rig: &Rig) {
    let (_, created) = rig.running("work").await;
    rig.double.world().knobs.looks = 300;
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

#[tokio::test]
async fn a_machine_that_turned_itself_off_is_stopped_and_can_sleep_wake_or_go() {
    for what in ["sleep", "wake", "delete"] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("work").await;
        rig.set_status("off");
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
    let damaged = [format!("{machine}/x"), format!("{machine}/")];
    let foreign = ["4711", "../servers/1", "../droplets/1", "", "env-01h455vb4pex5vsknk084sn02q"];
    for id in foreign.into_iter().chain(damaged.iter().map(String::as_str)) {
        assert_eq!(rig.cloud.delete(&ProviderId(id.to_owned())).await.unwrap_err().kind, ErrorKind::Invalid, "{id}");
    }
    assert_eq!(rig.asked(""), 0);
    let absent = ProviderId(machine);
    assert_eq!(rig.cloud.wake(&absent).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.console_tail(&absent).await.unwrap(), None);
}

/// What a person writes on a snapshot that he holds.
pub const NOTE: &str = "note-of-ada";

/// Asleep but for the removal of what ran.
pub async fn half_asleep(rig: &Rig) -> (CreateRequest, Created) {
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
async fn what_runs_stays_until_its_snapshot_is_whole() {
    let rig = Rig::start().await;
    let (_, created) = half_asleep(&rig).await;
    let set = |status: &str| {
        for image in rig.double.world().accounts[0].images.values_mut() {
            image.shown["status"] = status.into();
        }
    };
    set(Rig::UNFINISHED);
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(rig.bill().machines, 1);
    set("available");
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
}

#[tokio::test]
async fn a_snapshot_that_a_person_holds_while_its_machine_falls_asleep_is_held_whatever_becomes_of_it() {
    for what in ["sleep", "wake", "turned on", "delete"] {
        let rig = Rig::start().await;
        let (request, created) = half_asleep(&rig).await;
        rig.hold_snapshots(true);
        if what == "turned on" {
            rig.set_status(Rig::ON);
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
            let shown = rig.double.world().accounts[0].images.values().last().unwrap().shown.clone();
            assert!(
                shown.to_string().contains(&format!("\"{NOTE}\"")),
                "what else a person wrote on it stays: {shown}"
            );
        }
    }
}

//! Sleep and waking.

use stagely_cloud::contract::put_to_sleep;
use stagely_cloud::{Cloud, ErrorKind, SleepProgress, VmState};

use super::{ONE_ASLEEP, ONE_AWAKE, Rig};

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_sleeping_machine_keeps_its_disk_and_gets_a_new_address() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let before = rig.cloud.find(request.machine).await.unwrap().remove(0);
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(request.machine).await, ONE_ASLEEP);
    let asleep = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((asleep.state, asleep.address, &asleep.id), (VmState::Hibernated, None, &created.id));
    let left = rig.cloud.list_residue(request.installation).await.unwrap().items;
    assert_eq!(left.len(), 1, "its disk is no residue: {left:?}");
    let awake = rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!((awake.state, &awake.id), (VmState::Running, &created.id));
    assert!(awake.address.is_some() && awake.address != before.address, "{:?}", awake.address);
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn sleep_and_waking_take_the_time_that_they_take() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.moto.world().knobs.slow = 3;
    let created = rig.cloud.create(&request).await.unwrap();
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap(), SleepProgress::InProgress);
    assert_eq!(rig.asked("StopInstances"), 0, "what starts cannot be stopped");
    let mut steps = 0;
    while rig.cloud.hibernate(&created.id).await.unwrap() != SleepProgress::Asleep {
        steps += 1;
        assert!(steps < 20);
        // What still stops is not asleep, and cannot be woken.
        if rig.asked("StopInstances") == 1 && steps < 4 {
            assert_ne!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Hibernated);
        }
    }
    assert_eq!(rig.asked("StopInstances"), 1);
    let awake = rig.cloud.wake(&created.id).await.unwrap();
    assert_eq!(awake.state, VmState::Running);
    assert_eq!(rig.asked("StartInstances"), 1);
    rig.moto.world().knobs.slow = 1_000_000;
    rig.cloud.hibernate(&created.id).await.unwrap();
    let error = rig.cloud.wake(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_has_ended_is_neither_put_to_sleep_nor_woken() {
    let rig = Rig::start().await;
    let (_, created) = rig.running().await;
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.wake(&created.id).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.asked("StopInstances") + rig.asked("StartInstances"), 0);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn the_console_is_shown() {
    let rig = Rig::start().await;
    let (_, created) = rig.running().await;
    let console = rig.cloud.console_tail(&created.id).await.unwrap();
    assert!(console.is_none_or(|text| !text.contains('\u{fffd}')));
}

//! Sleep, waking and deletion, undisturbed.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, VmState};

use super::rest::sleeping::{half_asleep, takes_long};
use super::{NOTHING, ONE_ASLEEP, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn sleep_costs_only_a_snapshot_and_keeps_the_disk() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("work").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
    assert!(rig.double.world().accounts[0].images.values().all(|image| image.clean), "it was shut down first");
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
    assert!(rig.user_data().contains("blackhole") && !rig.user_data().contains("contract-token"));
}

#[tokio::test]
async fn what_takes_long_is_asked_again() {
    takes_long(&Rig::start().await).await;
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
async fn a_machine_that_a_person_turned_on_while_it_fell_asleep_loses_nothing() {
    for interrupted in [false, true] {
        let rig = Rig::start().await;
        let (_, created) = half_asleep(&rig).await;
        rig.set_status(Rig::ON);
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
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    for asleep in [false, true] {
        let rig = Rig::start().await;
        let (_, created) = rig.running("").await;
        if asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        rig.hold_machines(true);
        rig.hold_snapshots(true);
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held);
        assert_eq!(rig.bill(), if asleep { ONE_ASLEEP } else { ONE_AWAKE });
        rig.hold_machines(false);
        rig.hold_snapshots(false);
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

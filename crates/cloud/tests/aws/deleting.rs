//! Deleting: whatever state it is in, however often, with all that it owns, and never on the word of one look.

use std::time::Duration;

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, DeleteProgress, ErrorKind, ProviderId, ResidueKind, VmState};
use stagely_domain::id::MachineId;

use super::proxy::between;
use super::{NOTHING, ONE_AWAKE, Rig, config, provider};

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_goes_from_any_state_with_all_that_it_owns() {
    let rig = Rig::start().await;
    let first = rig.request().await;
    for (slow, asleep) in [(0, false), (0, true), (3, false), (3, true)] {
        rig.moto.world().knobs.slow = slow;
        let request = CreateRequest { machine: MachineId::generate(), ..first.clone() };
        let created = rig.cloud.create(&request).await.unwrap();
        if asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(request.machine).await, NOTHING);
        assert_eq!(rig.cloud.find(request.machine).await.unwrap(), []);
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Gone);
    }
    let left = rig.cloud.list_residue(first.installation).await.unwrap().items;
    assert_eq!(left.iter().map(|item| item.kind).collect::<Vec<_>>(), [ResidueKind::Firewall]);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_that_ends_is_shown_as_that_until_it_has_ended() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    rig.moto.world().knobs.slow = 2;
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::InProgress);
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Deleting);
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::InProgress);
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Gone);
    assert_eq!(rig.asked("TerminateInstances"), 1);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_young_machine_that_nothing_shows_is_there_and_is_deleted_in_the_end() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.moto.world().knobs.hidden = 12;
    let created = rig.cloud.create(&request).await.unwrap();
    // Neither a look for it, nor a list, nor a wish for its end is told that there is none.
    let vm = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((vm.state, vm.id.clone()), (VmState::Pending, created.id.clone()));
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!(listing.vms.iter().map(|vm| vm.machine).collect::<Vec<_>>(), [request.machine]);
    assert_eq!(rig.cloud.hibernate(&created.id).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::InProgress);
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
    // Another process that knows nothing of it does not believe it gone either.
    let other = provider(config(&rig.proxy.url()));
    assert_eq!(other.delete(&created.id).await.unwrap(), DeleteProgress::InProgress);
    for _ in 0..20 {
        if rig.cloud.find(request.machine).await.unwrap().iter().any(|vm| vm.state == VmState::Running) {
            break;
        }
    }
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Running);
    delete(&other, &created.id).await;
    assert_eq!(rig.bill(request.machine).await, NOTHING);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_id_that_nobody_shows_is_gone_at_the_second_look() {
    let rig = Rig::start().await;
    let id = ProviderId("i-0123456789abcdef0".to_owned());
    assert_eq!(rig.cloud.delete(&id).await.unwrap(), DeleteProgress::InProgress);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(rig.cloud.delete(&id).await.unwrap(), DeleteProgress::Gone);
    assert_eq!(rig.cloud.hibernate(&id).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.wake(&id).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(rig.cloud.console_tail(&id).await.unwrap(), None);
}

/// Of all that it could mean, gone is what nobody would ever notice.
#[tokio::test]
async fn a_machine_of_a_region_that_the_account_has_not_any_more_is_not_called_gone() {
    // Nobody is asked.
    let cloud = provider(config("http://127.0.0.1:1"));
    let id = ProviderId("eu-west-1/i-0123456789abcdef0".to_owned());
    for refused in
        [cloud.delete(&id).await.map(drop), cloud.hibernate(&id).await.map(drop), cloud.wake(&id).await.map(drop)]
    {
        let error = refused.unwrap_err();
        assert!(error.kind == ErrorKind::Invalid && error.message.contains("in eu-west-1, which"), "{error}");
    }
    // What was never an id of a machine is none here either, by whichever of its names.
    for none in ["4711", "eu-central-1/4711"] {
        assert_eq!(cloud.delete(&ProviderId(none.to_owned())).await.unwrap(), DeleteProgress::Gone);
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_is_not_ours_or_is_protected_stays() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let id = &*created.id.0;
    let protect =
        |value| [("Action", "ModifyInstanceAttribute"), ("InstanceId", id), ("DisableApiTermination.Value", value)];
    rig.moto.ask(&protect("true")).await;
    let error = rig.cloud.delete(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    rig.moto.ask(&protect("false")).await;
    let untag = [("Action", "DeleteTags"), ("ResourceId.1", id), ("Tag.1.Key", "stagely-machine")];
    rig.moto.ask(&untag).await;
    for outcome in [
        rig.cloud.delete(&created.id).await.map(drop),
        rig.cloud.hibernate(&created.id).await.map(drop),
        rig.cloud.wake(&created.id).await.map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Permission);
    }
    assert_eq!((rig.asked("TerminateInstances"), rig.asked("StopInstances")), (1, 0));
    // Looked for by the tag that it lost it is not there; it costs, and is found by its name.
    for outcome in [rig.cloud.find(request.machine).await, rig.cloud.find_removed(request.machine).await] {
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Permission);
    }
    assert!(!rig.cloud.list(request.installation).await.unwrap().complete);
    assert_ne!(rig.moto.ask(&[("Action", "DescribeInstances"), ("InstanceId.1", id)]).await.find("running"), None);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_a_person_holds_since_somebody_looked_is_not_deleted() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let id = &*created.id.0;
    let attached = ("Filter.1.Name", "attachment.instance-id");
    let volumes = rig.moto.ask(&[("Action", "DescribeVolumes"), attached, ("Filter.1.Value.1", id)]).await;
    let disk = between(&volumes, "<volumeId>", "<").unwrap();
    for part in [id, disk] {
        let tag = [("ResourceId.1", part), ("Tag.1.Key", "stagely-hold")];
        rig.moto.ask(&[&[("Action", "CreateTags"), ("Tag.1.Value", "ada")][..], &tag].concat()).await;
        assert_eq!(rig.cloud.delete(&created.id).await.unwrap(), DeleteProgress::Held, "{part}");
        assert_eq!((rig.asked("TerminateInstances"), rig.bill(request.machine).await), (0, ONE_AWAKE));
        rig.moto.ask(&[&[("Action", "DeleteTags")][..], &tag].concat()).await;
    }
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(request.machine).await, NOTHING);
}

//! Making machines: adopted, refused, placed or not.

use serde_json::json;
use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, DeleteProgress, ErrorKind, ProviderId, VmState};
use stagely_domain::machine::Arch;

use super::double::TOKEN;
use super::double::world::Misplaced;
use super::{Bill, NOTHING, ONE_AWAKE, Rig, config, connect};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_create_does_not_wait_for_the_boot_and_is_known_at_once() {
    let rig = Rig::start().await;
    rig.double.world().knobs.looks = 1_000_000;
    let request = rig.request().await;
    let created = rig.cloud.create(&request).await.unwrap();
    let vm = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((vm.state, vm.id, vm.expires_at), (VmState::Pending, created.id, request.expires_at));
    assert_eq!((vm.environment, vm.address, created.address), (request.environment, None, None));
    let asked = rig.double.world().accounts[0].machines.values().next().unwrap().asked.clone();
    assert_eq!((&asked["with_droplet_agent"], &asked["name"]), (&json!(false), &json!(request.machine.label())));
    let tags: Vec<String> = serde_json::from_value(asked["tags"].clone()).unwrap();
    for wanted in [
        format!("stagely-installation:{}", request.installation),
        format!("stagely-machine:{}", request.machine),
        format!("stagely-environment:{}", request.environment.unwrap()),
        "stagely-role:preview".to_owned(),
        format!("stagely-expires:{}", request.expires_at.timestamp()),
    ] {
        assert!(tags.contains(&wanted), "{wanted} is not in {tags:?}");
    }
}

#[tokio::test]
async fn a_machine_that_runs_has_the_address_of_its_ingress() {
    let rig = Rig::start().await;
    let (request, _) = rig.running("").await;
    let address = rig.cloud.find(request.machine).await.unwrap().remove(0).address.unwrap();
    assert!(address.starts_with("203.0.") && address.ends_with(":7443"), "{address}");
    assert_eq!(rig.cloud.create(&request).await.unwrap().address, Some(address));
}

#[tokio::test]
async fn a_foreign_machine_is_neither_adopted_nor_deleted_nor_called_gone() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let tag = |tags: &[String]| {
        for droplet in rig.double.world().accounts[0].machines.values_mut() {
            droplet.tags = tags.to_vec();
        }
    };
    // One with our name and without our tags is one of ours that lost them: nobody else has a machine's id in a name.
    tag(&["somebody".to_owned()]);
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap_err().kind, ErrorKind::Permission);
    assert_eq!(rig.bill(), ONE_AWAKE);
    // One with our tag that is not ours is in the way.
    tag(&[format!("stagely-machine:{}", request.machine), "stagely-installation:damaged".to_owned()]);
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Exists, false));
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap_err().kind, ErrorKind::Permission);
    assert_eq!(rig.bill(), ONE_AWAKE);
}

#[tokio::test]
async fn what_is_not_understood_is_adopted_and_not_made_twice() {
    for fault in [Fault::Garble, Fault::Truncate, Fault::LoseAnswer] {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.proxy.harm_when(|seen| seen.method == "POST" && seen.path == "/v2/droplets", fault);
        rig.cloud.create(&request).await.unwrap();
        assert_eq!((rig.bill(), rig.proxy.calm()), (ONE_AWAKE, 1));
    }
}

/// Two droplets of one machine: the answer to the first create was lost, and no list showed it in time. The second is the
/// one whose id is known.
async fn twins(rig: &Rig) -> (CreateRequest, ProviderId) {
    let request = rig.request().await;
    rig.double.world().knobs.unseen = 20;
    rig.proxy.harm_when(|seen| seen.method == "POST" && seen.path == "/v2/droplets", Fault::LoseAnswer);
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert!(error.ambiguous, "{error}");
    rig.proxy.calm();
    rig.double.world().knobs.unseen = 0;
    let second = rig.cloud.create(&request).await.unwrap();
    let mut looks = 0;
    while rig.cloud.find(request.machine).await.unwrap().len() < 2 {
        looks += 1;
        assert!(looks < 100);
    }
    (request, second.id)
}

#[tokio::test]
async fn twins_that_a_lost_answer_and_a_late_list_made_are_shown_and_removed_one_by_one() {
    let rig = Rig::start().await;
    let (request, known) = twins(&rig).await;
    let twins = rig.cloud.find(request.machine).await.unwrap();
    let ids: Vec<&ProviderId> = twins.iter().map(|vm| &vm.id).collect();
    assert!(ids.contains(&&known) && ids[0] != ids[1]);
    let first = twins.iter().find(|vm| vm.id != known).unwrap();
    // However often one is deleted, the other stays.
    delete(&rig.cloud, &first.id).await;
    assert_eq!(rig.cloud.delete(&first.id).await.unwrap(), DeleteProgress::Gone);
    let left = rig.cloud.find(request.machine).await.unwrap();
    assert_eq!((left.len(), &left[0].id), (1, &known));
    // The machine as such is all of its twins.
    delete(&rig.cloud, &ProviderId(request.machine.label())).await;
    assert_eq!((rig.bill(), rig.asked("DELETE /v2/droplets?")), (NOTHING, 0));
}

#[tokio::test]
async fn a_twin_that_sleeps_wakes_as_itself_while_the_other_runs() {
    let rig = Rig::start().await;
    let (request, known) = twins(&rig).await;
    let number = known.0.split_once('/').unwrap().1.parse::<u64>().unwrap();
    "work".clone_into(&mut rig.double.world().accounts[0].machines.get_mut(&number).unwrap().disk);
    put_to_sleep(&rig.cloud, &known).await;
    assert_eq!(rig.bill(), Bill { snapshots: 1, ..ONE_AWAKE });
    assert_eq!(rig.cloud.wake(&known).await.unwrap().id, known);
    assert_eq!(rig.bill(), Bill { machines: 2, ..ONE_AWAKE });
    let disks: Vec<String> =
        rig.double.world().accounts[0].machines.values().map(|droplet| droplet.disk.clone()).collect();
    assert_eq!(disks, ["", "work"]);
    delete(&rig.cloud, &ProviderId(request.machine.label())).await;
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn a_new_machine_that_is_not_seen_at_once_is_not_taken_for_lost() {
    let rig = Rig::start().await;
    rig.double.world().knobs.unseen = 4;
    let request = rig.request().await;
    rig.cloud.create(&request).await.unwrap();
    assert_eq!(rig.bill(), ONE_AWAKE);
    rig.settle(&request).await;
}

#[tokio::test]
async fn a_new_machine_that_no_list_shows_yet_is_deleted_by_its_number() {
    let rig = Rig::start().await;
    rig.double.world().knobs.unlisted = true;
    let request = rig.request().await;
    let created = rig.cloud.create(&request).await.unwrap();
    assert_eq!((rig.bill(), rig.cloud.find(request.machine).await.unwrap()), (ONE_AWAKE, vec![]));
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
    // A number alone is no proof: a droplet with the tags of another machine stays, and is not called gone either.
    let other = rig.cloud.create(&rig.request().await).await.unwrap();
    let (_, number) = other.id.0.split_once('/').unwrap();
    let stranger = ProviderId(format!("{}/{number}", request.machine.label()));
    let error = rig.cloud.delete(&stranger).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.message.contains(&format!("droplet {number}")), "{error}");
    assert_eq!(rig.bill(), ONE_AWAKE);
}

#[tokio::test]
async fn a_machine_that_is_accepted_and_then_not_placed_leaves_nothing() {
    for (misplaced, looks) in [(Misplaced::Fails, 2), (Misplaced::FailsAndStays, 2), (Misplaced::Vanishes, 1000)] {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.double.world().knobs.misplace = [misplaced].into();
        rig.double.world().knobs.looks = looks;
        let error = rig.cloud.create(&request).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Capacity, false), "{misplaced:?}: {error}");
        rig.double.world().knobs.looks = 2;
        let mut seen = 0;
        while !rig.cloud.find(request.machine).await.unwrap().is_empty() {
            seen += 1;
            assert!(seen < 100);
        }
        assert_eq!(rig.bill(), NOTHING);
        rig.cloud.create(&request).await.unwrap();
        assert_eq!(rig.bill(), ONE_AWAKE);
    }
}

/// What was accepted and not placed is seen while it goes. It is no machine for who asks elsewhere meanwhile.
#[tokio::test]
async fn what_was_not_placed_and_still_goes_is_not_adopted() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.double.world().knobs.misplace = [Misplaced::FailsAndStays].into();
    rig.cloud.create(&request).await.unwrap_err();
    let wait = |looks| {
        let mut world = rig.double.world();
        let going = world.accounts[0].actions.values_mut().find(|action| action.kind == "destroy" && action.left > 0);
        going.expect("a removal that goes on").left = looks;
        world.accounts[0].machines.keys().next().copied().unwrap()
    };
    let dying = wait(1000);
    let created = rig.cloud.create(&request).await.unwrap();
    assert!(!created.id.0.ends_with(&format!("/{dying}")), "{created:?}");
    wait(1);
    rig.settle(&request).await;
    assert_eq!(rig.bill(), ONE_AWAKE);
    assert_eq!(rig.cloud.find(request.machine).await.unwrap().remove(0).id, created.id);
}

#[tokio::test]
async fn another_processor_is_refused_before_anybody_is_asked() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.double.world().requests.clear();
    let mut arm = request.offering.clone().unwrap();
    arm.arch = Arch::Arm64;
    for (arch, offering, kind) in [
        (Arch::Arm64, request.offering.clone(), ErrorKind::Unsupported),
        (Arch::Arm64, None, ErrorKind::Unsupported),
        (Arch::Amd64, Some(arm), ErrorKind::Invalid),
        (Arch::Amd64, None, ErrorKind::Invalid),
    ] {
        let wrong = CreateRequest { arch, offering, ..request.clone() };
        assert_eq!(rig.cloud.create(&wrong).await.unwrap_err().kind, kind);
    }
    assert_eq!(rig.asked(""), 0);
}

#[tokio::test]
async fn images_and_keys_of_the_teams_own_are_asked_for_by_their_numbers() {
    let rig = Rig::start().await;
    let mut own = config(&rig.double.url(), TOKEN);
    own.image = "67".to_owned();
    own.ssh_keys = vec!["512189".to_owned(), "3b:16:bf".to_owned()];
    connect(own).create(&rig.request().await).await.unwrap();
    let asked = rig.double.world().accounts[0].machines.values().next().unwrap().asked.clone();
    assert_eq!((&asked["image"], &asked["ssh_keys"]), (&json!(67), &json!([512_189, "3b:16:bf"])));
}

//! Images that machines boot, beside machines that sleep.

use serde_json::json;
use stagely_cloud::contract::{captured, dropped, put_to_sleep};
use stagely_cloud::{CaptureRequest, Cloud, CreateRequest, ErrorKind, Residue, ResidueKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};

use super::{ONE_ASLEEP, Rig};

fn plant(rig: &Rig, number: u64, installation: InstallationId, image: ImageId) {
    let mut world = rig.double.world();
    world.accounts[0].plant("images", &number.to_string(), &[]);
    let name = format!("stagely-{}-{}", installation.label(), image.label());
    world.accounts[0].images.get_mut(&number).unwrap().shown["name"] = json!(name);
}

#[tokio::test]
async fn of_twins_the_older_one_that_is_whole_is_meant_and_both_are_listed() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked("").await;
    for number in [11, 12, 13] {
        plant(&rig, number, wanted.installation, wanted.image);
    }
    plant(&rig, 7, InstallationId::generate(), wanted.image);
    rig.double.world().accounts[0].images.get_mut(&11).unwrap().shown["status"] = json!("pending");
    let image = captured(&rig.cloud, &wanted).await;
    assert_eq!((&*image.reference, image.locations), ("12", vec!["fra1".to_owned()]));
    let listed = rig.cloud.list_residue(wanted.installation).await.unwrap().items;
    let images: Vec<&Residue> = listed.iter().filter(|item| item.image == Some(wanted.image)).collect();
    assert_eq!(
        images.iter().map(|item| &*item.id).collect::<Vec<_>>(),
        ["snapshots/11", "snapshots/12", "snapshots/13"]
    );
    let meant: Vec<_> = images.iter().filter(|item| item.is_image("12")).map(|item| &*item.id).collect();
    assert_eq!(meant, ["snapshots/12"]);
    rig.double.world().accounts[0].images.get_mut(&11).unwrap().shown["status"] = json!("available");
    dropped(&rig.cloud, wanted.installation, wanted.image).await;
    assert_eq!(rig.bill().snapshots, 1, "what is not ours stays");
}

#[tokio::test]
async fn a_snapshot_that_fails_is_told_and_made_again() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked("").await;
    rig.double.world().knobs.fail_snapshots = 1;
    assert_eq!(rig.cloud.capture(&wanted).await.unwrap_err().kind, ErrorKind::Unavailable);
    captured(&rig.cloud, &wanted).await;
    assert_eq!(rig.bill().snapshots, 1);
}

#[tokio::test]
async fn an_image_boots_in_its_region_and_on_no_smaller_disk_than_that_of_the_machine_it_was_made_of() {
    let rig = Rig::start().await;
    let small = rig.request().await;
    let catalogue = rig.cloud.catalogue().await.unwrap();
    let offered = |name: &str, location: &str| {
        catalogue.iter().find(|one| (&*one.name, &*one.location) == (name, location)).cloned()
    };
    let mut bake = stagely_cloud::contract::baking(&rig.cloud, small.installation, &SystemClock).await;
    // So none is made on a larger disk than needed, which is only a matter of another size.
    bake.offering = offered("s-2vcpu-4gb", "fra1");
    assert_eq!(rig.cloud.create(&bake).await.unwrap_err().kind, ErrorKind::Capacity);
    bake.offering = offered("s-1vcpu-2gb", "fra1");
    let machine = rig.cloud.create(&bake).await.unwrap().id;
    rig.settle(&bake).await;
    rig.finish_baking();
    let wanted = CaptureRequest { image: ImageId::generate(), installation: bake.installation, machine };
    let image = captured(&rig.cloud, &wanted).await;
    assert_eq!(image.locations, ["fra1"]);
    for image in rig.double.world().accounts[0].images.values_mut().filter(|image| image.shown["type"] == "snapshot") {
        assert_eq!(std::mem::replace(&mut image.shown["min_disk_size"], json!(80)), 50);
    }
    for (name, location, expected) in [
        ("s-1vcpu-2gb", "fra1", Some(ErrorKind::Invalid)),
        ("s-2vcpu-4gb", "ams3", Some(ErrorKind::Invalid)),
        ("s-2vcpu-4gb", "fra1", None),
        ("s-4vcpu-8gb", "fra1", None),
    ] {
        let (offering, reference) = (offered(name, location), Some(image.reference.clone()));
        let machine = MachineId::generate();
        let request = CreateRequest { machine, offering, image: reference, ..small.clone() };
        let outcome = rig.cloud.create(&request).await.err().map(|error| error.kind);
        assert_eq!(outcome, expected, "{name} in {location}");
    }
}

#[tokio::test]
async fn what_a_person_holds_is_held_asleep_and_when_it_has_woken() {
    // Held before it falls asleep, or only while its snapshot is being made and told what it is.
    for meanwhile in [false, true] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("").await;
        if meanwhile {
            rig.proxy.harm_when(|seen| seen.method == "DELETE", crate::fault_proxy::Fault::ResetBefore);
            while rig.cloud.hibernate(&created.id).await.is_ok() {}
            rig.proxy.calm();
        }
        rig.hold_machines(true);
        put_to_sleep(&rig.cloud, &created.id).await;
        let found = rig.cloud.find(request.machine).await.unwrap();
        assert_eq!((rig.bill(), found[0].hold), (ONE_ASLEEP, true));
        let spare = rig.cloud.list_residue(request.installation).await.unwrap().items;
        assert!(spare.iter().all(|item| item.kind == ResidueKind::Firewall), "{spare:?}");
        assert!(rig.cloud.wake(&created.id).await.unwrap().hold);
    }
}

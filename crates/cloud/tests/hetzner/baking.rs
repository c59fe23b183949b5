//! Images that machines boot, beside machines that sleep.

use serde_json::json;
use stagely_cloud::contract::{captured, dropped, put_to_sleep};
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, Residue, ResidueKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};

use super::{ONE_ASLEEP, Rig};

fn labels(installation: InstallationId, image: ImageId) -> serde_json::Value {
    json!({"stagely-installation": installation.to_string(), "stagely-image": image.to_string()})
}

#[tokio::test]
async fn of_twins_the_older_one_that_is_whole_is_meant_and_both_are_listed() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked("").await;
    for id in [11, 12, 13] {
        rig.double.world().accounts[0].plant("images", id, labels(wanted.installation, wanted.image));
    }
    // Of another installation, or without one: neither is ours.
    rig.double.world().accounts[0].plant("images", 7, labels(InstallationId::generate(), wanted.image));
    rig.double.world().accounts[0].plant("images", 8, json!({"stagely-image": wanted.image.to_string()}));
    rig.double.world().accounts[0].images.get_mut(&11).unwrap().shown["status"] = json!("creating");
    let image = captured(&rig.cloud, &wanted).await;
    assert_eq!((&*image.reference, image.locations), ("12", Vec::new()));
    let listed = rig.cloud.list_residue(wanted.installation).await.unwrap().items;
    let images: Vec<&Residue> = listed.iter().filter(|item| item.image == Some(wanted.image)).collect();
    assert_eq!(images.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["images/11", "images/12", "images/13"]);
    let meant: Vec<_> = images.iter().filter(|item| item.is_image("12")).map(|item| &*item.id).collect();
    assert_eq!(meant, ["images/12"]);
    rig.double.world().accounts[0].images.get_mut(&11).unwrap().shown["status"] = json!("available");
    dropped(&rig.cloud, wanted.installation, wanted.image).await;
    assert_eq!(rig.bill().snapshots, 2, "what is not ours stays");
}

#[tokio::test]
async fn an_image_boots_on_no_smaller_disk_than_that_of_the_machine_it_was_made_of() {
    let rig = Rig::start().await;
    let small = rig.request().await;
    let catalogue = rig.cloud.catalogue().await.unwrap();
    let large = catalogue.iter().find(|one| one.name == "cx33").unwrap();
    // So none is made on a larger disk than needed, which is only a matter of another type.
    let mut bake = stagely_cloud::contract::baking(&rig.cloud, small.installation, &SystemClock).await;
    bake.offering = Some(large.clone());
    assert_eq!(rig.cloud.create(&bake).await.unwrap_err().kind, ErrorKind::Capacity);
    let (_, wanted) = rig.baked("").await;
    let image = Some(captured(&rig.cloud, &wanted).await.reference);
    stagely_cloud::contract::delete(&rig.cloud, &wanted.machine).await;
    for image in rig.double.world().accounts[0].images.values_mut().filter(|image| image.shown["type"] == "snapshot") {
        assert_eq!(std::mem::replace(&mut image.shown["disk_size"], json!(80)), 40);
    }
    let request = CreateRequest { image: image.clone(), ..small };
    assert_eq!(rig.cloud.create(&request).await.unwrap_err().kind, ErrorKind::Invalid);
    let offering = Some(large.clone());
    rig.cloud.create(&CreateRequest { offering, image, machine: MachineId::generate(), ..request }).await.unwrap();
}

#[tokio::test]
async fn what_a_person_holds_is_held_asleep_and_when_it_has_woken() {
    // Held before it falls asleep, only while its snapshot is being made, and let go meanwhile in the server alone.
    for (before, meanwhile) in [(true, true), (false, true), (true, false), (false, false)] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("").await;
        rig.hold_machines(before);
        while rig.bill().snapshots == 0 {
            rig.cloud.hibernate(&created.id).await.unwrap();
        }
        rig.hold_machines(meanwhile);
        put_to_sleep(&rig.cloud, &created.id).await;
        let (found, held) = (rig.cloud.find(request.machine).await.unwrap(), before || meanwhile);
        assert_eq!((rig.bill(), found[0].hold), (ONE_ASLEEP, held));
        let spare = rig.cloud.list_residue(request.installation).await.unwrap().items;
        assert!(spare.iter().all(|item| item.kind == ResidueKind::Firewall), "{spare:?}");
        assert_eq!(rig.cloud.wake(&created.id).await.unwrap().hold, held);
    }
}

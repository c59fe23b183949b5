//! Images that machines boot, beside machines that sleep.

use serde_json::json;
use stagely_cloud::contract::{captured, dropped, golden_images, put_to_sleep};
use stagely_cloud::{CaptureProgress, CaptureRequest, Cloud, CreateRequest, ErrorKind, Residue, ResidueKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};

use super::{ONE_ASLEEP, Rig};

#[tokio::test]
async fn hetzner_keeps_the_contract_of_images() {
    for late in [0, 9] {
        let rig = Rig::start().await;
        rig.double.world().knobs.late_images = late;
        golden_images(&rig.cloud, &SystemClock, async |request, _| {
            rig.settle(request).await;
            rig.finish_baking();
        })
        .await;
    }
}

fn labels(installation: InstallationId, image: ImageId) -> serde_json::Value {
    json!({"stagely-installation": installation.to_string(), "stagely-image": image.to_string()})
}

#[tokio::test]
async fn of_twins_the_older_one_that_is_whole_is_meant_and_both_are_listed() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked("").await;
    for id in [11, 12, 13] {
        rig.double.world().projects[0].plant("images", id, labels(wanted.installation, wanted.image));
    }
    // Of another installation, or without one: neither is ours.
    rig.double.world().projects[0].plant("images", 7, labels(InstallationId::generate(), wanted.image));
    rig.double.world().projects[0].plant("images", 8, json!({"stagely-image": wanted.image.to_string()}));
    rig.double.world().projects[0].images.get_mut(&11).unwrap().shown["status"] = json!("creating");
    let image = captured(&rig.cloud, &wanted).await;
    assert_eq!((&*image.reference, image.locations), ("12", Vec::new()));
    let listed = rig.cloud.list_residue(wanted.installation).await.unwrap().items;
    let images: Vec<&Residue> = listed.iter().filter(|item| item.image == Some(wanted.image)).collect();
    assert_eq!(images.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["images/11", "images/12", "images/13"]);
    let meant: Vec<_> = images.iter().filter(|item| item.is_image("12")).map(|item| &*item.id).collect();
    assert_eq!(meant, ["images/12"]);
    rig.double.world().projects[0].images.get_mut(&11).unwrap().shown["status"] = json!("available");
    dropped(&rig.cloud, wanted.installation, wanted.image).await;
    assert_eq!(rig.bill().snapshots, 2, "what is not ours stays");
}

#[tokio::test]
async fn no_image_is_made_of_what_somebody_stopped_or_what_does_not_bake() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let (image, installation) = (ImageId::generate(), request.installation);
    let of_a_preview = CaptureRequest { image, installation, machine: created.id.clone() };
    assert_eq!(rig.cloud.capture(&of_a_preview).await.unwrap_err().kind, ErrorKind::Invalid);
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    let (bake, wanted) = rig.baked("").await;
    {
        let mut world = rig.double.world();
        let (world, nothing) = (&mut *world, json!({}));
        let id = *world.projects[0].servers.keys().next().unwrap();
        assert!(world.projects[0].act(&mut world.knobs, id, "poweron", &nothing).is_ok());
    }
    rig.settle(&bake).await;
    {
        let mut world = rig.double.world();
        let (world, nothing) = (&mut *world, json!({}));
        let id = *world.projects[0].servers.keys().next().unwrap();
        assert!(world.projects[0].act(&mut world.knobs, id, "poweroff", &nothing).is_ok());
    }
    let error = loop {
        match rig.cloud.capture(&wanted).await {
            Ok(progress) => assert_eq!(progress, CaptureProgress::InProgress),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind, rig.bill().snapshots), (ErrorKind::Invalid, 0), "{error}");
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
    for image in rig.double.world().projects[0].images.values_mut().filter(|image| image.shown["type"] == "snapshot") {
        assert_eq!(std::mem::replace(&mut image.shown["disk_size"], json!(80)), 40);
    }
    let request = CreateRequest { image: image.clone(), ..small };
    assert_eq!(rig.cloud.create(&request).await.unwrap_err().kind, ErrorKind::Invalid);
    let offering = Some(large.clone());
    rig.cloud.create(&CreateRequest { offering, image, machine: MachineId::generate(), ..request }).await.unwrap();
}

#[tokio::test]
async fn what_a_person_holds_is_held_asleep_and_when_it_has_woken() {
    let hold = |rig: &Rig, held: bool| {
        for server in rig.double.world().projects[0].servers.values_mut() {
            match held {
                true => server.labels["stagely-hold"] = json!("ada"),
                false => drop(server.labels.as_object_mut().unwrap().remove("stagely-hold")),
            }
        }
    };
    // Held before it falls asleep, only while its snapshot is being made, and let go meanwhile in the server alone.
    for (before, meanwhile) in [(true, true), (false, true), (true, false), (false, false)] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("").await;
        hold(&rig, before);
        while rig.bill().snapshots == 0 {
            rig.cloud.hibernate(&created.id).await.unwrap();
        }
        hold(&rig, meanwhile);
        put_to_sleep(&rig.cloud, &created.id).await;
        let (found, held) = (rig.cloud.find(request.machine).await.unwrap(), before || meanwhile);
        assert_eq!((rig.bill(), found[0].hold), (ONE_ASLEEP, held));
        let spare = rig.cloud.list_residue(request.installation).await.unwrap().items;
        assert!(spare.iter().all(|item| item.kind == ResidueKind::Firewall), "{spare:?}");
        assert_eq!(rig.cloud.wake(&created.id).await.unwrap().hold, held);
    }
}

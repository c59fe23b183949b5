//! Images that machines boot: made once, by machines that have stopped by themselves, and removed with their snapshots.

use stagely_cloud::contract::{baking, captured, delete, dropped, golden_images};
use stagely_cloud::{CaptureProgress, CaptureRequest, Cloud, CreateRequest, ErrorKind, Image, ResidueKind, VmState};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};

use super::refusals::refusal;
use super::{NOTHING, Rig, config, is_passing, provider};
use crate::fault_proxy::Fault;

/// More requests, and more calls, than an image takes.
const MOST: usize = 40;

fn faults() -> [Fault; 5] {
    [Fault::ResetBefore, Fault::LoseAnswer, Fault::Truncate, Fault::Garble, Fault::html(502)]
}

impl Rig {
    /// A machine of this request that was made to bake and has done so.
    async fn baked(&self, like: &CreateRequest) -> (CreateRequest, CaptureRequest) {
        let request = CreateRequest { machine: MachineId::generate(), ..like.clone() };
        let created = self.cloud.create(&request).await.unwrap();
        self.moto.power_off(&created.id.0).await;
        let (image, installation) = (ImageId::generate(), request.installation);
        (request, CaptureRequest { image, installation, machine: created.id })
    }

    async fn baking(&self) -> CreateRequest {
        baking(&self.cloud, InstallationId::generate(), &SystemClock).await
    }

    /// Images and snapshots of this id at the provider itself.
    async fn images(&self, wanted: &CaptureRequest) -> (usize, usize) {
        self.moto.tagged("stagely-image", &wanted.image.to_string()).await
    }

    /// One call; the image when it is ready.
    async fn capture(&self, wanted: &CaptureRequest) -> Option<Image> {
        match self.cloud.capture(wanted).await {
            Ok(CaptureProgress::Ready(image)) => Some(image),
            Ok(CaptureProgress::InProgress) => None,
            Err(error) => {
                assert!(is_passing(error.kind), "{error}");
                None
            }
        }
    }

    async fn ready(&self, wanted: &CaptureRequest) -> Image {
        for _ in 0..MOST {
            if let Some(image) = self.capture(wanted).await {
                return image;
            }
        }
        panic!("the image does not become ready");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn aws_keeps_the_contract_of_images() {
    let rig = Rig::start().await;
    for slow in [0, 2] {
        (rig.moto.world().knobs.slow_image, rig.moto.world().knobs.hidden_image) = (slow, slow);
        golden_images(&rig.cloud, &SystemClock, async |_, created| rig.moto.power_off(&created.id.0).await).await;
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_that_bakes_stops_when_it_is_done_and_any_other_ends() {
    let rig = Rig::start().await;
    let bake = rig.baking().await;
    rig.cloud.create(&bake).await.unwrap();
    assert_eq!(rig.moto.world().made["InstanceInitiatedShutdownBehavior"], "stop");
    let (_, created) = rig.running().await;
    assert_eq!(rig.moto.world().made["InstanceInitiatedShutdownBehavior"], "terminate");
    rig.moto.power_off(&created.id.0).await;
    delete(&rig.cloud, &created.id).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_image_whose_making_is_interrupted_anywhere_is_one_image_and_goes_with_its_snapshots() {
    let mut rig = Rig::start().await;
    let like = rig.baking().await;
    for slow in [0, 2] {
        for fault in faults() {
            for nth in 1..=MOST {
                (rig.moto.world().knobs.slow_image, rig.moto.world().knobs.hidden_image) = (slow, slow);
                let (request, wanted) = rig.baked(&like).await;
                rig.cloud = provider(config(&rig.proxy.url()));
                rig.proxy.harm_nth(nth, fault.clone());
                let image = rig.ready(&wanted).await;
                let harmed = rig.proxy.calm();
                assert_eq!(rig.images(&wanted).await, (1, 1), "request {nth}, {fault:?}");
                assert_eq!((rig.ready(&wanted).await, rig.images(&wanted).await), (image, (1, 1)));
                delete(&rig.cloud, &wanted.machine).await;
                assert_eq!((rig.bill(request.machine).await, rig.images(&wanted).await), (NOTHING, (1, 1)));
                dropped(&rig.cloud, wanted.installation, wanted.image).await;
                assert_eq!(rig.images(&wanted).await, (0, 0), "request {nth}, {fault:?}");
                if harmed == 0 {
                    break;
                }
                assert_ne!(nth, MOST);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn whoever_is_killed_while_an_image_is_made_makes_one_when_he_repeats_it_and_can_drop_it() {
    let mut rig = Rig::start().await;
    let like = rig.baking().await;
    for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
        for nth in 1..=MOST {
            let mut harmed = 0;
            for repeated in [true, false] {
                let (request, wanted) = rig.baked(&like).await;
                rig.proxy.harm_nth(nth, fault.clone());
                rig.proxy.also_harm_when(move |seen| seen.nth > nth, Fault::ResetBefore);
                while rig.proxy.seen().len() < nth && rig.capture(&wanted).await.is_none() {}
                harmed = rig.proxy.calm();
                // The process after it remembers nothing.
                rig.cloud = provider(config(&rig.proxy.url()));
                let made = rig.images(&wanted).await;
                assert!(made == (0, 0) || made == (1, 1), "{made:?}");
                if repeated {
                    rig.ready(&wanted).await;
                    assert_eq!(rig.images(&wanted).await, (1, 1), "request {nth}, {fault:?}");
                }
                delete(&rig.cloud, &wanted.machine).await;
                dropped(&rig.cloud, wanted.installation, wanted.image).await;
                let left = (rig.bill(request.machine).await, rig.images(&wanted).await);
                assert_eq!(left, (NOTHING, (0, 0)), "request {nth}, {fault:?}");
            }
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn removing_an_image_is_repeated_until_its_snapshots_are_gone_too() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked(&rig.baking().await).await;
    captured(&rig.cloud, &wanted).await;
    // The answer is lost, and the snapshots stayed all the same.
    let found = rig.cloud.list_residue(wanted.installation).await.unwrap().items;
    let image = found.iter().find(|item| item.kind == ResidueKind::Image).unwrap();
    assert_eq!((image.image, image.machine), (Some(wanted.image), None));
    rig.moto.ask(&[("Action", "DeregisterImage"), ("ImageId", &image.id)]).await;
    assert_eq!(rig.images(&wanted).await, (0, 1));
    dropped(&rig.cloud, wanted.installation, wanted.image).await;
    assert_eq!(rig.images(&wanted).await, (0, 0));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn removing_an_image_that_is_interrupted_anywhere_is_repeated_until_nothing_is_left() {
    let mut rig = Rig::start().await;
    let like = rig.baking().await;
    for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
        for nth in 1..=MOST {
            let (_, wanted) = rig.baked(&like).await;
            rig.ready(&wanted).await;
            delete(&rig.cloud, &wanted.machine).await;
            rig.cloud = provider(config(&rig.proxy.url()));
            rig.proxy.harm_nth(nth, fault.clone());
            for _ in 0..4 {
                let Ok(mut found) = rig.cloud.list_residue(wanted.installation).await else { continue };
                found.items.retain(|item| item.image == Some(wanted.image));
                if found.complete && found.items.is_empty() {
                    break;
                }
                for part in &found.items {
                    // Whoever fails asks again.
                    let _ = rig.cloud.delete_residue(part).await;
                }
            }
            let harmed = rig.proxy.calm();
            assert_eq!(rig.images(&wanted).await, (0, 0), "request {nth}, {fault:?}");
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_image_that_fails_is_removed_and_made_again() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked(&rig.baking().await).await;
    rig.moto.world().knobs.fail_image = true;
    assert_eq!(rig.cloud.capture(&wanted).await.unwrap(), CaptureProgress::InProgress);
    let error = rig.cloud.capture(&wanted).await.unwrap_err();
    assert_eq!((error.kind, rig.images(&wanted).await), (ErrorKind::Unavailable, (0, 0)), "{error}");
    let image = captured(&rig.cloud, &wanted).await;
    assert_eq!((image.locations, rig.images(&wanted).await), (vec!["eu-central-1".to_owned()], (1, 1)));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn no_image_is_made_of_what_somebody_stopped_or_what_does_not_bake() {
    let rig = Rig::start().await;
    let bake = rig.baking().await;
    let stopped = rig.cloud.create(&bake).await.unwrap();
    rig.moto.ask(&[("Action", "StopInstances"), ("InstanceId.1", &stopped.id.0)]).await;
    assert_eq!(rig.cloud.find(bake.machine).await.unwrap()[0].state, VmState::Stopped);
    let (request, running) = rig.running().await;
    for (machine, installation) in [(stopped.id, bake.installation), (running.id, request.installation)] {
        let wanted = CaptureRequest { image: ImageId::generate(), installation, machine };
        let error = rig.cloud.capture(&wanted).await.unwrap_err();
        assert_eq!((error.kind, rig.images(&wanted).await), (ErrorKind::Invalid, (0, 0)), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn the_image_that_is_asked_for_is_booted_and_its_processor_is_checked() {
    let rig = Rig::start().await;
    let (bake, wanted) = rig.baked(&rig.baking().await).await;
    let image = captured(&rig.cloud, &wanted).await;
    let request = CreateRequest { image: Some(image.reference.clone()), ..rig.request().await };
    rig.cloud.create(&request).await.unwrap();
    let (id, token) = {
        let world = rig.moto.world();
        (world.made["ImageId"].clone(), world.made["ClientToken"].clone())
    };
    assert_eq!(id, image.reference);
    let own = CreateRequest { image: None, ..request.clone() };
    rig.cloud.create(&own).await.unwrap();
    assert_ne!(rig.moto.world().made["ClientToken"], token);
    let catalogue = rig.cloud.catalogue().await.unwrap();
    let arm = catalogue.iter().find(|one| one.name == "t4g.small").unwrap();
    let other = CreateRequest { arch: arm.arch, offering: Some(arm.clone()), ..request.clone() };
    assert_eq!(rig.cloud.create(&other).await.unwrap_err().kind, ErrorKind::Invalid);
    delete(&rig.cloud, &wanted.machine).await;
    dropped(&rig.cloud, bake.installation, wanted.image).await;
    let gone = CreateRequest { machine: MachineId::generate(), ..request };
    let error = provider(config(&rig.proxy.url())).create(&gone).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_image_that_somebody_deregistered_is_not_there_and_is_forgotten() {
    let rig = Rig::start().await;
    let (request, _) = rig.running().await;
    let next = CreateRequest { machine: MachineId::generate(), ..request };
    let refused = refusal(400, "InvalidAMIID.Unavailable", "The specified AMI is no longer available");
    rig.proxy.harm_when(|seen| seen.body.starts_with(b"Action=RunInstances"), refused);
    let error = rig.cloud.create(&next).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::NotFound, false), "{error}");
    rig.proxy.calm();
    rig.moto.world().actions.clear();
    rig.cloud.create(&next).await.unwrap();
    assert_eq!(rig.asked("DescribeImages"), 1, "it is looked for anew");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_image_that_is_not_available_is_not_booted() {
    let rig = Rig::start().await;
    let (_, wanted) = rig.baked(&rig.baking().await).await;
    rig.moto.world().knobs.slow_image = 1_000_000;
    assert_eq!(rig.cloud.capture(&wanted).await.unwrap(), CaptureProgress::InProgress);
    let found = rig.cloud.list_residue(wanted.installation).await.unwrap().items;
    let image = found.iter().find(|item| item.kind == ResidueKind::Image).unwrap().id.clone();
    let request = CreateRequest { image: Some(image), ..rig.request().await };
    rig.moto.world().actions.clear();
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert_eq!((error.kind, rig.asked("RunInstances")), (ErrorKind::Invalid, 0), "{error}");
    assert!(error.message.contains("not available (pending)"), "{error}");
}

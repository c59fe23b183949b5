//! Images that machines boot.

use stagely_cloud::contract::{delete, golden_images};
use stagely_cloud::{CaptureProgress, CaptureRequest, Cloud, ErrorKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::ImageId;

use super::Rig;

#[tokio::test]
async fn the_contract_of_images_is_kept() {
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

#[tokio::test]
async fn no_image_is_made_of_what_somebody_stopped_or_what_does_not_bake() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let (image, installation) = (ImageId::generate(), request.installation);
    let of_a_preview = CaptureRequest { image, installation, machine: created.id.clone() };
    assert_eq!(rig.cloud.capture(&of_a_preview).await.unwrap_err().kind, ErrorKind::Invalid);
    delete(&rig.cloud, &created.id).await;
    let (bake, wanted) = rig.baked("").await;
    rig.act(Rig::POWER_ON);
    rig.settle(&bake).await;
    rig.act(Rig::POWER_OFF);
    let error = loop {
        match rig.cloud.capture(&wanted).await {
            Ok(progress) => assert_eq!(progress, CaptureProgress::InProgress),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind, rig.bill().snapshots), (ErrorKind::Invalid, 0), "{error}");
}

//! What every provider must do that makes images.

use stagely_domain::clock::Clock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};
use stagely_domain::machine::Role;

use super::{delete, offered, put_to_sleep};
use crate::{
    Bake, CaptureProgress, CaptureRequest, Cloud, CreateRequest, Created, ErrorKind, Image, Residue, ResidueKind,
    VmState,
};

/// More calls than anything takes.
const MOST: usize = 200;

/// A request for a machine that bakes.
///
/// # Panics
/// When the catalogue cannot be read.
pub async fn baking(cloud: &dyn Cloud, installation: InstallationId, clock: &dyn Clock) -> CreateRequest {
    let mut request = offered(cloud, installation, clock).await;
    (request.role, request.config.role) = (Role::Bake, Role::Bake);
    request.environment = None;
    request.bake = Some(Bake { base_images: vec!["docker.io/library/alpine:3".to_owned()] });
    request
}

/// The image, however many calls that takes.
///
/// # Panics
/// When it fails, or does not end.
pub async fn captured(cloud: &dyn Cloud, request: &CaptureRequest) -> Image {
    for _ in 0..MOST {
        if let CaptureProgress::Ready(image) = cloud.capture(request).await.expect("capture") {
            return image;
        }
    }
    panic!("{} does not become ready", request.image);
}

/// Removes everything of an image.
///
/// # Panics
/// When it fails, or does not end.
pub async fn dropped(cloud: &dyn Cloud, installation: InstallationId, image: ImageId) {
    for _ in 0..MOST {
        let parts = parts(cloud, installation, image).await;
        if parts.is_empty() {
            return;
        }
        for part in parts {
            cloud.delete_residue(&part).await.expect("delete a part of an image");
        }
    }
    panic!("{image} does not go");
}

/// Everything of an image that a list shows.
async fn parts(cloud: &dyn Cloud, installation: InstallationId, image: ImageId) -> Vec<Residue> {
    let found = cloud.list_residue(installation).await.expect("list what costs");
    assert!(found.complete);
    found.items.into_iter().filter(|residue| residue.image == Some(image)).collect()
}

/// Runs every case. `power_off` does what a machine does that is done with baking.
///
/// # Panics
/// At the first case that does not hold.
pub async fn golden_images(cloud: &dyn Cloud, clock: &dyn Clock, power_off: impl AsyncFn(&CreateRequest, &Created)) {
    assert!(cloud.capabilities().bake);
    let installation = InstallationId::generate();
    let bake = baking(cloud, installation, clock).await;
    let created = cloud.create(&bake).await.expect("create");
    let request = CaptureRequest { image: ImageId::generate(), installation, machine: created.id.clone() };
    nothing_is_made_of_a_machine_that_works(cloud, &bake, &request).await;
    power_off(&bake, &created).await;
    let stopped = &cloud.find(bake.machine).await.expect("find")[0];
    assert_eq!(stopped.state, VmState::Stopped, "what has baked is not asleep");
    let listed = cloud.list(installation).await.expect("list").vms;
    assert_eq!(listed.iter().map(|vm| &vm.state).collect::<Vec<_>>(), [&VmState::Stopped]);

    let image = captured(cloud, &request).await;
    assert_eq!(captured(cloud, &request).await, image, "the same request is the same image");
    is_one_image_of_no_machine(cloud, &request, &image).await;
    it_is_nobody_elses(cloud, &request).await;
    delete(cloud, &created.id).await;
    assert_eq!(captured(cloud, &request).await, image, "it outlives its machine");
    is_one_image_of_no_machine(cloud, &request, &image).await;

    beside_one_that_sleeps_nothing_is_mixed_up(cloud, clock, &request, &image).await;
    dropped(cloud, installation, request.image).await;
    let absent = cloud.capture(&request).await.expect_err("there is neither image nor machine");
    assert_eq!(absent.kind, ErrorKind::NotFound);
    let left = cloud.list_residue(installation).await.expect("list what costs").items;
    let costs = |residue: &&Residue| !matches!(residue.kind, ResidueKind::Firewall);
    assert_eq!(left.iter().filter(costs).collect::<Vec<_>>(), Vec::<&Residue>::new());
}

async fn nothing_is_made_of_a_machine_that_works(cloud: &dyn Cloud, bake: &CreateRequest, request: &CaptureRequest) {
    for _ in 0..10 {
        assert_eq!(cloud.capture(request).await.expect("capture"), CaptureProgress::InProgress);
    }
    assert_eq!(parts(cloud, request.installation, request.image).await, []);
    assert_eq!(cloud.find(bake.machine).await.expect("find")[0].state, VmState::Running);
}

async fn is_one_image_of_no_machine(cloud: &dyn Cloud, request: &CaptureRequest, image: &Image) {
    let parts = parts(cloud, request.installation, request.image).await;
    let whole: Vec<&Residue> = parts.iter().filter(|part| part.is_image(&image.reference)).collect();
    assert_eq!(whole.len(), 1, "{parts:?}");
    for part in &parts {
        assert_eq!((part.machine, part.installation, part.hold), (None, request.installation, false), "{part:?}");
        assert!(part.is_image(&image.reference) || part.kind == ResidueKind::Snapshot, "{part:?}");
    }
}

async fn it_is_nobody_elses(cloud: &dyn Cloud, request: &CaptureRequest) {
    let foreign = CaptureRequest { installation: InstallationId::generate(), ..request.clone() };
    let error = cloud.capture(&foreign).await.expect_err("foreign");
    assert!(matches!(error.kind, ErrorKind::Exists | ErrorKind::Invalid), "{error}");
    assert_eq!(cloud.list_residue(foreign.installation).await.expect("list what costs").items, []);
}

/// A machine that boots the image, sleeps, wakes and goes, with the image beside it all the time.
async fn beside_one_that_sleeps_nothing_is_mixed_up(
    cloud: &dyn Cloud,
    clock: &dyn Clock,
    request: &CaptureRequest,
    image: &Image,
) {
    let mut machine = offered(cloud, request.installation, clock).await;
    machine.image = Some(image.reference.clone());
    let created = cloud.create(&machine).await.expect("create from the image");
    assert_eq!(cloud.create(&machine).await.expect("create again").id, created.id);
    put_to_sleep(cloud, &created.id).await;
    let one = |state: VmState| [(machine.machine, state)];
    let listed = async || -> Vec<(MachineId, VmState)> {
        let listing = cloud.list(request.installation).await.expect("list");
        assert!(listing.complete);
        listing.vms.into_iter().map(|vm| (vm.machine, vm.state)).collect()
    };
    assert_eq!(listed().await, one(VmState::Hibernated));
    is_one_image_of_no_machine(cloud, request, image).await;
    let all = cloud.list_residue(request.installation).await.expect("list what costs").items;
    assert!(all.iter().all(|residue| residue.machine.is_none()), "nothing is spare: {all:?}");
    cloud.wake(&cloud.find(machine.machine).await.expect("find")[0].id).await.expect("wake");
    assert_eq!(listed().await, one(VmState::Running));
    is_one_image_of_no_machine(cloud, request, image).await;
    let id = cloud.find(machine.machine).await.expect("find")[0].id.clone();
    delete(cloud, &id).await;
    assert_eq!(listed().await, []);
    is_one_image_of_no_machine(cloud, request, image).await;
}

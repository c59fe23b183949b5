//! What others wrote about the provider, against our double and our provider.

use stagely_cloud::contract;
use stagely_cloud::{Cloud, CreateRequest};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};

use super::double::{Double, READ_ONLY, TOKEN};
use super::{config, connect, provider};
use crate::judges::{Prism, python};

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn the_providers_own_client_gets_along_with_the_double() {
    let double = Double::start().await;
    python("digitalocean/independent.py", &[&double.url(), TOKEN, READ_ONLY]).await;
}

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn requests_and_answers_are_as_the_openapi_document_says() {
    let double = Double::start().await;
    let prism = Prism::start("digitalocean-v2.json", "digitalocean/spec.py", &double.url()).await;
    let cloud = provider(&prism.url, TOKEN);
    double.world().knobs.bakes_at_once = true;
    contract::keeps(&cloud, &SystemClock, &[]).await;
    everything_else(&double, &cloud, &prism.url).await;
    prism.found_nothing_wrong();
    // The checker is awake: what is not as the document says does not come through.
    let request = contract::offered(&cloud, InstallationId::generate(), &SystemClock).await;
    cloud.create(&request).await.unwrap();
    double.world().knobs.strange = true;
    cloud.list(request.installation).await.unwrap_err();
}

/// The calls that the contract does not make.
async fn everything_else(double: &Double, cloud: &dyn Cloud, url: &str) {
    cloud.check_access().await.unwrap();
    let installation = InstallationId::generate();
    let request = contract::offered(cloud, installation, &SystemClock).await;
    let created = cloud.create(&request).await.unwrap();
    double.world().knobs.deaf = true;
    contract::put_to_sleep(cloud, &created.id).await;
    cloud.wake(&created.id).await.unwrap();
    // One of each kind that can be left over; the address is reserved for the machine.
    let tags = [format!("stagely-{}", installation.label()), format!("stagely-installation:{installation}")];
    for (kind, id) in [("volumes", VOLUME), ("volume_snapshots", COPY), ("images", "7"), ("keys", "8")] {
        double.world().accounts[0].plant(kind, id, &tags);
    }
    reserve(double);
    let mut moved = config(url, TOKEN);
    moved.ingress_from.clear();
    let other = CreateRequest { machine: MachineId::generate(), ..request };
    let moved_to = connect(moved);
    let second = moved_to.create(&other).await.unwrap();
    let found = cloud.list_residue(installation).await.unwrap();
    assert_eq!((found.items.len(), found.complete), (6, true), "{found:#?}");
    contract::delete(cloud, &second.id).await;
    contract::delete(cloud, &created.id).await;
    for residue in cloud.list_residue(installation).await.unwrap().items {
        cloud.delete_residue(&residue).await.unwrap();
    }
    assert_eq!(cloud.list_residue(installation).await.unwrap().items, []);
}

const VOLUME: &str = "506f78a4-e098-11e5-ad9f-000f53306ae1";
const COPY: &str = "fbe805e8-866b-11e6-96bf-000f53315a41";

/// An address that the first droplet has.
fn reserve(double: &Double) {
    let mut world = double.world();
    let world = &mut *world;
    let team = &mut world.accounts[0];
    let droplet = team.machines.values().next().unwrap().json(team, &world.knobs);
    team.plant("reserved_ips", "198.51.100.99", &[]);
    for shown in team.things.iter_mut().filter(|((kind, _), _)| *kind == "reserved_ips").map(|(_, shown)| shown) {
        shown["droplet"] = droplet.clone();
    }
}

//! What others wrote about the provider, against our double and our provider.

use stagely_cloud::Cloud;
use stagely_cloud::contract;
use stagely_domain::clock::SystemClock;
use stagely_domain::id::InstallationId;

use super::double::{Double, READ_ONLY, TOKEN};
use super::{config, connect, provider};
use crate::judges::{Prism, python};

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn the_providers_own_client_gets_along_with_the_double() {
    let double = Double::start().await;
    python("hetzner/independent.py", &[&double.url(), TOKEN, READ_ONLY]).await;
}

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn requests_and_answers_are_as_the_openapi_document_says() {
    let double = Double::start().await;
    let prism = Prism::start("hetzner-v1.json", "hetzner/spec.py", &double.url()).await;
    let cloud = provider(&prism.url, TOKEN);
    double.world().knobs.bakes_at_once = true;
    contract::keeps(&cloud, &SystemClock, &[]).await;
    everything_else(&double, &cloud, &prism.url).await;
    prism.found_nothing_wrong();
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
    let mut moved = config(url, TOKEN);
    moved.ingress_from.clear();
    connect(moved).create(&request).await.unwrap();
    assert!(cloud.list_residue(installation).await.unwrap().complete);
    contract::delete(cloud, &created.id).await;
    for residue in cloud.list_residue(installation).await.unwrap().items {
        cloud.delete_residue(&residue).await.unwrap();
    }
    assert_eq!(cloud.list_residue(installation).await.unwrap().items, []);
}

use std::sync::Arc;

use stagely_cloud::testing::FakeCloud;
use stagely_cloud::{CreateRequest, Created};
use stagely_domain::clock::SystemClock;

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let cloud = FakeCloud::new(Arc::new(SystemClock));
    cloud.bake_at_once();
    stagely_cloud::contract::keeps(&cloud, &SystemClock, &[39, 29]).await;
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_images() {
    let cloud = FakeCloud::new(Arc::new(SystemClock));
    let power_off = async |request: &CreateRequest, _: &Created| cloud.power_off(request.machine);
    stagely_cloud::contract::golden_images(&cloud, &SystemClock, power_off).await;
    assert_eq!((cloud.machines(), cloud.residue()), (vec![], vec![]));
}

use std::sync::Arc;

use stagely_cloud::testing::FakeCloud;
use stagely_domain::clock::SystemClock;

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    stagely_cloud::contract::keeps(&FakeCloud::new(Arc::new(SystemClock)), &SystemClock, &[39, 29, 28]).await;
}

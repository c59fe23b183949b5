//! What becomes of an image that lacks something of ours: the credentials of its account, or an agent for its machines.

use stagely_domain::id::{CloudAccountId, ImageId};
use stagely_domain::machine::Arch;
use stagely_store::images::NewImage;
use stagely_store::{Outcome, Scope};

use crate::costs;
use crate::stack::Stack;

#[tokio::test]
async fn the_row_of_a_failed_bake_goes_although_its_account_was_deleted() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    stack.cloud.inner.fill(&["dear"]);
    let id = stack.bake().await;
    stack.wait("nothing of it", async || stack.image(id).await.deleted_at.is_some()).await;
    let account = stack.image(id).await.account;
    stack.world.db.execute("UPDATE projects SET deleted_at = now()").await;
    let tx = stack.world.db.store().begin().await.unwrap();
    let deleted = tx.delete_cloud_account(&Scope::system("delete an account in a test"), account).await;
    assert_eq!(deleted.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    // An account of this host needs no credentials; any other has none any more.
    stack.world.db.execute("UPDATE cloud_providers SET kind = 'hetzner'").await;
    stack.drop_image(id).await;
    stack.image_gone(id).await;
    stack.end().await;
}

#[tokio::test]
async fn a_bake_that_there_is_no_agent_for_is_refused_and_the_missing_setting_is_named() {
    let stack = Stack::start().await;
    let db = &stack.world.db;
    let new = NewImage {
        id: ImageId::generate(),
        team: db.store().find_team("acme").await.unwrap().unwrap(),
        account: CloudAccountId::from_uuid(db.text("SELECT id FROM cloud_providers").await.parse().unwrap()),
        arch: Arch::Arm64,
        base_images: vec!["debian:13-slim".to_owned()],
    };
    let told = stack.other().await.bake_image(&new).await.unwrap_err().to_string();
    assert!(told.contains("no agent for arm64 machines") && told.contains("`agent_binaries.arm64`"), "{told}");
    assert_eq!(db.text("SELECT count(*) FROM images").await, "0");
    stack.end().await;
}

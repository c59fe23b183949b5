//! What golden images mean for the account that has them: where they boot, and whose credentials show them.

use std::collections::HashSet;

use stagely_domain::id::ImageId;
use stagely_orchestrator::testing::{Known, Seen};
use stagely_store::Scope;

use crate::costs;
use crate::stack::Stack;

#[tokio::test]
async fn an_image_of_another_place_replaces_none_and_machines_boot_that_of_their_own() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![costs::dear()]);
    stack.cloud.bakes_in("nbg1");
    let first = stack.bake().await;
    let here = stack.baked(first).await;
    stack.cloud.bakes_in("fsn1");
    let second = stack.bake().await;
    let there = stack.baked(second).await;
    assert_eq!((stack.residue_of(first), stack.residue_of(second)), (vec![here.clone()], vec![there]));
    // The next one of that place takes the turn of the one before it there, and of no other.
    let third = stack.bake().await;
    stack.baked(third).await;
    stack.image_gone(second).await;
    assert_eq!(stack.residue_of(first), std::slice::from_ref(&here));
    let kept = format!("SELECT state || ' ' || desired FROM images WHERE id = '{}'", first.uuid());
    assert_eq!(stack.world.db.text(&kept).await, "ready present");
    assert_eq!(stack.boots().await.1, Some(here));
    stack.close_and_end().await;
}

/// Without a machine, an image is all that can tell the credentials of the account from those of another.
#[tokio::test]
async fn credentials_are_known_by_an_image_that_they_show() {
    let stack = Stack::start().await;
    let id = stack.bake().await;
    stack.baked(id).await;
    let store = stack.world.db.store();
    let account = store.list_cloud_accounts(&Scope::system("look at an account in a test")).await.unwrap().remove(0);
    let installation = store.ensure_installation().await.unwrap();
    let other = stack.other().await;
    let shows = async |images: Vec<ImageId>| {
        let known = Known { installation, machines: HashSet::new(), images: images.into_iter().collect() };
        other.verify_account(&account, &known).await.unwrap()
    };
    assert_eq!(shows(Vec::new()).await, Seen::Nothing);
    assert_eq!(shows(vec![ImageId::generate()]).await, Seen::Nothing);
    assert_eq!(shows(vec![ImageId::generate(), id]).await, Seen::Known);
    stack.end().await;
}

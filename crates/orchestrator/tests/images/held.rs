//! What becomes of an image that a person holds, or of which he holds a part.

use stagely_cloud::{Residue, ResidueKind};
use stagely_domain::id::ImageId;

use crate::stack::Stack;

/// Asks for its removal, and waits until the orchestrator has looked more than once at what is there of it.
async fn drop_in_vain(stack: &Stack, id: ImageId) {
    stack.gate.arm(None);
    stack.drop_image(id).await;
    let looks = || stack.gate.calls().iter().filter(|call| **call == "cloud list_residue").count();
    stack.wait("some looks", async || looks() > 2).await;
}

#[tokio::test]
async fn an_image_that_a_person_holds_stays_until_it_is_let_go() {
    let stack = Stack::start().await;
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    let hold = |hold| {
        let held = stack.cloud.inner.residue().into_iter().map(|residue| Residue { hold, ..residue });
        stack.cloud.inner.leave_behind(held.collect());
    };
    hold(true);
    drop_in_vain(&stack, id).await;
    assert_eq!(stack.residue_of(id), [reference]);
    stack.nothing_is_left_over().await;
    hold(false);
    stack.image_gone(id).await;
    stack.end().await;
}

#[tokio::test]
async fn who_holds_a_part_of_an_image_holds_the_image() {
    let stack = Stack::start().await;
    let id = stack.bake().await;
    let reference = stack.baked(id).await;
    let image = stack.cloud.inner.residue().remove(0);
    let with_part = |hold: bool| {
        let part = Residue { kind: ResidueKind::Snapshot, id: "part".to_owned(), hold, ..image.clone() };
        stack.cloud.inner.leave_behind(vec![image.clone(), part]);
    };
    with_part(true);
    drop_in_vain(&stack, id).await;
    assert_eq!(stack.residue_of(id), [&*reference, "part"]);
    stack.nothing_is_left_over().await;
    with_part(false);
    stack.image_gone(id).await;
    stack.end().await;
}

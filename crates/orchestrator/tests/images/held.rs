//! What becomes of an image that a person holds, or of which he holds a part.

use stagely_cloud::{Residue, ResidueKind};

use crate::stack::Stack;

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
    stack.gate.arm(None);
    stack.drop_image(id).await;
    stack
        .wait("some looks", async || {
            stack.gate.calls().iter().filter(|call| **call == "cloud list_residue").count() > 2
        })
        .await;
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
    stack.gate.arm(None);
    stack.drop_image(id).await;
    stack
        .wait("some looks", async || {
            stack.gate.calls().iter().filter(|call| **call == "cloud list_residue").count() > 2
        })
        .await;
    assert_eq!(stack.residue_of(id), [&*reference, "part"]);
    stack.nothing_is_left_over().await;
    with_part(false);
    stack.image_gone(id).await;
    stack.end().await;
}

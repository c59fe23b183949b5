//! What becomes of a pull request whose machine the provider does not make.

use stagely_cloud::ErrorKind;

use crate::stack::Stack;

/// The creates that a run takes until it says that it failed.
async fn creates_until_told(stack: &Stack, kind: ErrorKind) -> usize {
    *stack.cloud.refuses.lock().unwrap() = (Some(kind), 0);
    stack.push().await;
    let failed = format!("SELECT state || sha FROM workflow_runs WHERE sha = '{}'", stack.sha());
    let expected = format!("failed{}", stack.sha());
    stack.wait("a failed run", async || stack.world.db.text(&failed).await == expected).await;
    stack.cloud.refuses.lock().unwrap().1
}

#[tokio::test]
async fn what_asking_again_does_not_change_is_asked_once_and_what_may_pass_five_times() {
    let stack = Stack::start().await;
    stack.cloud.refuses.lock().unwrap().0 = Some(ErrorKind::Quota);
    stack.open().await;
    stack.wait_for_comment("Preview: Failed").await;
    let comment = stack.comment();
    assert!(comment.contains("may have no machines") && comment.contains("limit raised"), "{comment}");
    assert_eq!(stack.cloud.refuses.lock().unwrap().1, 1);
    for kind in [ErrorKind::Auth, ErrorKind::Permission, ErrorKind::Exists, ErrorKind::Unsupported] {
        assert_eq!(creates_until_told(&stack, kind).await, 1, "{kind:?}");
    }
    for kind in [ErrorKind::Unavailable, ErrorKind::Protocol, ErrorKind::Conflict] {
        assert_eq!(creates_until_told(&stack, kind).await, 5, "{kind:?}");
    }
    assert_eq!(stack.cloud.ever(), 0);
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.push().await;
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

/// Only refused creates count: what goes wrong with the rows or the hub does not.
#[tokio::test]
async fn failures_of_others_do_not_count_as_refusals() {
    let stack = Stack::start().await;
    stack.hold(crate::world::Hold::Hub);
    stack.open().await;
    stack.wait("a hub that was missed", async || stack.world.inside().missed > 8).await;
    stack.cloud.refuses.lock().unwrap().0 = Some(ErrorKind::Unavailable);
    stack.release(crate::world::Hold::Hub);
    stack.wait("refusals", async || stack.cloud.refuses.lock().unwrap().1 > 2).await;
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

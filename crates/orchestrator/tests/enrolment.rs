//! A machine's one-time token in the hands of somebody else.

use stagely_store::agents::Enrolled;

use crate::stack::Stack;
use crate::world::{Hold, token_hash};

#[tokio::test]
async fn a_machine_whose_token_was_used_twice_is_removed_and_the_pull_request_says_why() {
    let stack = Stack::start().await;
    stack.hold(Hold::Deploy);
    stack.open().await;
    stack.wait_for_comment("Starting the services").await;
    let machine = stack.only_machine();
    // Somebody who read the machine's user data comes to the hub with a key of their own.
    let tx = stack.world.db.store().begin().await.unwrap();
    let enrolled = tx.enrol(machine, &token_hash(machine), b"another key", &[3; 32]).await.unwrap();
    assert_eq!(enrolled, Enrolled::Stolen);
    tx.commit().await.unwrap();

    stack.wait_for_comment("used a second time").await;
    stack.wait_for_comment("Preview: Failed").await;
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    let revoked = "SELECT count(*) FROM agent_connections WHERE revoked_at IS NOT NULL";
    assert_eq!(stack.world.db.text(revoked).await, "1");
    assert!(!stack.is_served().await && stack.cloud.ever() == 1, "{}", stack.comment());
    stack.release(Hold::Deploy);
    // The next commit gets a machine with a token of its own.
    stack.push().await;
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

//! A machine's one-time token in the hands of somebody else.

use stagely_store::agents::Enrolled;

use crate::stack::Stack;
use crate::world::{Hold, token_hash};

#[tokio::test]
async fn a_machine_whose_token_was_used_twice_is_removed_and_the_pull_request_says_why() {
    let stack = Stack::start().await;
    stack.hold(Hold::Deploy);
    stack.open().await;
    stack.says("Starting the services").await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    // Somebody who read the machine's user data comes to the hub with a key of their own.
    let tx = stack.world.db.store().begin().await.unwrap();
    let enrolled = tx.enrol(machine, &token_hash(machine), b"another key", &[3; 32]).await.unwrap();
    assert_eq!(enrolled, Enrolled::Stolen);
    tx.commit().await.unwrap();

    stack.says("used a second time").await;
    stack.says("Preview: Failed").await;
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    let revoked = "SELECT count(*) FROM agent_connections WHERE revoked_at IS NOT NULL";
    assert_eq!(stack.world.db.text(revoked).await, "1");
    assert!(!stack.is_served().await && stack.cloud.ever() == 1, "{}", stack.comment());
    stack.release(Hold::Deploy);
    // The next commit gets a machine with a token of its own.
    stack.push().await;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

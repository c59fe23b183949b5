//! What becomes of a preview whose machine is lost.

use stagely_store::Power;

use crate::stack::Stack;

#[tokio::test]
async fn a_live_preview_that_loses_its_machine_gets_another_but_no_more_time() {
    let stack = Stack::start_live().await;
    stack.backdate_live_by_ten_minutes().await;
    let end = "SELECT expires_at FROM environments";
    let promised = stack.world.db.text(end).await;
    stack.lose_the_machine().await;
    stack.wait_until_replaced().await;
    let causes = "SELECT string_agg(cause, ' ' ORDER BY generation) FROM workflow_runs";
    assert_eq!(stack.world.db.text(causes).await, "opened machine_lost");
    assert_eq!(stack.world.db.text(end).await, promised);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_machine_whose_agent_alone_is_silent_for_long_is_replaced_and_the_comment_says_so() {
    let stack = Stack::start_live().await;
    stack.backdate_live_by_ten_minutes().await;
    let machine = stack.only_machine();
    stack.world.db.execute("UPDATE agent_connections SET last_seen_at = now() - interval '11 minutes'").await;
    stack.kill();
    stack.wait_for_comment("The machine does not answer").await;
    stack.world.db.execute("UPDATE environments SET updated_at = now() - interval '11 minutes'").await;
    stack.kill();
    stack.a_neighbour_is_heard().await;
    let replacements = "SELECT count(*) FROM workflow_runs WHERE cause = 'machine_lost' AND live_at IS NOT NULL";
    stack.wait("a replacement", async || stack.world.db.text(replacements).await == "1").await;
    stack.wait_for_comment("without its data").await;
    stack.wait("the end of the silent one", async || !stack.cloud.inner.machines().contains(&machine)).await;
    stack.wait_until_live().await;
    stack.close().await;
    stack.wait_for_comment("Preview: Removed").await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_is_lost_at_once_is_not_replaced_and_nothing_is_said_to_be_live() {
    let stack = Stack::start_live().await;
    stack.lose_the_machine().await;
    stack.wait_for_comment("Preview: Failed").await;
    let comment = stack.comment();
    assert!(comment.contains("the machine is not there any more") && !comment.contains("still live"), "{comment}");
    assert!(!stack.is_served().await && stack.cloud.ever() == 1);
    // Nor later, when it looks as if it had been live for long.
    let looks = "SELECT lease_until < now() AND lease_owner IS NULL AND run_after > now() + interval '1 minute' \
                 FROM work WHERE kind = 'environment'";
    stack.world.db.execute("UPDATE machines SET drop_at = drop_at - interval '10 minutes'").await;
    stack.backdate_live_by_ten_minutes().await;
    stack.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'environment'").await;
    stack.wait("another look", async || stack.world.db.text(looks).await == "true").await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.push().await;
    stack.wait_until_live().await;
    stack.close_until_gone().await;
    assert!(!stack.comment().contains("not there any more"), "{}", stack.comment());
    stack.end().await;
}

#[tokio::test]
async fn a_preview_that_loses_its_machine_asleep_gets_another_at_the_next_visit() {
    let stack = Stack::start_live().await;
    stack.backdate_live_by_ten_minutes().await;
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    stack.lose_the_machine().await;
    let lost = "SELECT count(*) FROM machines WHERE gone_at IS NOT NULL";
    stack.wait("the loss to be noticed", async || stack.world.db.text(lost).await == "1").await;
    assert!(stack.comment().contains("Preview: Asleep") && stack.cloud.ever() == 1, "{}", stack.comment());
    stack.power(Power::Awake).await;
    stack.wait_until_replaced().await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_preview_that_loses_its_machine_while_waking_gets_another() {
    let stack = Stack::start_live().await;
    stack.backdate_live_by_ten_minutes().await;
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    let machine = stack.only_machine();
    stack.cloud.inner.power_off(machine);
    stack.power(Power::Awake).await;
    stack.wait_until_replaced().await;
    stack.close_and_end().await;
}

//! What is said and what is left when a run fails or the hub is away.

use stagely_domain::failure::{Code, Failure};
use stagely_store::Power;

use crate::git_host;
use crate::stack::Stack;
use crate::world::Hold;

#[tokio::test]
async fn a_failed_deployment_leaves_no_machine_and_says_why() {
    let stack = Stack::start().await;
    stack.world.inside().failure = Some(Failure {
        code: Code::HookFailed,
        phase: "on_start".to_owned(),
        service: Some("web".to_owned()),
        exit_code: Some(3),
        message: "the hook failed".to_owned(),
        log_tail: "no such table".to_owned(),
    });
    stack.open().await;
    stack.wait_for_comment("Preview: Failed").await;
    assert!(stack.comment().contains("no such table"), "{}", stack.comment());
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn what_was_interrupted_while_it_was_proved_leaves_no_machine_when_it_fails() {
    let stack = Stack::start().await;
    stack.hold(Hold::Edge);
    stack.open().await;
    stack.wait_for_proof().await;
    stack.kill();
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("config_invalid").await;
    assert!(!stack.comment().contains("still live"), "{}", stack.comment());
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn what_a_failed_deployment_broke_is_not_called_live_by_the_next_push() {
    let stack = Stack::start_live().await;
    stack.world.inside().failure = Some(Failure {
        code: Code::Unhealthy,
        phase: "healthy".to_owned(),
        service: Some("web".to_owned()),
        exit_code: None,
        message: "it is not well".to_owned(),
        log_tail: String::new(),
    });
    stack.push().await;
    stack.wait_for_comment("it is not well").await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("config_invalid").await;
    let comment = stack.comment();
    assert!(!comment.contains("still live") && !comment.contains("**http"), "{comment}");
    assert!(!stack.is_served().await);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_push_that_fails_before_anything_is_replaced_wakes_what_slept() {
    let stack = Stack::start_live().await;
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("The commit before it is still live").await;
    stack.wait("the commit before it", async || stack.is_served().await).await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_hub_that_is_away_for_a_while_only_delays() {
    let stack = Stack::start().await;
    for during in ["opening", "closing"] {
        stack.hold(Hold::Hub);
        let missed = stack.world.inside().missed;
        if during == "opening" {
            stack.open().await;
        } else {
            stack.close().await;
        }
        stack.wait("the hub to be missed", async || stack.world.inside().missed > missed + 2).await;
        stack.release(Hold::Hub);
        if during == "opening" {
            stack.wait_until_live().await;
        } else {
            stack.wait_until_gone().await;
        }
    }
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

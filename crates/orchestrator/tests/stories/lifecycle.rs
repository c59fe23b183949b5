//! How a preview begins, follows its pull request and ends.

use stagely_forge::testing::Status;
use stagely_proto::agent::preview::Wish;
use stagely_store::Power;

use crate::git_host::{self, REPO, host};
use crate::stack::Stack;
use crate::world::Hold;

#[tokio::test]
async fn an_opened_pull_request_goes_live_and_a_closed_one_leaves_nothing() {
    let stack = Stack::start_live().await;
    stack.close_until_gone().await;
    assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
    let checks = host().checks(REPO, &stack.sha());
    assert_eq!(checks.iter().map(|check| check.state.as_str()).collect::<Vec<_>>(), ["success"]);
    let deployments = host().deployments(REPO).into_iter().filter(|deployment| deployment.sha == stack.sha());
    assert_eq!(deployments.map(|deployment| deployment.state).collect::<Vec<_>>(), ["inactive"]);
    assert_eq!((stack.cloud.ever(), stack.cloud.inner.creates()), (1, 1));
    stack.end().await;
}

#[tokio::test]
async fn who_stops_a_preview_is_told_the_variables_that_its_compose_files_need() {
    let stack = Stack::start().await;
    let text: &[u8] = b"version: 2\npreview: {env: {MODE: quiet}}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", text)]).await;
    stack.open_until_live().await;
    let machine = stack.only_machine();
    let running = stack.world.inside().told[&machine].variables.clone();
    stack.close_until_gone().await;
    let stopped = stack.world.inside().told[&machine].clone();
    assert!(stopped.wish() == Wish::Stopped);
    assert_eq!(stopped.variables.get("MODE").map(String::as_str), Some("quiet"));
    assert_eq!(stopped.variables, running);
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_closed_at_any_stage_leaves_nothing() {
    let mut stack = Stack::start().await;
    for (hold, sign) in [
        (Hold::Hub, "Preview: "),
        (Hold::Builds, "Building images"),
        (Hold::Boot, "the machine is booting"),
        (Hold::Deploy, "Starting the services"),
    ] {
        stack.hold(hold);
        stack.open().await;
        stack.wait_for_comment(sign).await;
        let closed = stack.close().await;
        stack.wait_until_decided(closed).await;
        stack.release(hold);
        stack.wait_until_gone().await;
        assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
        assert!(stack.cloud.ever() <= 1);
        stack.next().await;
    }
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_closed_while_it_is_proved_does_not_wait_for_the_proof() {
    let stack = Stack::start().await;
    stack.hold(Hold::Edge);
    stack.open().await;
    stack.wait_for_proof().await;
    stack.close_until_gone().await;
    let run = "SELECT state FROM workflow_runs";
    assert_eq!(stack.world.db.text(run).await, "cancelled");
    stack.end().await;
}

#[tokio::test]
async fn a_push_while_it_builds_supersedes_the_run_and_keeps_the_machine() {
    pushed_during(Hold::Builds, "Building images").await;
}

#[tokio::test]
async fn a_push_while_it_deploys_supersedes_the_run_and_keeps_the_machine() {
    pushed_during(Hold::Deploy, "Starting the services").await;
}

async fn pushed_during(hold: Hold, sign: &str) {
    let stack = Stack::start().await;
    stack.hold(hold);
    stack.open().await;
    stack.wait_for_comment(sign).await;
    let older = stack.sha();
    stack.push().await;
    stack.wait_for_comment(&stack.sha()[..12]).await;
    stack.release(hold);
    stack.wait_until_live().await;
    let runs = "SELECT string_agg(state, ' ' ORDER BY generation) FROM workflow_runs";
    assert_eq!(stack.world.db.text(runs).await, "superseded succeeded");
    let sha = "SELECT sha FROM workflow_runs ORDER BY generation LIMIT 1";
    assert_eq!(stack.world.db.text(sha).await, older);
    stack.close_until_gone().await;
    let checks = host().checks(REPO, &older);
    assert_eq!(checks.iter().map(|check| check.state.as_str()).collect::<Vec<_>>(), ["cancelled"]);
    let ended = |deployment: &Status| deployment.sha != older || deployment.state == "inactive";
    assert!(host().deployments(REPO).iter().all(ended), "{:?}", host().deployments(REPO));
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

#[tokio::test]
async fn a_host_that_a_push_takes_away_is_closed_and_not_named_any_more_until_it_comes_back() {
    let stack = Stack::start().await;
    let with: &[u8] =
        b"version: 2\npreview:\n  expose: [{service: web, port: 3000}, {service: db, port: 80, host: db}]\n";
    let without: &[u8] = b"version: 2\npreview: {expose: [{service: web, port: 3000}]}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", with)]).await;
    stack.open_until_live().await;
    for (text, state) in [(without, "gone"), (with, "ready"), (without, "gone")] {
        git_host::commit(&stack.branch, &[("stagely.yaml", text)]).await;
        stack.deliver("synchronize").await;
        stack.wait_until_live().await;
        let host = format!("db--{}", stack.hostname().await);
        let route = format!("SELECT state FROM routes WHERE host = '{host}'");
        assert_eq!(stack.world.db.text(&route).await, state);
        assert_eq!(stack.comment().contains(&host), state == "ready", "{}", stack.comment());
    }
    // What is shown instead of the preview is not shown there.
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    assert_eq!(stack.world.db.text("SELECT count(*) FROM routes WHERE state = 'gone'").await, "1");
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_pull_request_opened_again_while_its_preview_is_removed_gets_another_once_that_is_gone() {
    let stack = Stack::start_live().await;
    let first = stack.hostname().await;
    stack.hold(Hold::Hub);
    let closed = stack.close().await;
    stack.wait_until_decided(closed).await;
    host().change(REPO, stack.number, |pull| pull.open = true);
    let reopened = stack.deliver("reopened").await;
    let waits = format!(
        "SELECT count(*) FROM work WHERE key = '{}' \
         AND run_after BETWEEN now() + interval '1 minute' AND now() + interval '1 hour'",
        reopened.uuid()
    );
    stack.wait("the delivery to wait", async || stack.world.db.text(&waits).await == "1").await;
    stack.release(Hold::Hub);
    stack.wait_until_decided(reopened).await;
    stack.wait_until_live().await;
    assert_ne!(stack.hostname().await, first);
    let decision = format!("SELECT decision FROM inbox WHERE id = '{}'", reopened.uuid());
    assert_eq!(stack.world.db.text(&decision).await, "applied");
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_close_that_nobody_told_us_of_is_noticed() {
    let stack = Stack::start_live().await;
    host().close_silently(REPO, stack.number);
    // A start compares everything that is at rest with the git host.
    stack.kill();
    stack.wait_until_gone().await;
    assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
    stack.end().await;
}

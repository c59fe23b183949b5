//! What a pull request's builds go through.

use stagely_builder_scheduler::Config;
use stagely_domain::build::State;
use stagely_domain::failure::{Code, Failure};
use stagely_store::agents::BuildFact;

use crate::stack::{Stack, fact, wait_for};

#[tokio::test]
async fn two_targets_are_built_on_one_builder() {
    let stack = Stack::start(Config::default()).await;
    let (front, back) = (stack.ask("frontend").await, stack.ask("backend").await);
    let machine = stack.machine_of(front).await;
    assert_eq!(stack.machine_of(back).await, machine);
    let wish = stack.sent(machine, &[front, back]).await;
    let build = wish.builds.iter().find(|build| build.job_id == front.to_string()).unwrap();
    assert_eq!(build.image, format!("127.0.0.1:5000/{}/frontend:abc-1", stack.project.label()));
    assert_eq!(build.checkout.as_ref().unwrap().token, "clone-token");
    assert!(wish.registry.unwrap().password.starts_with("stgr_"));

    stack.report(machine, vec![fact(front, State::Building), fact(back, State::Pushing)]).await;
    stack.state(front, State::Building).await;
    stack.state(back, State::Pushing).await;
    stack.report(machine, vec![fact(front, State::Succeeded), fact(back, State::Succeeded)]).await;
    let done = stack.state(front, State::Succeeded).await;
    assert!(done.image_digest.unwrap().starts_with("sha256:") && done.finished_at.is_some());
    stack.state(back, State::Succeeded).await;
    let woken = format!("SELECT count(*) FROM work WHERE kind = 'environment' AND key = '{}'", stack.env.uuid());
    assert_eq!(stack.db.text(&woken).await, "1");
    assert_eq!(stack.world(|world| (world.acquired.len(), world.released.len())), (1, 0));
}

#[tokio::test]
async fn a_builder_lost_during_a_build_is_replaced() {
    let stack = Stack::start(Config::default()).await;
    let job = stack.ask("backend").await;
    let first = stack.machine_of(job).await;
    stack.report(first, vec![fact(job, State::Building)]).await;
    stack.state(job, State::Building).await;
    let lost = format!(
        "UPDATE machines SET state = 'gone', gone_at = now(), desired = 'absent' WHERE id = '{}'",
        first.uuid()
    );
    stack.db.execute(&lost).await;
    stack.wake().await;
    wait_for("another builder", || async { stack.job(job).await.machine.is_some_and(|machine| machine != first) })
        .await;
    let second = stack.machine_of(job).await;
    assert_eq!(stack.job(job).await.attempt, 1);
    stack.sent(second, &[job]).await;
    stack.report(second, vec![fact(job, State::Succeeded)]).await;
    stack.state(job, State::Succeeded).await;
}

#[tokio::test]
async fn a_superseded_build_is_cancelled_and_its_builder_kept() {
    let stack = Stack::start(Config::default()).await;
    let job = stack.ask("backend").await;
    let machine = stack.machine_of(job).await;
    stack.sent(machine, &[job]).await;
    stack.report(machine, vec![fact(job, State::Building)]).await;
    stack.state(job, State::Building).await;
    stack.db.execute("UPDATE workflow_runs SET state = 'superseded', finished_at = now()").await;
    stack.wake().await;
    stack.state(job, State::Cancelled).await;
    stack.sent(machine, &[]).await;
    assert!(stack.world(|world| world.released.is_empty()));
}

#[tokio::test]
async fn an_idle_builder_is_released() {
    let stack = Stack::start(Config { idle_builder_secs: 1, ..Config::default() }).await;
    let job = stack.ask("backend").await;
    let machine = stack.machine_of(job).await;
    stack.report(machine, vec![fact(job, State::Succeeded)]).await;
    stack.state(job, State::Succeeded).await;
    wait_for("the release", || async { stack.world(|world| world.released == [machine]) }).await;
}

#[tokio::test]
async fn the_builder_of_a_project_without_environments_is_released_at_once() {
    let stack = Stack::start(Config::default()).await;
    let job = stack.ask("backend").await;
    let machine = stack.machine_of(job).await;
    stack.report(machine, vec![fact(job, State::Succeeded)]).await;
    stack.state(job, State::Succeeded).await;
    stack.db.execute("UPDATE environments SET desired = 'absent'").await;
    stack.wake().await;
    wait_for("the release", || async { stack.world(|world| world.released == [machine]) }).await;
}

#[tokio::test]
async fn a_failed_build_says_code_step_and_last_lines() {
    let stack = Stack::start(Config::default()).await;
    let job = stack.ask("backend").await;
    let machine = stack.machine_of(job).await;
    let why = Failure {
        code: Code::BuildFailed,
        phase: "RUN npm ci".to_owned(),
        service: None,
        exit_code: Some(1),
        message: "The step failed.".to_owned(),
        log_tail: "npm ERR! missing".to_owned(),
    };
    stack.report(machine, vec![BuildFact { failure: Some(why.clone()), ..fact(job, State::Failed) }]).await;
    let failed = stack.state(job, State::Failed).await;
    assert_eq!(failed.failure.unwrap(), Failure { service: Some("backend".to_owned()), ..why });
}

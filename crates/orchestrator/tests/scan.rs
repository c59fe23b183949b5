//! Pull requests that nobody told us of: the comparison of open pull requests with previews.

use stagely_domain::id::EnvironmentId;
use stagely_proto::orchestrator as wire;
use stagely_store::NewDelivery;

use crate::gate::{Harm, Point};
use crate::git_host::host;
use crate::stack::Stack;

/// A repository that delivers no webhooks, with pull requests on branches of these names.
async fn quiet_repository(repo: &str, stagely: &[u8], branches: &[&str]) -> Vec<i64> {
    let compose: &[u8] = b"services:\n  web: {build: ./web, ports: ['80:3000']}\n";
    let files = [("docker-compose.yml", compose), ("stagely.yaml", stagely), ("web/Dockerfile", b"FROM scratch\n")];
    host().create_repo(repo, &files).await;
    let mut numbers = Vec::new();
    for branch in branches {
        host().commit(repo, branch, Some("main"), &[("a", branch.as_bytes())], "Change").await;
        numbers.push(host().open_pull_request(repo, branch, "Change").await);
    }
    numbers
}

#[tokio::test]
async fn a_pull_request_that_cannot_be_read_hides_no_other_from_the_scan() {
    let stack = Stack::start().await;
    quiet_repository("acme/quiet", b"version: 2\n", &["one", "two"]).await;
    let mut scan = stack.scan("acme/quiet").await;
    stack.gate.arm(Some((Point { call: "git file_at", number: 0 }, Harm::FailsBefore)));
    let known = async || stack.world.db.text("SELECT count(*) FROM environments").await;
    scan.run().await.unwrap();
    assert_eq!(known().await, "1");
    scan.run().await.unwrap();
    assert_eq!(known().await, "2");
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_that_wants_no_preview_is_read_again_only_when_it_changed() {
    let stack = Stack::start().await;
    let stagely = b"version: 2\ntriggers: { labels: { any: [preview] } }\n";
    let numbers = quiet_repository("acme/labelled", stagely, &["one"]).await;
    let mut scan = stack.scan("acme/labelled").await;
    stack.gate.arm(None);
    for _ in 0..3 {
        scan.run().await.unwrap();
    }
    assert_eq!(stack.gate.calls().iter().filter(|call| **call == "git file_at").count(), 1);
    host().change("acme/labelled", numbers[0], |pull| pull.labels = vec!["preview".to_owned()]);
    scan.run().await.unwrap();
    assert_eq!(stack.world.db.text("SELECT count(*) FROM environments").await, "1");
    stack.end().await;
}

#[tokio::test]
async fn a_preview_that_a_person_removed_stays_gone_until_there_is_another_commit() {
    const REPO: &str = "acme/removed";
    let stack = Stack::start().await;
    let number = quiet_repository(REPO, b"version: 2\n", &["one"]).await[0];
    let mut scan = stack.scan(REPO).await;
    scan.run().await.unwrap();
    let made = stack.world.db.store().find_environment(stack.world.project, number).await.unwrap().unwrap();
    let removal = wire::EnvironmentRequest { environment_id: made.id.to_string(), team_id: made.team.to_string() };
    stack.commands().await.destroy(removal).await.unwrap();
    let rest = async || stack.world.db.store().find_environment(stack.world.project, number).await.unwrap();
    stack.wait("a preview that is gone", async || rest().await.is_none()).await;
    scan.run().await.unwrap();
    assert_eq!(rest().await.map(|env| env.id), None, "it came back by itself");
    host().commit(REPO, "one", Some("main"), &[("a", b"another")], "Change").await;
    scan.run().await.unwrap();
    let anew: EnvironmentId = rest().await.unwrap().id;
    assert_ne!(anew, made.id);
    stack.end().await;
}

#[tokio::test]
async fn a_repository_that_cannot_be_seen_any_more_takes_no_preview_with_it() {
    const REPO: &str = "acme/unseen";
    let stack = Stack::start().await;
    let number = quiet_repository(REPO, b"version: 2\n", &["one"]).await[0];
    stack.scan(REPO).await.run().await.unwrap();
    let desired = async || stack.world.db.text("SELECT desired FROM environments").await;
    assert_eq!(desired().await, "present");
    host().hide_repo(REPO, true);
    let delivery =
        NewDelivery { repo: Some(REPO.to_owned()), pr_number: Some(number), ..stack.delivery("synchronize") };
    let delivery = stack.take_in(delivery).await;
    let refusals = "SELECT count(*) FROM work WHERE kind = 'inbox' AND last_error LIKE '%acme/unseen cannot be seen%'";
    stack.wait("a refusal", async || stack.world.db.text(refusals).await == "1").await;
    assert_eq!(desired().await, "present");
    host().hide_repo(REPO, false);
    stack.wait_until_decided(delivery).await;
    assert_eq!(desired().await, "present");
    stack.end().await;
}

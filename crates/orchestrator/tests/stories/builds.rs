//! Which images are built, which are used again, and which one a machine runs.

use crate::git_host;
use crate::stack::Stack;

#[tokio::test]
async fn a_commit_that_is_deployed_again_says_so_and_builds_nothing() {
    let stack = Stack::start_live().await;
    let built = stack.world.inside().built;
    stack.redeploy().await;
    let causes = "SELECT string_agg(cause, ' ' ORDER BY generation) FROM workflow_runs WHERE live_at IS NOT NULL";
    stack.wait("the second run", async || stack.world.db.text(causes).await == "opened redeploy").await;
    assert_eq!(stack.world.inside().built, built);
    stack.close_and_end().await;
}

#[tokio::test]
async fn an_image_is_taken_again_only_while_all_that_its_build_reads_is_the_same() {
    let stack = Stack::start_live().await;
    assert_eq!(stack.built_for(&[("web/page.html", b"new")]).await, 1);
    assert_eq!(stack.built_for(&[("README.md", b"new")]).await, 0);
    // A Dockerfile outside of its context is no part of git's name of the context.
    let compose: &[u8] =
        b"services:\n  web: {build: {context: ./web, dockerfile: web.Dockerfile}, ports: ['80:3000']}\n";
    let files = [("docker-compose.yml", compose), ("web.Dockerfile", b"FROM scratch\n")];
    assert_eq!(stack.built_for(&files).await, 1);
    assert_eq!(stack.built_for(&[("web.Dockerfile", b"FROM scratch\nUSER 7\n")]).await, 1);
    stack.close_and_end().await;
}

#[tokio::test]
async fn of_an_image_for_two_processors_that_of_the_machine_runs() {
    let stack = Stack::start().await;
    let both: &[u8] = b"version: 2\nbuilds:\n  web: {context: web, platforms: [linux/arm64, linux/amd64]}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", both)]).await;
    stack.open_until_live().await;
    assert_eq!(stack.world.inside().built, 2);
    let machine = stack.only_machine();
    let overlaid = stack.world.inside().told[&machine].override_yaml.clone();
    assert!(overlaid.contains("@sha256:111") && !overlaid.contains("@sha256:222"), "{overlaid}");
    stack.close_and_end().await;
}

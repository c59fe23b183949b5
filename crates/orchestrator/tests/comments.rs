//! The one comment of a pull request.

use stagely_domain::id::{EnvironmentId, ProjectId};
use stagely_forge::MAX_FILE_BYTES;
use stagely_store::work::kind;
use stagely_store::{Outcome, Scope};

use crate::git_host::{self, REPO, host};
use crate::stack::Stack;
use crate::world::Hold;

impl Stack {
    /// Closed and opened again; the environment of before.
    async fn reopen(&self) -> EnvironmentId {
        let store = self.world.db.store();
        let before = store.find_environment(self.world.project, self.number).await.unwrap().unwrap();
        self.close_until_gone().await;
        host().change(REPO, self.number, |pull| pull.open = true);
        self.deliver("reopened").await;
        before.id
    }

    fn comment_ids(&self) -> Vec<u64> {
        host().comments(REPO, self.number).iter().map(|comment| comment.id).collect()
    }
}

#[tokio::test]
async fn a_pull_request_that_is_opened_again_keeps_its_one_comment() {
    let stack = Stack::start_live().await;
    let first = stack.comment_ids();
    stack.reopen().await;
    stack.wait_until_live().await;
    assert_eq!(stack.comment_ids(), first);
    stack.reopen().await;
    // The answer to what was posted got lost.
    stack.world.db.execute("UPDATE pr_posts SET remote_id = NULL").await;
    stack.wait_until_live().await;
    assert_eq!(stack.comment_ids(), first);
    stack.close_until_gone().await;
    assert_eq!(stack.comment_ids(), first);
    stack.end().await;
}

#[tokio::test]
async fn a_late_word_of_an_earlier_environment_does_not_hide_the_present_one() {
    let stack = Stack::start_live().await;
    let earlier = stack.reopen().await;
    stack.wait_until_live().await;
    let tx = stack.world.db.store().begin().await.unwrap();
    tx.wake(kind::ENVIRONMENT, earlier.uuid()).await.unwrap();
    tx.commit().await.unwrap();
    let settled = "SELECT count(*) FROM pr_posts WHERE kind = 'comment' AND posted_seq = wanted_seq";
    stack.wait("the late word", async || stack.world.db.text(settled).await == "2").await;
    assert!(stack.comment().contains("Preview: Live"), "{}", stack.comment());
    stack.close_and_end().await;
}

#[tokio::test]
async fn another_projects_comment_on_the_same_pull_request_is_left_alone() {
    let stack = Stack::start().await;
    let theirs = format!("<!-- stagely:{} -->\nPreview: Live", ProjectId::generate());
    let id = host().add_comment(REPO, stack.number, "stagely", &theirs);
    stack.open().await;
    let both = || host().comments(REPO, stack.number);
    stack.wait("a comment of its own", async || both().len() == 2).await;
    assert!(both().iter().any(|comment| comment.id == id && comment.body == theirs));
    host().delete_comment(REPO, id);
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_deleted_projects_comment_says_that_the_preview_is_removed() {
    let stack = Stack::start_live().await;
    let store = stack.world.db.store();
    let env = store.find_environment(stack.world.project, stack.number).await.unwrap().unwrap();
    let tx = store.begin().await.unwrap();
    tx.delete_project(&Scope::system("test"), stack.world.project).await.unwrap();
    let wished = tx.wish_absent(env.id, env.generation, "the project was deleted").await.unwrap();
    assert_eq!(wished, Outcome::Written);
    tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.unwrap();
    tx.commit().await.unwrap();
    stack.wait_for_comment("Preview: Removed").await;
    stack.wait_until_gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_wish_counts_as_observed_once_it_is_reached() {
    let stack = Stack::start().await;
    let observed = async || stack.world.db.text("SELECT generation - observed_generation FROM environments").await;
    stack.open_until_live().await;
    assert_eq!(observed().await, "0");
    stack.hold(Hold::Deploy);
    stack.redeploy().await;
    stack.wait_for_comment("Starting the services").await;
    assert_eq!(observed().await, "1");
    stack.release(Hold::Deploy);
    stack.wait_until_live().await;
    stack.wait("the wish to be observed", async || observed().await == "0").await;
    stack.close_until_gone().await;
    assert_eq!(observed().await, "0");
    stack.end().await;
}

#[tokio::test]
async fn mistakes_of_stagely_yaml_and_of_the_compose_file_are_told_in_one_comment() {
    let stack = Stack::start().await;
    let text = b"version: 2\npreview: {szie: small, health: {service: wbe}}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", text)]).await;
    stack.open().await;
    stack.wait_for_comment("2 mistakes").await;
    let comment = stack.comment();
    assert!(comment.contains("preview.szie") && comment.contains("did you mean `web`"), "{comment}");
    git_host::commit(&stack.branch, &[("docker-compose.yml", b"services: {web: nginx}\n")]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("docker-compose.yml:1:17: services.web").await;
    assert!(stack.comment().contains("preview.szie"), "{}", stack.comment());
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\n")]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("compose_invalid").await;
    let large = format!("services: {{web: {{image: nginx}}}}\n{}", "#".repeat(MAX_FILE_BYTES));
    git_host::commit(&stack.branch, &[("docker-compose.yml", large.as_bytes())]).await;
    stack.deliver("synchronize").await;
    stack.wait_for_comment("larger than 256 KiB").await;
    stack.close_and_end().await;
}

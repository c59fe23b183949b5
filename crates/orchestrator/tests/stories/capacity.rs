//! What becomes of a pull request when the cloud refuses a machine, lacks room for it or puts it off.

use std::time::Duration;

use stagely_cloud::ErrorKind;
use stagely_domain::machine::Arch;
use stagely_domain::offering::{Offering, Price};

use crate::stack::Stack;

#[tokio::test]
async fn a_machine_that_cannot_be_had_is_said_on_the_pull_request() {
    let stack = Stack::start().await;
    stack.cloud.refuses.lock().unwrap().0 = Some(ErrorKind::Invalid);
    stack.open().await;
    stack.wait_for_comment("Preview: Failed").await;
    let comment = stack.comment();
    assert!(comment.contains("machine_failed") && comment.contains("may have no machines"), "{comment}");
    assert_eq!(stack.cloud.ever(), 0);
    // The next commit is another chance.
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.push().await;
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

fn offering(name: &str, micros_per_hour: u64) -> Offering {
    let price = Some(Price { micros_per_hour, currency: "EUR".to_owned() });
    let (name, location) = (name.to_owned(), "nbg1".to_owned());
    Offering { name, location, arch: Arch::Amd64, vcpus: 4, memory_mib: 8192, price, available: true }
}

#[tokio::test]
async fn a_machine_that_there_is_no_room_for_is_had_as_another_type() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("dear", 30), offering("cheap", 10), offering("fair", 20)]);
    stack.cloud.inner.fill(&["cheap"]);
    stack.open_until_live().await;
    let machine = stack.only_machine();
    assert_eq!(stack.cloud.inner.created_as(machine), Some(offering("fair", 20)));
    assert_eq!(stack.world.db.text("SELECT tried FROM machines").await, r#"["cheap in nbg1"]"#);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_type_that_was_withdrawn_since_the_catalogue_was_read_is_had_as_another() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("old", 10), offering("new", 20)]);
    stack.cloud.inner.retire("old");
    stack.open_until_live().await;
    let machine = stack.only_machine();
    assert_eq!(stack.cloud.inner.created_as(machine), Some(offering("new", 20)));
    assert_eq!(stack.world.db.text("SELECT tried FROM machines").await, r#"["old in nbg1"]"#);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_cloud_without_any_room_is_named_with_all_that_was_tried() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("dear", 30), offering("cheap", 10)]);
    stack.cloud.inner.fill(&["cheap", "dear"]);
    stack.open().await;
    stack.wait_for_comment("Preview: Failed").await;
    assert!(stack.comment().contains("tried cheap in nbg1, dear in nbg1"), "{}", stack.comment());
    assert_eq!(stack.cloud.ever(), 0);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_cloud_that_says_later_again_and_again_only_delays() {
    let stack = Stack::start().await;
    let later = ErrorKind::RateLimited { retry_after: Some(Duration::ZERO) };
    stack.cloud.refuses.lock().unwrap().0 = Some(later);
    stack.open().await;
    stack.wait("many refusals", async || stack.cloud.refuses.lock().unwrap().1 > 25).await;
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.wait_until_live().await;
    stack.close_until_gone().await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

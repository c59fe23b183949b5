//! What a preview costs, from its machine's first second to the pull request's last comment. The account's provider is
//! counted by the second.

use stagely_cloud::Cloud;
use stagely_domain::cost::Money;
use stagely_domain::machine::Arch;
use stagely_domain::offering::{Offering, Price};
use stagely_store::Power;

use crate::stack::Stack;

/// Machines for a euro a second.
pub fn dear() -> Offering {
    let price = Some(Price { micros_per_hour: 3_600_000_000, currency: "EUR".to_owned() });
    let (name, location) = ("dear".to_owned(), "nbg1".to_owned());
    Offering { name, location, arch: Arch::Amd64, vcpus: 4, memory_mib: 8192, price, available: true }
}

async fn noted(stack: &Stack) -> u64 {
    stack.world.db.text("SELECT coalesce(sum(micros), 0) FROM cost_entries").await.parse().unwrap()
}

/// The account's pass comes by until it has noted more than this.
async fn noted_beyond(stack: &Stack, micros: u64) {
    stack
        .wait("a note of the running cost", async || {
            stack.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'sweep'").await;
            noted(stack).await > micros
        })
        .await;
}

#[tokio::test]
async fn a_closed_pull_request_says_what_its_preview_cost_and_sleep_is_no_part_of_it() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![dear()]);
    stack.open_until_live().await;
    noted_beyond(&stack, 0).await;
    assert!(!stack.comment().contains("cost"), "{}", stack.comment());
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    let before = noted(&stack).await;
    assert_eq!(stack.world.db.text("SELECT billed_from FROM machines").await, "");
    stack.power(Power::Awake).await;
    stack.wait_until_live().await;
    let billed = "SELECT billed_from IS NOT NULL FROM machines";
    stack.wait("the meter to run", async || stack.world.db.text(billed).await == "true").await;
    // As if it had woken up before.
    stack.world.db.execute("UPDATE machines SET billed_from = billed_from - interval '100 seconds'").await;
    stack.close_until_gone().await;
    let after = noted(&stack).await;
    let entries = "SELECT string_agg(concat_ws(' ', from_at, to_at, micros), ', ' ORDER BY at) FROM cost_entries";
    let entries = stack.world.db.text(entries).await;
    assert!((before + 100_000_000..before + 160_000_000).contains(&after), "{before}, and then {after}: {entries}");
    let said = Money { micros: after, currency: "EUR".to_owned() };
    assert!(stack.comment().contains(&format!("Its machines cost {said}.")), "{}", stack.comment());
    stack.end().await;
}

#[tokio::test]
async fn a_sleep_that_nobody_recorded_ends_what_is_billed_in_one_piece() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![dear()]);
    stack.open_until_live().await;
    let machine = stack.only_machine();
    let vm = stack.cloud.inner.find(machine).await.unwrap().remove(0);
    stack.cloud.inner.hibernate(&vm.id).await.unwrap();
    stack.restart_and_wake(machine).await;
    stack.wait("the waking", async || noted(&stack).await > 0 && stack.is_served().await).await;
    stack.close_until_gone().await;
    assert_eq!(stack.world.db.text("SELECT count(*) FROM cost_entries").await, "2");
    stack.end().await;
}

#[tokio::test]
async fn a_process_that_is_killed_counts_nothing_twice() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![dear()]);
    stack.open_until_live().await;
    let seconds = "SELECT sum(extract(epoch FROM to_at - from_at))::bigint FROM cost_entries";
    let mut last = 0;
    for _ in 0..3 {
        noted_beyond(&stack, last).await;
        last = noted(&stack).await;
        stack.kill();
    }
    stack.close_until_gone().await;
    let lived = "SELECT ceil(extract(epoch FROM gone_at - placed_at))::bigint FROM machines";
    assert_eq!(stack.world.db.text(seconds).await, stack.world.db.text(lived).await);
    assert_eq!(stack.world.db.text("SELECT count(*) FROM cost_entries").await, "1");
    stack.end().await;
}

#[tokio::test]
async fn a_preview_without_a_price_says_nothing_of_cost() {
    let stack = Stack::start_live().await;
    stack.close_until_gone().await;
    assert!(!stack.comment().contains("cost"), "{}", stack.comment());
    assert_eq!(noted(&stack).await, 0);
    stack.end().await;
}

//! The same story, with something going wrong at every place where something can.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::costs;
use crate::gate::{Harm, Point};
use crate::process;
use crate::stack::Stack;

/// Stacks at the same time, for one test.
const LANES: usize = 3;

/// Every so many-th await is the last of its activation: more than the longest operation has, or nothing would end.
const STRIDE: usize = 40;

/// Machines of which not every second was paid for, once.
const MISCOUNTED: &str = "SELECT count(*) FROM machines m WHERE ceil(extract(epoch FROM gone_at - placed_at)) IS DISTINCT FROM \
    (SELECT sum(extract(epoch FROM to_at - from_at)) FROM cost_entries WHERE machine_id = m.id)";

/// Cuts some of the orchestrator's connections, whatever they are at; how many.
const CUT: &str = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'orchestrator' ORDER BY random() LIMIT 2) AS unlucky";

/// Opened, live, closed, gone: with one machine, which is paid for once, whatever happens.
async fn tell(stack: &Stack) {
    stack.cloud.inner.sell(vec![costs::dear()]);
    stack.open_until_live().await;
    stack.close_until_gone().await;
    assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
    assert_eq!(stack.cloud.ever(), 1);
    assert_eq!(stack.world.db.text(MISCOUNTED).await, "0");
}

/// Every call of the story when nothing goes wrong.
async fn calls(stack: &mut Stack) -> Vec<Point> {
    tell(stack).await;
    let points = Point::of(&stack.gate.calls());
    stack.next().await;
    points
}

/// Tells a story for each of `todo`, some at the same time, on stacks that are used again.
pub async fn in_lanes<T: Copy>(first: Stack, todo: Vec<T>, story: impl AsyncFn(&mut Stack, T)) {
    let todo = Mutex::new(todo);
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let lane = async |stack: Option<Stack>| {
        let mut stack = match stack {
            Some(stack) => stack,
            None => Stack::start().await,
        };
        while let Some(one) = next() {
            story(&mut stack, one).await;
            stack.next().await;
        }
        stack.end().await;
    };
    join_all(std::iter::once(Some(first)).chain((1..LANES).map(|_| None)).map(lane)).await;
}

/// Tells the story once for each call, with that call harmed.
#[expect(clippy::print_stdout, reason = "how many points were tried is what the test is worth")]
async fn harm_each_call(harm: Harm, is_worth_it: impl Fn(Point) -> bool) {
    let mut stack = Stack::start().await;
    let mut points = calls(&mut stack).await;
    // A post's third edit goes the way of its second.
    points.retain(|point| is_worth_it(*point) && !(point.number > 1 && point.call.starts_with("git ensure")));
    let reached = AtomicUsize::new(0);
    in_lanes(stack, points, async |stack, point| {
        stack.gate.arm(Some((point, harm)));
        tell(stack).await;
        reached.fetch_add(usize::from(stack.gate.was_reached()), Ordering::Relaxed);
    })
    .await;
    let reached = reached.into_inner();
    println!("{harm:?}: {reached} points, leaked 0, killed 0, lost 0");
    assert!(reached > 10, "{reached} points are too few to prove anything");
}

#[tokio::test]
async fn every_call_may_fail_before_its_effect() {
    harm_each_call(Harm::FailsBefore, |_| true).await;
}

#[tokio::test]
async fn every_call_may_lose_its_answer() {
    harm_each_call(Harm::FailsAfter, Point::has_effect).await;
}

#[tokio::test]
async fn the_process_may_be_killed_before_every_call() {
    harm_each_call(Harm::DiesBefore, |_| true).await;
}

#[tokio::test]
async fn the_process_may_be_killed_after_every_call() {
    harm_each_call(Harm::DiesAfter, Point::has_effect).await;
}

#[tokio::test]
async fn every_activation_may_be_dropped_at_every_await() {
    let stack = Stack::start().await;
    let broken = AtomicUsize::new(0);
    in_lanes(stack, (0..STRIDE).collect(), async |stack, first| {
        stack.breaks.arm(first, STRIDE);
        tell(stack).await;
        broken.fetch_add(stack.breaks.broken(), Ordering::Relaxed);
    })
    .await;
    let broken = broken.into_inner();
    println!("{broken} activations dropped, leaked 0, killed 0, lost 0");
    assert!(broken > STRIDE, "{broken} awaits are too few to prove anything");
}

#[tokio::test]
async fn a_process_that_freezes_over_a_create_comes_back_to_find_its_work_done() {
    let stack = Stack::start().await;
    stack.gate.arm(Some((Point { call: "cloud create", number: 0 }, Harm::Freezes)));
    stack.open().await;
    stack.gate.waits().await;
    let stop = CancellationToken::new();
    let other = process::start(Arc::clone(&stack.setup), "other".to_owned(), stop.clone());
    stack.wait_until_live().await;
    stack.gate.go_on();
    stop.cancel();
    other.await.unwrap();
    stack.world.bury("other".to_owned());
    // The rest is done by the one that was frozen.
    stack.wait_until_live().await;
    stack.close_until_gone().await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

/// How long a storm lasts: short in an ordinary run, `STORM_SECS=60` for one that is worth more.
#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn storm() -> Duration {
    let told = std::env::var("STORM_SECS").ok();
    Duration::from_secs(told.map_or(10, |secs| secs.parse().expect("STORM_SECS is a number")))
}

#[tokio::test]
async fn its_connections_may_be_cut_all_the_time() {
    let mut stack = Stack::start().await;
    // Once without, so that the process is up.
    tell(&stack).await;
    let (until, mut cut, mut told) = (Instant::now() + storm(), 0, 0);
    while Instant::now() < until {
        stack.next().await;
        let cutting = async {
            loop {
                cut += stack.world.db.text(CUT).await.parse::<u32>().unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = tell(&stack) => told += 1,
            () = cutting => {}
        }
    }
    println!("{cut} connections cut during {told} pull requests, leaked 0, killed 0, lost 0");
    assert!(cut > 50, "{cut} are too few to prove anything");
    // And it goes on as if nothing had been.
    stack.next().await;
    tell(&stack).await;
    stack.end().await;
}

/// The calls up to the moment when it is live.
async fn calls_until_live(stack: &mut Stack) -> Vec<Point> {
    stack.open_until_live().await;
    let points = Point::of(&stack.gate.calls());
    stack.close_until_gone().await;
    stack.next().await;
    points
}

#[tokio::test]
async fn a_pull_request_may_be_closed_during_every_call() {
    let mut stack = Stack::start().await;
    let points = calls_until_live(&mut stack).await;
    let reached = AtomicUsize::new(0);
    in_lanes(stack, points, async |stack, point| {
        stack.gate.arm(Some((point, Harm::Waits)));
        stack.open().await;
        reached.fetch_add(usize::from(stack.call_waits().await), Ordering::Relaxed);
        let closed = stack.close().await;
        stack.wait_until_decided(closed).await;
        stack.gate.go_on();
        stack.wait_until_gone().await;
        assert!(stack.cloud.ever() <= 1);
    })
    .await;
    let reached = reached.into_inner();
    println!("closed during {reached} calls, leaked 0");
    assert!(reached > 10, "{reached} calls are too few to prove anything");
}

#[tokio::test]
async fn a_commit_may_be_pushed_during_every_call() {
    let mut stack = Stack::start().await;
    let points = calls_until_live(&mut stack).await;
    let reached = AtomicUsize::new(0);
    in_lanes(stack, points, async |stack, point| {
        stack.gate.arm(Some((point, Harm::Waits)));
        stack.open().await;
        reached.fetch_add(usize::from(stack.call_waits().await), Ordering::Relaxed);
        let pushed = stack.push().await;
        stack.wait_until_decided(pushed).await;
        stack.gate.go_on();
        stack.wait_until_live().await;
        stack.close_until_gone().await;
        assert_eq!(stack.cloud.ever(), 1);
    })
    .await;
    let reached = reached.into_inner();
    println!("pushed during {reached} calls, leaked 0, stale 0");
    assert!(reached > 10, "{reached} calls are too few to prove anything");
}

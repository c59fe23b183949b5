//! Stops a step at each of its awaits, and runs it twice.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// More suspensions than any honest step has.
const MAX_AWAITS: usize = 500;

/// What was done to a step before its world was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It was dropped when it was suspended for that many times; 0 is before it began.
    At(usize),
    /// It ran to its end, twice.
    Twice,
}

/// For each await of `step`: arranges a fresh world, runs the step there until it is suspended at that await, drops
/// it, and has the rest checked. At last runs it to its end twice, and has that checked too. Returns how many awaits
/// it was stopped at.
///
/// `check` is told what happened. It brings the world to rest as the product would (claim again, reconcile until
/// nothing is due) and asserts what must hold then. A fake that never suspends offers no place to stop at: it should
/// yield (`tokio::task::yield_now`) before and after its effect.
///
/// # Panics
/// When the step is still not done after five hundred suspensions.
pub async fn break_every_await<World, Output>(
    arrange: impl AsyncFn() -> World,
    step: impl AsyncFn(&World) -> Output,
    check: impl AsyncFn(&World, Break),
) -> usize {
    for polls in 0..MAX_AWAITS {
        let world = arrange().await;
        if poll_times(step(&world), polls).await.is_some() {
            step(&world).await;
            check(&world, Break::Twice).await;
            return polls - 1;
        }
        check(&world, Break::At(polls)).await;
    }
    panic!("the step is not done after {MAX_AWAITS} suspensions");
}

/// Polls `future` at most `polls` times, then drops it; its output if that was enough.
pub async fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests;

//! The history of one lease under many workers that freeze, checked against what a lease is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use stagely_reconcile::{Claim, Next, WorkStore};
use stagely_store::testing::TestDb;
use stagely_store::work::PgWork;
use stagely_store::{Store, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::leases::{GOES_BACK, LEDGER, write_fenced};
use crate::storm;
use crate::work::{claim, wake};

const WORKERS: u64 = 8;
const LEASE: Duration = Duration::from_millis(30);
/// The database counts in whole microseconds.
const ROUNDING: Duration = Duration::from_micros(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Claim,
    Write,
    Renew,
    Finish,
}

/// A question of the holder of an epoch. It took effect at some moment between its two times.
#[derive(Debug, Clone, Copy)]
struct Call {
    what: What,
    epoch: i64,
    /// Whether the database did it, or refused it.
    done: bool,
    asked: Instant,
    answered: Instant,
}

/// Whether one order of all calls explains every answer: an epoch begins with its claim and lasts until the next one's, a
/// write or a finish is done exactly while its epoch lasts, and nobody is overtaken before the lease lapsed or was given up.
fn explain(history: &[Call]) -> Result<(), String> {
    let mut epochs = BTreeMap::<i64, Vec<Call>>::new();
    for call in history {
        epochs.entry(call.epoch).or_default().push(*call);
    }
    let mut claims = Vec::new();
    for (epoch, calls) in &epochs {
        let [claim] = calls.iter().filter(|call| call.what == What::Claim).collect::<Vec<_>>()[..] else {
            return Err(format!("epoch {epoch} has not one holder"));
        };
        claims.push(claim);
    }
    if !epochs.keys().copied().eq(1..=i64::try_from(claims.len()).unwrap_or(0)) {
        return Err("an epoch is missing".to_owned());
    }
    let mut earliest = None;
    for (calls, next) in epochs.values().zip(claims.iter().skip(1).map(Some).chain([None])) {
        let claim = calls.iter().find(|call| call.what == What::Claim);
        earliest = earliest.max(claim.map(|claim| claim.asked));
        let mut latest = next.map(|next| next.answered);
        for call in calls.iter().filter(|call| call.what != What::Claim) {
            match call {
                // The next epoch began after it.
                Call { done: true, .. } => earliest = earliest.max(Some(call.asked)),
                Call { what: What::Renew, .. } => {}
                // The next epoch began before it.
                _ if next.is_none() => return Err(format!("refused, and yet nobody came after: {call:?}")),
                _ => latest = latest.min(Some(call.answered)),
            }
        }
        earliest = earliest.max(next.map(|next| next.asked));
        if next.is_some() && earliest > latest {
            return Err(format!("the epoch after {claim:?} cannot have begun at any moment"));
        }
        explain_lapse(calls, next.copied())?;
    }
    Ok(())
}

/// Whether the lease of an epoch lasted as long as was said.
fn explain_lapse(calls: &[Call], next: Option<&Call>) -> Result<(), String> {
    let finished = calls.iter().any(|call| call.what == What::Finish && call.done);
    let extends = |call: &&Call| matches!(call.what, What::Claim | What::Renew) && call.done;
    for held in calls.iter().filter(extends) {
        let lapses = held.asked + LEASE;
        if !finished && next.is_some_and(|next| next.answered + ROUNDING < lapses) {
            return Err(format!("overtaken before the lease lapsed: {held:?}"));
        }
        let is_refused = |call: &&Call| call.what == What::Renew && !call.done && call.asked > held.asked;
        if let Some(refused) = calls.iter().filter(is_refused).find(|call| call.answered + ROUNDING < lapses) {
            return Err(format!("refused before the lease lapsed: {refused:?}"));
        }
    }
    Ok(())
}

/// One worker with connections of its own, until then.
async fn work(url: String, worker: u64, until: Instant, history: &Mutex<Vec<Call>>) {
    let store = Store::connect(&url, 2).await.unwrap();
    let (work, owner) = (PgWork::new(store.clone()), worker.to_string());
    let note = |what, held: &Claim, done, asked| {
        let call = Call { what, epoch: held.fence.epoch, done, asked, answered: Instant::now() };
        history.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    };
    while Instant::now() < until {
        let asked = Instant::now();
        let Some(held) = claim(&work, &owner, LEASE).await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        note(What::Claim, &held, true, asked);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let asked = Instant::now();
            match write_fenced(&store, &held).await {
                Ok(()) => note(What::Write, &held, true, asked),
                Err(StoreError::Fenced { .. }) => note(What::Write, &held, false, asked),
                Err(error) => panic!("{error:?}"),
            }
            let asked = Instant::now();
            note(What::Renew, &held, work.renew(&held.fence, LEASE).await.unwrap(), asked);
        }
        let (asked, next) = (Instant::now(), Next::Done { again_in: Some(Duration::ZERO) });
        note(What::Finish, &held, work.finish(&held.fence, &next).await.unwrap(), asked);
    }
}

/// Stops all that is on this thread, wherever it waits, as SIGSTOP stops a process: every now and then, for longer than
/// a lease. Transactions stay open, and answers stay unread.
#[expect(clippy::disallowed_methods, reason = "a stopped process lets nothing else go on")]
async fn freeze(worker: u64) {
    for round in 0_u64.. {
        tokio::time::sleep(Duration::from_micros(1_000 * (worker + 5) + 7_919 * round % 60_000)).await;
        thread::sleep(LEASE * 2);
    }
}

/// Eight workers, each as good as a process, share one row.
#[tokio::test]
async fn the_history_of_a_lease_under_workers_that_freeze_is_that_of_one_lease() {
    let db = TestDb::new().await;
    db.execute(LEDGER).await;
    wake(&db.store(), Uuid::now_v7()).await;
    let (history, until) = (Arc::new(Mutex::new(Vec::new())), Instant::now() + storm());
    let threads: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (url, history) = (db.url().to_owned(), Arc::clone(&history));
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        () = work(url, worker, until, &history) => {}
                        () = freeze(worker) => {}
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
    let history = history.lock().unwrap().clone();
    let count = |what, done| history.iter().filter(|call| call.what == what && call.done == done).count();
    let (claims, zombies) = (count(What::Claim, true), count(What::Write, false));
    println!(
        "{} calls, {claims} claims, {zombies} writes of zombies refused, two holders of one epoch: 0",
        history.len()
    );
    explain(&history).unwrap();
    assert!(claims > 50 && zombies > 10, "{claims} claims and {zombies} zombies are too few to prove anything");
    assert!(count(What::Renew, false) > 0 && count(What::Finish, true) > 0);
    assert_eq!(db.text(GOES_BACK).await, "0");
    assert_eq!(db.text("SELECT count(*) FROM ledger").await, count(What::Write, true).to_string());
    db.drop_database().await;
}

#[test]
fn a_history_that_no_lease_has_is_not_explained() {
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    let call = |what, epoch, done, from, until| Call { what, epoch, done, asked: at(from), answered: at(until) };
    let first = call(What::Claim, 1, true, 0, 1);
    let second = call(What::Claim, 2, true, 40, 41);
    let right = [first, call(What::Write, 1, true, 2, 3), second, call(What::Write, 1, false, 38, 45)];
    explain(&right).unwrap();
    for wrong in [
        [first, call(What::Claim, 1, true, 40, 41)],
        [first, call(What::Claim, 3, true, 40, 41)],
        [first, call(What::Claim, 2, true, 10, 11)],
        [first, call(What::Write, 1, false, 2, 3)],
        [first, call(What::Renew, 1, false, 2, 3)],
    ] {
        explain(&wrong).unwrap_err();
    }
    for wrong in [
        call(What::Write, 1, true, 50, 51),
        call(What::Finish, 1, true, 50, 51),
        call(What::Finish, 1, false, 10, 11),
        call(What::Renew, 1, true, 20, 21),
    ] {
        explain(&[first, second, wrong]).unwrap_err();
    }
}

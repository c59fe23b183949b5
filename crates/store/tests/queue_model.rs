//! The queue in memory, which simulations trust, behaves like the one in Postgres.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use stagely_reconcile::testing::MemoryWork;
use stagely_reconcile::{Claim, Next, WorkStore};
use stagely_store::testing::TestDb;
use stagely_store::work::{PgWork, kind};
use uuid::Uuid;

use crate::work::wake;

const KIND: &str = kind::ENVIRONMENT;
const LONG: Duration = Duration::from_secs(3600);

/// Times are at once or never, so that the two clocks cannot disagree.
#[derive(Debug, Clone)]
enum Op {
    Wake,
    Claim(Duration),
    /// The others name one of the claims so far, most of them stale by then.
    Renew(usize, Duration),
    Finish(usize, Next),
    GiveBack(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let time = || prop_oneof![Just(Duration::ZERO), Just(LONG)];
    let next = prop_oneof![
        Just(Next::Done { again_in: None }),
        time().prop_map(|after| Next::Done { again_in: Some(after) }),
        (time(), any::<bool>()).prop_map(|(after, counts)| Next::Retry { after, error: "no".to_owned(), counts }),
        Just(Next::Park { error: "never".to_owned() }),
    ];
    prop_oneof![
        3 => Just(Op::Wake),
        4 => time().prop_map(Op::Claim),
        1 => (any::<usize>(), time()).prop_map(|(claim, lease)| Op::Renew(claim, lease)),
        3 => (any::<usize>(), next).prop_map(|(claim, next)| Op::Finish(claim, next)),
        1 => any::<usize>().prop_map(Op::GiveBack),
    ]
}

/// The answers of a queue to the same questions.
async fn play(work: &dyn WorkStore, wake: impl AsyncFn(), ops: &[Op]) -> Vec<String> {
    let (mut claims, mut answers) = (Vec::<Claim>::new(), Vec::new());
    for op in ops {
        let chosen = |index: usize| index.checked_rem(claims.len()).map(|index| claims[index].fence);
        let answer = match op {
            Op::Wake => {
                wake().await;
                String::new()
            }
            Op::Claim(lease) => {
                let claimed = work.claim(KIND, "a", 10, *lease).await.unwrap();
                claims.extend(&claimed);
                format!("{:?}", claimed.iter().map(|claim| (claim.fence.epoch, claim.attempt)).collect::<Vec<_>>())
            }
            Op::Renew(claim, lease) => match chosen(*claim) {
                Some(fence) => work.renew(&fence, *lease).await.unwrap().to_string(),
                None => String::new(),
            },
            Op::Finish(claim, next) => match chosen(*claim) {
                Some(fence) => work.finish(&fence, next).await.unwrap().to_string(),
                None => String::new(),
            },
            Op::GiveBack(claim) => {
                if let Some(fence) = chosen(*claim) {
                    work.give_back(&fence).await.unwrap();
                }
                String::new()
            }
        };
        answers.push(answer);
    }
    answers
}

#[test]
fn memory_and_postgres_answer_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let db = runtime.block_on(TestDb::new());
    let postgres = PgWork::new(db.store());
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(op(), 1..30), |ops| {
        runtime.block_on(async {
            let (memory, key) = (MemoryWork::default(), Uuid::now_v7());
            let expected = play(postgres.as_ref(), async || wake(&db.store(), key).await, &ops).await;
            let got = play(&memory, async || memory.wake(KIND, key), &ops).await;
            db.execute("DELETE FROM work").await;
            if got == expected { Ok(()) } else { Err(TestCaseError::fail(format!("{got:?} in memory, {expected:?}"))) }
        })
    });
    outcome.unwrap();
    runtime.block_on(db.drop_database());
}

//! What the database knows of the time between an account's sweeps.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_store::sweeps::Blind;
use stagely_store::testing::TestDb;

#[tokio::test]
async fn before_the_first_sweep_and_in_a_gap_the_database_knows_nothing_until_that_is_looked_into() {
    let db = TestDb::new().await;
    let team = db.team("acme").await;
    let account = db.qemu_account(team).await;
    let (store, gap) = (db.store(), TimeDelta::minutes(3));
    let at = |minutes: i64| DateTime::<Utc>::from_timestamp(1_800_000_000 + 60 * minutes, 0).unwrap();
    let note = async |minutes| store.note_sweep(account, at(minutes), gap).await.unwrap();
    let all = Some(Blind { from: DateTime::UNIX_EPOCH, until: at(0) });
    assert_eq!((note(0).await, note(1).await), (all, all));
    store.forget_blind(account).await.unwrap();
    assert_eq!(note(2).await, None);
    assert_eq!(note(10).await, Some(Blind { from: at(2), until: at(10) }));
    store.forget_blind(account).await.unwrap();
    assert_eq!(note(11).await, None);
}

//! What sweeps of an account know of each other. Written by the orchestrator.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::id::CloudAccountId;

use crate::{Result, Store, StoreError};

/// A time of which this database knows nothing: whoever wrote to it then wrote to one that it is an older copy of, or
/// nobody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blind {
    /// Its begin: the last sweep before it, or 1970.
    pub from: DateTime<Utc>,
    /// Its end: the first sweep after it.
    pub until: DateTime<Utc>,
}

impl Store {
    /// A sweep of `account` begins at `now`. The time of which the database knows nothing, if the sweep before lies
    /// further back than `gap`, or if that was so once and [`Store::forget_blind`] was not called since. Before the first
    /// sweep that is all time: the database may be older than the account's sweeps.
    ///
    /// # Errors
    /// The database's error.
    pub async fn note_sweep(
        &self,
        account: CloudAccountId,
        now: DateTime<Utc>,
        gap: TimeDelta,
    ) -> Result<Option<Blind>> {
        let sql = "INSERT INTO sweeps AS s (account_id, swept_at, blind_from, blind_until) \
                   VALUES ($1, $2, to_timestamp(0), $2) \
                   ON CONFLICT (account_id) DO UPDATE SET \
                     blind_from = CASE WHEN s.swept_at < $3 THEN least(s.blind_from, s.swept_at) \
                                  ELSE s.blind_from END, \
                     blind_until = CASE WHEN s.swept_at < $3 THEN $2 ELSE s.blind_until END, \
                     swept_at = greatest(s.swept_at, $2) \
                   RETURNING blind_from, blind_until";
        let written = self.row("note a sweep", sql, [account.uuid().into(), now.into(), (now - gap).into()]).await?;
        let row = written.ok_or(StoreError::NotFound("sweep"))?;
        let from: Option<DateTime<Utc>> = row.get("blind_from")?;
        let until: Option<DateTime<Utc>> = row.get("blind_until")?;
        Ok(from.zip(until).map(|(from, until)| Blind { from, until }))
    }

    /// Nothing is left of the time of which the database knows nothing.
    ///
    /// # Errors
    /// The database's error.
    pub async fn forget_blind(&self, account: CloudAccountId) -> Result<()> {
        let sql =
            "UPDATE sweeps SET blind_from = NULL, blind_until = NULL WHERE account_id = $1 AND blind_from IS NOT NULL";
        self.run("note a sweep", sql, [account.uuid().into()]).await.map(drop)
    }
}

//! How long an environment lives and stays awake. What the reaper decides about that takes effect only if it still
//! holds: one statement compares what was seen and sets the wish, so a push, a visit, a renewal or a pin in between
//! wins.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::id::{EnvironmentId, ProjectId};

use crate::{Outcome, Result, Store, Tx};

impl Tx {
    /// Keeps it past its TTL, or not.
    ///
    /// # Errors
    /// The database's error.
    pub async fn pin_environment(&self, id: EnvironmentId, pinned: bool) -> Result<()> {
        let sql = "UPDATE environments SET pinned = $2, updated_at = now() WHERE id = $1";
        self.run("pin an environment", sql, [id.uuid().into(), pinned.into()]).await?;
        Ok(())
    }

    /// Takes the lifetimes of the commit's `stagely.yaml`, counted from now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn renew_environment(
        &self,
        id: EnvironmentId,
        ttl: TimeDelta,
        sleep_after: Option<TimeDelta>,
    ) -> Result<()> {
        self.run(
            "renew an environment",
            "UPDATE environments SET ttl_secs = $2, sleep_after_secs = $3, \
             expires_at = now() + make_interval(secs => $2), last_activity_at = now(), updated_at = now() \
             WHERE id = $1",
            [id.uuid().into(), ttl.num_seconds().into(), sleep_after.map(|after| after.num_seconds()).into()],
        )
        .await?;
        Ok(())
    }

    /// Remembers that visitors were there. Never moves back.
    ///
    /// # Errors
    /// The database's error.
    pub async fn touch_environment(&self, id: EnvironmentId, at: DateTime<Utc>) -> Result<()> {
        let sql =
            "UPDATE environments SET last_activity_at = greatest(last_activity_at, least($2, now())) WHERE id = $1";
        self.run("note activity", sql, [id.uuid().into(), at.into()]).await?;
        Ok(())
    }

    /// Wishes one to sleep that nobody visits: stale if anybody did after `last_activity_at`, or it was pinned.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_idle_asleep(
        &self,
        id: EnvironmentId,
        generation: i64,
        last_activity_at: DateTime<Utc>,
    ) -> Result<Outcome> {
        let sql = "UPDATE environments SET desired_power = 'asleep', updated_at = now() \
                   WHERE id = $1 AND generation = $2 AND last_activity_at = $3 AND NOT pinned \
                   AND desired = 'present' AND desired_power = 'awake'";
        let values = [id.uuid().into(), generation.into(), last_activity_at.into()];
        Ok(Outcome::of(self.run("wish an idle environment asleep", sql, values).await?))
    }

    /// Wishes one away whose time is over: stale if it ends at another time than `end` by now, or was pinned. Without
    /// an `end` neither matters.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_expired(
        &self,
        id: EnvironmentId,
        generation: i64,
        end: Option<DateTime<Utc>>,
        reason: &str,
    ) -> Result<Outcome> {
        let sql = "UPDATE environments SET desired = 'absent', stays_gone = true, generation = generation + 1, \
                   reason = $4, updated_at = now() \
                   WHERE id = $1 AND generation = $2 AND desired = 'present' \
                   AND ($3::timestamptz IS NULL OR (expires_at = $3 AND NOT pinned))";
        let values = [id.uuid().into(), generation.into(), end.into(), reason.into()];
        Ok(Outcome::of(self.run("wish an expired environment away", sql, values).await?))
    }

    /// Wishes it away although its pull request is open. Stale when it was wished away before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_removed(&self, id: EnvironmentId, reason: &str) -> Result<Outcome> {
        let sql = "UPDATE environments SET desired = 'absent', stays_gone = true, generation = generation + 1, \
                   reason = $2, updated_at = now() WHERE id = $1 AND desired = 'present'";
        Ok(Outcome::of(self.run("wish an environment removed", sql, [id.uuid().into(), reason.into()]).await?))
    }

    /// A pull request that is closed and opened again gets a preview, also when that of before was removed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn forget_removal(&self, project: ProjectId, pr_number: i64) -> Result<()> {
        let sql = "UPDATE environments SET stays_gone = false WHERE project_id = $1 AND pr_number = $2 AND stays_gone";
        self.run("forget that an environment was removed", sql, [project.uuid().into(), pr_number.into()]).await?;
        Ok(())
    }
}

impl Store {
    /// Whether the last environment of a pull request was removed, or expired, at this commit while the pull request
    /// was open.
    ///
    /// # Errors
    /// The database's error.
    pub async fn stays_gone(&self, project: ProjectId, pr_number: i64, sha: &str) -> Result<bool> {
        let sql = "SELECT stays_gone AND desired_sha = $3 AS stays_gone FROM environments \
                   WHERE project_id = $1 AND pr_number = $2 ORDER BY id DESC LIMIT 1";
        let values = [project.uuid().into(), pr_number.into(), sha.into()];
        let found = self.row("find how an environment ended", sql, values).await?;
        found.map_or(Ok(false), |row| row.get("stays_gone"))
    }
}

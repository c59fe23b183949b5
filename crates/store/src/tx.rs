//! Short write transactions, plain or behind a fence.

use sea_orm::{DatabaseTransaction, TransactionTrait};
use stagely_reconcile::Fence;

use crate::{Result, Store, StoreError};

/// One transaction. Dropped without [`Tx::commit`] it is rolled back. Never held across a network call.
pub struct Tx {
    pub(crate) inner: DatabaseTransaction,
}

impl Store {
    /// Begins a transaction that no lease guards (API writes, inbox, hub facts).
    ///
    /// # Errors
    /// The database's error.
    pub async fn begin(&self) -> Result<Tx> {
        // In a task of its own, which nobody drops half-way: sqlx 0.9 does not roll back a BEGIN whose answer is not
        // awaited, and the connection would go back to the pool inside a transaction that nobody ends.
        let db = self.db.clone();
        let begun = self.tasks.spawn(async move { db.begin().await }).await;
        let begun = begun.unwrap_or_else(|error| Err(sea_orm::DbErr::Custom(error.to_string())));
        let inner = begun.map_err(|source| StoreError::query("begin a transaction", source))?;
        Ok(Tx { inner })
    }

    /// Begins a reconciler's transaction: its first statement locks the work row at `fence.epoch`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another holder has claimed the row since.
    pub async fn fenced(&self, fence: &Fence) -> Result<Tx> {
        let tx = self.begin().await?;
        let sql = "SELECT 1 FROM work WHERE kind = $1 AND key = $2 AND epoch = $3 FOR UPDATE";
        match tx.row("check the fence", sql, [fence.kind.into(), fence.key.into(), fence.epoch.into()]).await? {
            Some(_) => Ok(tx),
            None => Err(StoreError::Fenced { kind: fence.kind, key: fence.key, epoch: fence.epoch }),
        }
    }
}

impl Tx {
    /// Makes the writes, and the wake-ups among them, visible to everyone at once.
    ///
    /// # Errors
    /// The database's error; whether the commit took effect is then unknown, and the caller looks again.
    pub async fn commit(self) -> Result<()> {
        self.inner.commit().await.map_err(|source| StoreError::query("commit", source))
    }
}

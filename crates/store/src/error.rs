//! What can go wrong with the database.

use stagely_reconcile::{ErrorClass, StepError};

/// A failure of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool could not be opened.
    #[error("connect to Postgres")]
    Connect(#[source] sqlx::Error),
    /// A migration failed.
    #[error("migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        #[source]
        source: Box<sea_orm::DbErr>,
    },
    /// The lease is somebody else's by now: nothing was written, and the step must stop.
    #[error("fenced out of {kind} {key} (epoch {epoch})")]
    Fenced {
        /// The work row's kind.
        kind: &'static str,
        /// The work row's key.
        key: uuid::Uuid,
        /// The epoch that is not current any more.
        epoch: i64,
    },
    /// A row holds something this version does not understand.
    #[error("{table} row {id} holds an unknown {column}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// Its primary key, as text.
        id: String,
        /// The column.
        column: &'static str,
    },
    /// A step between two states that the domain does not know: a bug.
    #[error("no row of {table} may go from {from} to {to}")]
    Illegal {
        /// The table.
        table: &'static str,
        /// The state that the row is in.
        from: String,
        /// The state that it was to be put into.
        to: String,
    },
    /// There is no such row, or it is not the asker's: the two look the same.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A uniqueness rule refused the row.
    #[error("{0} already exists")]
    Exists(&'static str),
    /// A sealed value could not be opened: wrong key, or tampered with. Never says more.
    #[error("sealed value of {table}.{column} cannot be opened")]
    Sealed {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

impl StoreError {
    pub(crate) fn query(doing: &'static str, source: sea_orm::DbErr) -> Self {
        Self::Query { doing, source: Box::new(source) }
    }

    /// Whether trying again later may help (the database was away), as opposed to a bug or a stale writer.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Query { .. })
    }

    /// What it means for a reconciler's step. A database that is away parks nothing, however long it takes: the rows
    /// that it stopped are not woken when it is back.
    #[must_use]
    pub fn into_step_error(self, doing: &'static str) -> StepError {
        match self {
            error @ Self::Fenced { .. } => StepError::new(ErrorClass::Fenced, doing, error),
            error if error.is_transient() => StepError::new(ErrorClass::Transient, doing, error).never_parks(),
            error => StepError::new(ErrorClass::Permanent, doing, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use stagely_reconcile::ErrorClass;

    use super::StoreError;

    #[test]
    fn a_database_that_is_away_parks_nothing_and_what_is_wrong_for_good_does() {
        let away = StoreError::query("test", sea_orm::DbErr::Custom("away".to_owned())).into_step_error("test");
        assert_eq!((away.class, away.may_park), (ErrorClass::Transient, false));
        let wrong = StoreError::NotFound("machine").into_step_error("test");
        assert_eq!((wrong.class, wrong.may_park), (ErrorClass::Permanent, true));
        let stale = StoreError::Fenced { kind: "machine", key: uuid::Uuid::nil(), epoch: 1 }.into_step_error("test");
        assert_eq!(stale.class, ErrorClass::Fenced);
    }
}

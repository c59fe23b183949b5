//! Raw statements, on the pool or in a transaction: the one place where text and values meet the database, and where an
//! error learns what was being done.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, QueryResult, Statement, TryGetable, Value};

use crate::{Result, Store, StoreError, Tx};

/// One row of an answer. It remembers what was being done, so that the error of a column says it too.
pub(crate) struct Row {
    doing: &'static str,
    columns: QueryResult,
}

impl Row {
    /// The value of a column.
    pub(crate) fn get<T: TryGetable>(&self, column: &str) -> Result<T> {
        self.columns.try_get("", column).map_err(|source| StoreError::query(self.doing, source))
    }

    /// All columns of an entity. Others are let be.
    pub(crate) fn model<M: FromQueryResult>(&self) -> Result<M> {
        M::from_query_result(&self.columns, "").map_err(|source| StoreError::query(self.doing, source))
    }
}

impl Store {
    /// Runs one statement; the number of rows it changed, or answered with.
    pub(crate) async fn run(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64> {
        run(&self.db, doing, statement(sql, values)).await
    }

    /// The first row of a statement's answer.
    pub(crate) async fn row(
        &self,
        doing: &'static str,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>> {
        row(&self.db, doing, statement(sql, values)).await
    }

    /// All rows of a statement's answer.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>> {
        rows(&self.db, doing, statement(sql, values)).await
    }
}

impl Tx {
    /// Runs one statement; the number of rows it changed, or answered with.
    pub(crate) async fn run(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64> {
        run(&self.inner, doing, statement(sql, values)).await
    }

    /// The first row of a statement's answer.
    pub(crate) async fn row(
        &self,
        doing: &'static str,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>> {
        row(&self.inner, doing, statement(sql, values)).await
    }

    /// All rows of a statement's answer.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>> {
        rows(&self.inner, doing, statement(sql, values)).await
    }
}

fn statement(sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}

async fn run(on: &impl ConnectionTrait, doing: &'static str, statement: Statement) -> Result<u64> {
    let done = on.execute_raw(statement).await.map_err(|source| StoreError::query(doing, source))?;
    Ok(done.rows_affected())
}

async fn row(on: &impl ConnectionTrait, doing: &'static str, statement: Statement) -> Result<Option<Row>> {
    let found = on.query_one_raw(statement).await.map_err(|source| StoreError::query(doing, source))?;
    Ok(found.map(|columns| Row { doing, columns }))
}

async fn rows(on: &impl ConnectionTrait, doing: &'static str, statement: Statement) -> Result<Vec<Row>> {
    let found = on.query_all_raw(statement).await.map_err(|source| StoreError::query(doing, source))?;
    Ok(found.into_iter().map(|columns| Row { doing, columns }).collect())
}

//! Logs: streams of text, appended by the agent hub and read by the API.
//!
//! A stream belongs to one machine and has a name (`compose`, `service/web`, `build/<job id>`). Its rows carry
//! the offset, in bytes as the agent sent them, at which each began; what is stored may be shorter than what
//! was sent, because secrets are hidden and NUL is left out. `next_offset` is compared and set with each
//! append, so a chunk that comes twice is stored once.

use chrono::{DateTime, Utc};
use stagely_domain::id::{BuildJobId, EnvironmentId, LogStreamId, MachineId};

use crate::statement::Row;
use crate::{Outcome, Result, Scope, Store, StoreError, Tx};

/// Rows looked at for one page, however short they are.
const PAGE_ROWS: i64 = 1000;

/// Whose streams to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOwner {
    /// All of an environment's: its preview machines' and its builds'.
    Environment(EnvironmentId),
    /// One build job's: one stream for each machine that it was tried on.
    Build(BuildJobId),
}

/// One stream, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// Its id.
    pub id: LogStreamId,
    /// The machine that writes it.
    pub machine: MachineId,
    /// The environment it is about.
    pub env: Option<EnvironmentId>,
    /// The build it is about.
    pub build: Option<BuildJobId>,
    /// `build/<job id>`, `compose`, `hook/<n>`, `service/<name>` or `agent`.
    pub name: String,
    /// Bytes taken in so far, lost ones included.
    pub next_offset: u64,
    /// When its first byte came.
    pub created_at: DateTime<Utc>,
    /// When it ended, if that is known.
    pub closed_at: Option<DateTime<Utc>>,
}

/// A piece of a stream, stored or to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Where it begins, in bytes of the stream as the agent counts them.
    pub offset: u64,
    /// The text, masked, without NUL.
    pub content: String,
    /// Bytes that were dropped just before it.
    pub lost_bytes: u64,
}

/// A stored piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The text and where it begins.
    pub row: LogRow,
    /// When it was stored.
    pub at: DateTime<Utc>,
}

/// Some entries of one stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The entries; empty at the stream's present end.
    pub entries: Vec<LogEntry>,
    /// Give this as `from_offset` to go on.
    pub next_offset: u64,
}

const COLUMNS: &str = "s.id, s.machine_id, s.env_id, s.build_id, s.name, s.next_offset, s.created_at, s.closed_at";

impl Store {
    /// The streams of an environment or a build, oldest first. Another team's look like none.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_streams(&self, scope: &Scope, owner: LogOwner) -> Result<Vec<LogStream>> {
        let (column, id) = match owner {
            LogOwner::Environment(env) => ("env_id", env.uuid()),
            LogOwner::Build(job) => ("build_id", job.uuid()),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM log_streams s WHERE s.{column} = $2 \
             AND ($1::uuid IS NULL OR s.team_id = $1) ORDER BY s.created_at, s.name LIMIT 1000"
        );
        let rows = self.rows("list log streams", sql, [scope.team_uuid().into(), id.into()]).await?;
        rows.iter().map(stream).collect()
    }

    /// One stream.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_stream(&self, scope: &Scope, id: LogStreamId) -> Result<LogStream> {
        let sql =
            format!("SELECT {COLUMNS} FROM log_streams s WHERE s.id = $2 AND ($1::uuid IS NULL OR s.team_id = $1)");
        let found = self.row("read a log stream", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        stream(&found.ok_or(StoreError::NotFound("log stream"))?)
    }

    /// The entries that begin at `from_offset` or later, until they hold `limit_bytes` or more: the last may go
    /// over, so that there always is progress.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such stream, or it is another team's.
    pub async fn read_log(
        &self,
        scope: &Scope,
        id: LogStreamId,
        from_offset: u64,
        limit_bytes: u32,
    ) -> Result<LogPage> {
        self.get_stream(scope, id).await?;
        let sql = "SELECT byte_offset, at, content, lost_bytes FROM ( \
                     SELECT page.*, \
                       sum(octet_length(content)) OVER (ORDER BY byte_offset) - octet_length(content) AS before \
                     FROM (SELECT byte_offset, at, content, lost_bytes FROM build_logs \
                           WHERE stream_id = $1 AND byte_offset >= $2 ORDER BY byte_offset LIMIT $4) page \
                   ) counted WHERE before < $3 ORDER BY byte_offset";
        let values = [
            id.uuid().into(),
            i64::try_from(from_offset).unwrap_or(i64::MAX).into(),
            i64::from(limit_bytes.max(1)).into(),
            PAGE_ROWS.into(),
        ];
        let entries: Vec<LogEntry> =
            self.rows("read a log", sql, values).await?.iter().map(entry).collect::<Result<_>>()?;
        let next_offset = entries.last().map_or(from_offset, |last| last.row.offset.saturating_add(1));
        Ok(LogPage { entries, next_offset })
    }

    /// How far each stream of a machine is stored: the agent goes on from there.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_log_positions(&self, machine: MachineId) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT name, next_offset FROM log_streams WHERE machine_id = $1";
        let rows = self.rows("list log positions", sql, [machine.uuid().into()]).await?;
        rows.iter().map(|row| Ok((row.get("name")?, bytes(row, "next_offset")?))).collect()
    }

    /// Tells whoever waits on the channel `logs` that some log has grown. It carries no data.
    ///
    /// # Errors
    /// The database's error.
    pub async fn notify_logs(&self) -> Result<()> {
        self.run("notify of logs", "NOTIFY logs", []).await.map(drop)
    }
}

impl Tx {
    /// The machine's stream of this name, made if it is new; `None` when `build` is not a job given to this
    /// machine. The stream's team and environment come from the machine's and the job's own rows, never from
    /// what the agent says.
    ///
    /// # Errors
    /// The database's error.
    pub async fn ensure_log_stream(
        &self,
        machine: MachineId,
        name: &str,
        build: Option<BuildJobId>,
    ) -> Result<Option<LogStream>> {
        let doing = "open a log stream";
        let sql = "INSERT INTO log_streams (id, team_id, machine_id, env_id, build_id, name) \
                   SELECT $1, m.team_id, m.id, coalesce(b.env_id, m.env_id), b.id, $3 FROM machines m \
                   LEFT JOIN build_jobs b ON b.id = $4 AND b.machine_id = m.id AND b.team_id = m.team_id \
                   WHERE m.id = $2 AND ($4::uuid IS NULL OR b.id IS NOT NULL) \
                   ON CONFLICT (machine_id, name) DO NOTHING";
        let values = [
            LogStreamId::generate().uuid().into(),
            machine.uuid().into(),
            name.into(),
            build.map(BuildJobId::uuid).into(),
        ];
        self.run(doing, sql, values).await?;
        let sql = format!("SELECT {COLUMNS} FROM log_streams s WHERE s.machine_id = $1 AND s.name = $2");
        let found = self.row(doing, sql, [machine.uuid().into(), name.into()]).await?;
        found.as_ref().map(stream).transpose()
    }

    /// Appends `rows` to a stream that ends at `from`; it then ends at `to`. Stale when it ends elsewhere by now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn append_log(&self, id: LogStreamId, from: u64, rows: &[LogRow], to: u64) -> Result<Outcome> {
        let doing = "append to a log";
        let (Ok(start), Ok(end)) = (i64::try_from(from), i64::try_from(to)) else { return Ok(Outcome::Stale) };
        let sql = "UPDATE log_streams SET next_offset = $3 WHERE id = $1 AND next_offset = $2";
        if self.run(doing, sql, [id.uuid().into(), start.into(), end.into()]).await? == 0 {
            return Ok(Outcome::Stale);
        }
        if rows.is_empty() {
            return Ok(Outcome::Written);
        }
        let batch: Vec<_> = rows
            .iter()
            .map(|row| serde_json::json!({"o": row.offset, "c": row.content, "l": row.lost_bytes}))
            .collect();
        let sql = "INSERT INTO build_logs (stream_id, byte_offset, content, lost_bytes) \
                   SELECT $1, r.o, r.c, r.l FROM jsonb_to_recordset($2) AS r(o bigint, c text, l bigint)";
        self.run(doing, sql, [id.uuid().into(), serde_json::Value::Array(batch).into()]).await?;
        Ok(Outcome::Written)
    }
}

fn stream(row: &Row) -> Result<LogStream> {
    let env: Option<uuid::Uuid> = row.get("env_id")?;
    let build: Option<uuid::Uuid> = row.get("build_id")?;
    Ok(LogStream {
        id: LogStreamId::from_uuid(row.get("id")?),
        machine: MachineId::from_uuid(row.get("machine_id")?),
        env: env.map(EnvironmentId::from_uuid),
        build: build.map(BuildJobId::from_uuid),
        name: row.get("name")?,
        next_offset: bytes(row, "next_offset")?,
        created_at: row.get("created_at")?,
        closed_at: row.get("closed_at")?,
    })
}

fn entry(row: &Row) -> Result<LogEntry> {
    Ok(LogEntry {
        row: LogRow {
            offset: bytes(row, "byte_offset")?,
            content: row.get("content")?,
            lost_bytes: bytes(row, "lost_bytes")?,
        },
        at: row.get("at")?,
    })
}

/// Offsets are never negative: only [`Tx::append_log`] writes them.
fn bytes(row: &Row, column: &str) -> Result<u64> {
    Ok(row.get::<i64>(column)?.unsigned_abs())
}

//! Logs of builds and services, whole as text or live as server-sent events.
//!
//! Text: everything there is now. Events (`Accept: text/event-stream`): `log` events whose id is the offset to
//! go on from, so a client that reconnects with `Last-Event-ID` misses nothing and gets nothing twice; `end`
//! when the stream was closed and all of it was sent. Without `end` the connection was lost: come again.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use stagely_domain::error_chain::chain;
use stagely_domain::id::{BuildJobId, EnvironmentId, LogStreamId, MachineId};
use stagely_store::{LogEntry, LogOwner, LogStream, Scope};

use crate::App;
use crate::auth::permission::Viewer;
use crate::error::{ApiError, Result};
use crate::extract::{Path, Query};
use crate::json::{Page, Timestamp};

/// Bytes of log read at once.
const PAGE_BYTES: u32 = 256 * 1024;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(300);

/// How often a silent connection shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many silent looks at the log of a finished build make its end, where the agent never closed it.
const QUIET_LOOKS: u32 = 10;

/// One log stream of an environment.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct LogStreamInfo {
    /// Its id: read it at `/environments/{id}/logs/{stream}`.
    pub id: LogStreamId,
    /// `build/<job id>`, `compose`, `hook/<n>`, `service/<name>` or `agent`.
    pub name: String,
    /// The machine that writes it.
    pub machine: MachineId,
    /// The build it is about.
    pub build: Option<BuildJobId>,
    /// Bytes so far.
    pub bytes: u64,
    /// When its first byte came.
    pub created_at: Timestamp,
    /// When it was closed; null while it may grow.
    pub closed_at: Option<Timestamp>,
}

/// Where to begin.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Bytes to skip. `Last-Event-ID` says the same and wins.
    #[serde(default)]
    pub from: u64,
}

/// The data of a `log` event.
#[derive(Debug, Serialize)]
struct Line<'a> {
    offset: u64,
    at: Timestamp,
    text: &'a str,
    lost_bytes: u64,
}

/// `GET /api/v1/environments/{id}/logs`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<EnvironmentId>,
) -> Result<axum::Json<Page<LogStreamInfo>>> {
    app.store.get_environment_view(caller.scope(), id).await?;
    let streams = app.store.list_streams(caller.scope(), LogOwner::Environment(id)).await?;
    Ok(axum::Json(Page { items: streams.into_iter().map(LogStreamInfo::from).collect(), next_cursor: None }))
}

/// `GET /api/v1/environments/{id}/logs/{stream}`
pub async fn of_environment(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path((id, stream)): Path<(EnvironmentId, LogStreamId)>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let found = app.store.get_stream(caller.scope(), stream).await?;
    if found.env != Some(id) {
        return Err(ApiError::NotFound("log stream"));
    }
    let reader = Reader::new(&app, caller.scope(), Source::Stream(stream), offset(&headers, &query)?);
    Ok(reader.respond(&headers))
}

/// `GET /api/v1/builds/{id}/logs`
pub async fn of_build(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<BuildJobId>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    app.store.get_build_view(caller.scope(), id).await?;
    let reader = Reader::new(&app, caller.scope(), Source::Build(id), offset(&headers, &query)?);
    Ok(reader.respond(&headers))
}

fn offset(headers: &HeaderMap, query: &LogQuery) -> Result<u64> {
    let Some(last) = headers.get("last-event-id") else {
        return Ok(query.from);
    };
    last.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| ApiError::Invalid {
        code: "invalid_header",
        detail: "Last-Event-ID must be the id of an event of this log: a number".to_owned(),
    })
}

#[derive(Clone, Copy)]
enum Source {
    Stream(LogStreamId),
    /// The newest stream of a build, which may not be there yet.
    Build(BuildJobId),
}

/// What one look at a log gave.
enum Look {
    Entries(Vec<LogEntry>, u64),
    Nothing,
    End,
}

struct Reader {
    app: App,
    scope: Scope,
    source: Source,
    stream: Option<LogStreamId>,
    offset: u64,
    quiet: u32,
}

impl Reader {
    fn new(app: &App, scope: &Scope, source: Source, offset: u64) -> Self {
        Self { app: app.clone(), scope: scope.clone(), source, stream: None, offset, quiet: 0 }
    }

    fn respond(self, headers: &HeaderMap) -> Response {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accept.contains("text/event-stream") {
            let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
            let mut response = Sse::new(self.events()).keep_alive(keep_alive).into_response();
            // Proxies in front must not wait for a full buffer.
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        } else {
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (plain, Body::from_stream(self.text())).into_response()
        }
    }

    /// Looks once. `End` means that nothing more can come.
    async fn look(&mut self) -> Result<Look> {
        let (closed, id) = match self.stream {
            Some(id) => (self.app.store.get_stream(&self.scope, id).await?.closed_at.is_some(), id),
            None => match self.find().await? {
                Some(stream) => (stream.closed_at.is_some(), stream.id),
                None => {
                    return Ok(if self.build_is_over().await? { Look::End } else { Look::Nothing });
                }
            },
        };
        self.stream = Some(id);
        let page = self.app.store.read_log(&self.scope, id, self.offset, PAGE_BYTES).await?;
        if !page.entries.is_empty() {
            (self.offset, self.quiet) = (page.next_offset, 0);
            return Ok(Look::Entries(page.entries, page.next_offset));
        }
        self.quiet += 1;
        // The closing was seen before the page was read, so an empty page is the true end.
        let over = closed || (self.quiet >= QUIET_LOOKS && self.build_is_over().await?);
        Ok(if over { Look::End } else { Look::Nothing })
    }

    async fn find(&self) -> Result<Option<LogStream>> {
        match self.source {
            Source::Stream(id) => Ok(Some(self.app.store.get_stream(&self.scope, id).await?)),
            Source::Build(id) => {
                Ok(self.app.store.list_streams(&self.scope, LogOwner::Build(id)).await?.into_iter().next_back())
            }
        }
    }

    async fn build_is_over(&self) -> Result<bool> {
        match self.source {
            Source::Stream(_) => Ok(false),
            Source::Build(id) => Ok(self.app.store.get_build_view(&self.scope, id).await?.state.is_final()),
        }
    }

    /// Everything there is now, in pages.
    fn text(self) -> impl Stream<Item = Result<String>> + Send + 'static {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.look().await {
                Ok(Look::Entries(entries, _)) => Some((Ok(plain(&entries)), Some(reader))),
                Ok(Look::Nothing | Look::End) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Events until the log ends, the client goes or this process stops.
    fn events(self) -> impl Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static {
        let shutdown = self.app.shutdown.clone();
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            loop {
                match reader.look().await {
                    Ok(Look::Entries(entries, next)) => {
                        return Some((log_events(&entries, next), Some(reader)));
                    }
                    Ok(Look::Nothing) => tokio::time::sleep(POLL).await,
                    Ok(Look::End) => {
                        return Some((vec![Event::default().event("end").data("{}")], None));
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "a followed log broke off; the client will come again");
                        return None;
                    }
                }
            }
        })
        .flat_map(|events| stream::iter(events.into_iter().map(Ok)))
        .take_until(shutdown.cancelled_owned())
    }
}

/// One event per entry; its id is the offset of the next one.
fn log_events(entries: &[LogEntry], next: u64) -> Vec<Event> {
    let ids = entries.iter().skip(1).map(|entry| entry.row.offset).chain(std::iter::once(next));
    entries
        .iter()
        .zip(ids)
        .filter_map(|(entry, id)| {
            let row = &entry.row;
            let line = Line { offset: row.offset, at: entry.at.into(), text: &row.content, lost_bytes: row.lost_bytes };
            Event::default().event("log").id(id.to_string()).json_data(line).ok()
        })
        .collect()
}

fn plain(entries: &[LogEntry]) -> String {
    let mut text = String::new();
    for LogEntry { row, .. } in entries {
        if row.lost_bytes > 0 {
            text.push_str(&format!("\n[{} bytes were lost here]\n", row.lost_bytes));
        }
        text.push_str(&row.content);
    }
    text
}

impl From<LogStream> for LogStreamInfo {
    fn from(stream: LogStream) -> Self {
        Self {
            id: stream.id,
            name: stream.name,
            machine: stream.machine,
            build: stream.build,
            bytes: stream.next_offset,
            created_at: stream.created_at.into(),
            closed_at: stream.closed_at.map(Timestamp),
        }
    }
}

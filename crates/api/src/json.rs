//! Shapes that every resource shares: instants and pages.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::ApiError;

/// Items on a page when the caller does not say.
const DEFAULT_LIMIT: u32 = 50;

/// Items on a page at most.
const MAX_LIMIT: u32 = 200;

/// An instant, written as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub DateTime<Utc>);

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Part of a list, newest first.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Send it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Cuts what was read with one item more than the page holds. `cursor` names the last item kept.
    pub fn cut<R>(mut rows: Vec<R>, limit: u32, cursor: impl Fn(&R) -> String, show: impl FnMut(R) -> T) -> Self {
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > keep;
        rows.truncate(keep);
        let next_cursor = if more { rows.last().map(cursor) } else { None };
        Self { items: rows.into_iter().map(show).collect(), next_cursor }
    }
}

/// Which page.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Items per page, 1 to 200; 50 by default.
    #[serde(default)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The number of items.
    ///
    /// # Errors
    /// When it is not between 1 and 200.
    pub fn limit(&self) -> Result<u32, ApiError> {
        limit(self.limit)
    }

    /// The id that the cursor stands for.
    ///
    /// # Errors
    /// When the cursor is not one of this list's.
    pub fn cursor<I: std::str::FromStr>(&self) -> Result<Option<I>, ApiError> {
        cursor(self.cursor.as_deref())
    }
}

/// Checks a `limit`.
pub(crate) fn limit(given: Option<u32>) -> Result<u32, ApiError> {
    match given.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(ApiError::Invalid {
            code: "invalid_query",
            detail: format!("`limit` is {other}; it must be between 1 and {MAX_LIMIT}"),
        }),
    }
}

/// Parses a `cursor`.
pub(crate) fn cursor<I: std::str::FromStr>(given: Option<&str>) -> Result<Option<I>, ApiError> {
    given.map(str::parse).transpose().map_err(|_| ApiError::Invalid {
        code: "invalid_query",
        detail: "`cursor` is not a `next_cursor` of this list; leave it out to start from the newest".to_owned(),
    })
}

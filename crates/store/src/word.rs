//! Words of the domain (states, sizes, roles) as columns of text: the same spelling as in JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Result, StoreError};

/// The column's text for a word.
pub(crate) fn text<T: Serialize>(word: T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        _ => unreachable!("only unit enums are stored as words"),
    }
}

/// Several words for `string_to_array(…, ',')`.
pub(crate) fn list<T: Serialize>(words: impl Iterator<Item = T>) -> String {
    words.map(text).collect::<Vec<_>>().join(",")
}

/// The word that a column of text holds.
pub(crate) fn parse<T: DeserializeOwned>(
    table: &'static str,
    id: impl ToString,
    column: &'static str,
    text: &str,
) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| StoreError::Corrupt {
        table,
        id: id.to_string(),
        column,
    })
}

/// The value of a structured column, which [`json`] reads back.
///
/// # Errors
/// [`StoreError::Corrupt`] for what has no form in JSON: it is not left out.
pub(crate) fn encode<T: Serialize>(
    table: &'static str,
    id: impl ToString,
    column: &'static str,
    value: &T,
) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|_| StoreError::Corrupt { table, id: id.to_string(), column })
}

/// What a structured column holds; `None` for null.
pub(crate) fn json<T: DeserializeOwned>(
    table: &'static str,
    id: impl ToString,
    column: &'static str,
    value: Option<serde_json::Value>,
) -> Result<Option<T>> {
    value.map(serde_json::from_value).transpose().map_err(|_| StoreError::Corrupt { table, id: id.to_string(), column })
}

//! What the API shows: reads across aggregates, each limited to a [`Scope`]. Nothing here is written, and no
//! reconciler decides on it.

mod environments;
mod runs;

pub use environments::{EnvironmentFilter, EnvironmentView, MachineView, RouteView, StatusCounts};
pub use runs::{BuildView, RunView};

use serde::de::DeserializeOwned;
use stagely_domain::id::TeamId;
use uuid::Uuid;

use crate::{Result, Scope, StoreError};

/// The first parameter of every statement here: the team, or null for the platform itself.
fn team(scope: &Scope) -> Option<Uuid> {
    scope.team_id().map(TeamId::uuid)
}

/// Reads a stored word (`building`, `amd64`) as the type whose serde name it is.
fn word<T: DeserializeOwned>(text: &str, table: &'static str, id: Uuid, column: &'static str) -> Result<T> {
    json(serde_json::Value::String(text.to_owned()), table, id, column)
}

/// Reads a stored document.
fn json<T: DeserializeOwned>(
    value: serde_json::Value,
    table: &'static str,
    id: Uuid,
    column: &'static str,
) -> Result<T> {
    serde_json::from_value(value).map_err(|_| StoreError::Corrupt { table, id: id.to_string(), column })
}

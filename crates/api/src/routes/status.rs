//! Who am I, and how much is there.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use stagely_domain::id::TeamId;
use stagely_domain::role::Role;

use crate::App;
use crate::auth::permission::Viewer;
use crate::error::Result;

/// The asker.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Whoami {
    /// The team acted for.
    pub team: TeamId,
    /// What the token may do there.
    pub role: Role,
    /// The token's id, as it stands in the audit log.
    pub token: String,
}

/// How much there is of everything of the team.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Status {
    /// The version of the API server.
    pub version: &'static str,
    /// Environments that are not gone, by state.
    pub environments: BTreeMap<String, i64>,
    /// Machines that are not gone, by state.
    pub machines: BTreeMap<String, i64>,
    /// Builds that are not over, by state.
    pub builds: BTreeMap<String, i64>,
    /// Deliveries that nobody has decided on yet.
    pub pending_deliveries: i64,
}

/// `GET /api/v1/whoami`
pub async fn whoami(Viewer(caller): Viewer) -> axum::Json<Whoami> {
    axum::Json(Whoami { team: caller.team(), role: caller.role(), token: caller.actor() })
}

/// `GET /api/v1/status`
pub async fn status(Viewer(caller): Viewer, State(app): State<App>) -> Result<axum::Json<Status>> {
    let counts = app.store.status_counts(caller.scope()).await?;
    Ok(axum::Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        environments: counts.environments,
        machines: counts.machines,
        builds: counts.builds,
        pending_deliveries: counts.pending_deliveries,
    }))
}

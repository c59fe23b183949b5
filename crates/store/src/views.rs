//! What the API shows: reads across aggregates, each limited to a [`Scope`]. Nothing here is written, and no
//! reconciler decides on it.

mod environments;
mod runs;

pub use environments::{EnvironmentFilter, EnvironmentView, MachineView, RouteView, StatusCounts};
pub use runs::{BuildView, RunView};

use stagely_domain::id::TeamId;
use uuid::Uuid;

use crate::Scope;

/// The first parameter of every statement of a view: the team, or null for the platform itself.
pub(crate) fn team(scope: &Scope) -> Option<Uuid> {
    scope.team_id().map(TeamId::uuid)
}

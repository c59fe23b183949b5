//! What the API shows: reads across aggregates, each limited to a [`Scope`]. Nothing here is written, and no
//! reconciler decides on it.

mod environments;
mod runs;

pub use environments::{EnvironmentFilter, EnvironmentView, MachineView, RouteView, StatusCounts};
pub use runs::{BuildView, RunView};

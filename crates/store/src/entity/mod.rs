//! The tables that are read row by row, as sea-orm sees them. Private to this crate: repositories turn rows into domain
//! types.

pub mod api_tokens;
pub mod build_jobs;
pub mod cloud_providers;
pub mod environments;
pub mod images;
pub mod installation;
pub mod machines;
pub mod pr_posts;
pub mod projects;
pub mod routes;
pub mod teams;
pub mod workflow_runs;

//! One entity per table, as sea-orm sees it. Private to this crate: repositories turn rows into domain types.

pub mod agent_connections;
pub mod api_tokens;
pub mod audit_logs;
pub mod build_jobs;
pub mod build_logs;
pub mod certificates;
pub mod cloud_providers;
pub mod cost_entries;
pub mod environments;
pub mod inbox;
pub mod installation;
pub mod log_streams;
pub mod machines;
pub mod pr_posts;
pub mod projects;
pub mod routes;
pub mod secrets;
pub mod sessions;
pub mod team_members;
pub mod teams;
pub mod users;
pub mod workflow_runs;

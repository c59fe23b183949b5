//! The API over real HTTP, on a real Postgres, with a stateful orchestrator behind real gRPC.
#![allow(clippy::unwrap_used)]

mod accounts;
mod agents;
mod docs;
mod guards;
mod logs;
mod registry;
mod resources;
mod support;
mod webhooks;

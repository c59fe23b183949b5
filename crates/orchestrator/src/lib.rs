//! The orchestrator: runs, environments, machines, routes and pull-request posts, and their reconcilers. It alone
//! holds cloud and git host credentials, and it alone makes and removes machines. Commands come by gRPC and only
//! change a wish; everything that happens is a reconciler's doing.

mod access;
mod clouds;
mod config;
mod context;
mod failures;
mod feeds;
mod grpc;
mod images;
mod pulls;
mod reconcile;
mod service;
mod surface;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::Config;
pub use service::Orchestrator;

//! The orchestrator's own reconcilers on a real Postgres and a real Redis, with the world around them made up: a cloud
//! in memory, a git host on loopback, a hub that plays the agents, and an edge that looks only at Redis. Nothing here
//! waits for back-offs or lost leases: the world brings what is put off forward.
#![allow(clippy::unwrap_used)]

mod clouds;
mod commands;
mod comments;
mod costs;
mod credentials;
#[path = "../../cloud/tests/double.rs"]
mod double;
mod edge;
mod enrolment;
mod faults;
mod gate;
mod git_host;
mod hub;
mod images;
mod outside;
mod places;
mod process;
mod refusals;
mod restored;
mod scale;
mod scan;
mod stack;
mod stories;
mod world;

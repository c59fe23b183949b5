//! The scheduler against a real Postgres, between an orchestrator and a hub that remember what they were told.
#![allow(clippy::unwrap_used)]

mod faults;
mod fleet;
mod gate;
mod process;
mod registry;
mod stack;

//! The agent as the hub and the machine see it: a small hub of our own on one side, recording programs in the
//! place of Docker and git on the other.
#![allow(clippy::unwrap_used, clippy::large_enum_variant, clippy::new_without_default, dead_code)]

mod connection;
mod docker;
mod fake_engine;
mod fake_hub;
mod ingress;
mod rig;
mod work;

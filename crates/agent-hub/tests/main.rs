//! The hub as an agent and the other services see it, against a real Postgres.
#![allow(clippy::unwrap_used, clippy::large_enum_variant)]

mod connections;
mod enrolment;
mod first_boot;
mod logs;
mod stack;
mod wishes;

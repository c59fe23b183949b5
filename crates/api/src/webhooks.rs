//! Intake of what git hosts send.

pub mod github;

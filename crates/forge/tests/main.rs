//! The forge against a git host that checks every request, and every answer, with GitHub's own document.
#![allow(clippy::unwrap_used)]

mod access;
mod client;
mod faults;
mod support;
mod webhooks;

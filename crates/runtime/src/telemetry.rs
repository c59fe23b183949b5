//! Logs: pretty in development, JSON in production.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Environment, Settings};

/// Starts logging to standard error. A second call in one process is ignored.
pub fn start(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.common.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error only says that a subscriber is there already (tests, `stagelyd up`).
    let _ = match settings.common.environment {
        Environment::Development => builder.with_target(false).try_init(),
        Environment::Production => builder.json().flatten_event(true).try_init(),
    };
}

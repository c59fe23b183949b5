//! The real registry program with our configuration.
#![allow(clippy::unwrap_used)]

mod architecture;
mod registry;
mod settings;

//! The contract of the providers.
#![allow(clippy::unwrap_used)]

mod fake;
mod fault_proxy;
mod hetzner;
mod qemu;
mod sim;

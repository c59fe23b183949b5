//! The contract of the providers.
#![allow(clippy::unwrap_used)]

mod aws;
mod cases;
mod digitalocean;
mod double;
mod ear;
mod fake;
mod fault_proxy;
mod hetzner;
mod judges;
mod pace;
mod qemu;
mod sim;
mod victim;

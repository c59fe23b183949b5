//! The edge as visitors see it: a real Redis with routes, and a machine's ingress of our own behind it.
#![allow(clippy::unwrap_used)]

mod pages;
mod proxy;
mod rig;
mod upgrade;

//! The edge as visitors see it.
#![allow(clippy::unwrap_used)]

mod edge;

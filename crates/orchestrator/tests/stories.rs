//! What a pull request goes through.

mod builds;
mod capacity;
mod failures;
mod lifecycle;
mod replacement;
mod sweep;

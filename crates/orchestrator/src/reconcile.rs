//! The reconcilers, one for each kind of resource that this service owns.

pub mod environment;
pub mod image;
pub mod inbox;
pub mod ledger;
pub mod machine;
pub mod post;
mod refusal;
pub mod route;
#[cfg(test)]
mod simulation;
pub mod sweep;

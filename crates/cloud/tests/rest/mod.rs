//! The tests that are the same at each provider with a REST API and a double of our own. Each provider's tests mount
//! this directory, with a rig that says what differs.

pub mod access;
pub mod allowance;
mod baking;
mod creating;
mod interrupted;
mod listing;
pub mod lost;
mod residue;
mod rig;
pub mod sleeping;

use stagely_cloud::ErrorKind;

use super::{ONE_AWAKE, Rig, config, connect, double, provider, published};

/// A kind that says only that the other side is not well, or busy.
pub fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol | ErrorKind::Conflict)
}

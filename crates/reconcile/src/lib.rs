//! The loop behind every promise: claim a resource, reconcile it, say when to look again.
//!
//! An event only *wakes* a resource; the reconciler takes no input but the key, reads the rows and brings the
//! world one step closer to them. A claim is a lease with a fencing epoch: whoever lost it can still think but
//! no longer write. Storage is behind [`WorkStore`] (Postgres in `store`, memory in [`testing`]).

mod claim;
mod step_error;
mod worker;

#[cfg(feature = "testing")]
pub mod testing;

pub use claim::{Claim, Fence, Next, WorkError, WorkStore};
pub use step_error::{ErrorClass, StepError};
pub use worker::{Options, Reconciler, Step, Worker};

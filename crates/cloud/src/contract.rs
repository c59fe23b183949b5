//! What every provider must do, whoever wrote it: numbered cases that tests run against doubles, and people against their
//! own accounts (`stagely cloud conformance`). Only what can be asked of a real account is here; what needs faults in
//! between is with each provider's own tests, and a table there says for each number who holds it.
//!
//! A case begins with an installation id that nothing has, and whoever runs it clears up after it, however it ended.

mod case;
mod catalogue;
mod creating;
mod deleting;
#[cfg(any(test, feature = "testing"))]
mod drill;
mod failure;
#[cfg(any(test, feature = "testing"))]
mod golden;
mod image;
mod listing;
mod purse;
mod refusing;
mod request;
mod sleeping;
mod trial;

pub use case::{CASES, Case};
#[cfg(any(test, feature = "testing"))]
pub use drill::{delete, keeps, offered, put_to_sleep};
pub use failure::Failure;
#[cfg(any(test, feature = "testing"))]
pub use golden::{baking, captured, dropped, golden_images};
pub use purse::Purse;
pub use request::request;
pub use trial::{Patience, Trial};

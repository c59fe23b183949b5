//! What people and reconcilers may wish of environments, machines and images.

use serde::{Deserialize, Serialize};

/// Whether a thing is to exist. For environments and machines it goes only from present to absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is to exist.
    Present,
    /// It is to be removed.
    Absent,
}

/// Whether a thing is to run or to be hibernated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Running.
    Awake,
    /// Hibernated.
    Asleep,
}

//! What a cloud sells: one type of machine in one place.

use serde::{Deserialize, Serialize};

use crate::machine::Arch;

/// One type of machine in one place, as the provider tells it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offering {
    /// The provider's name of the type: `cx23`, `t3.small`, `s-2vcpu-4gb`.
    pub name: String,
    /// The provider's name of the place: `nbg1`, `eu-central-1a`, `fra1`.
    pub location: String,
    /// Its processor.
    pub arch: Arch,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// What it costs, when the provider says.
    pub price: Option<Price>,
    /// Whether the provider says that there is room. One that is said to be full is asked last, not never.
    pub available: bool,
}

impl std::fmt::Display for Offering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.name, self.location)
    }
}

/// What had no room, among all that was tried for a machine. Golden images are there, too, as `image img_…`: no place lacked
/// room for those.
#[must_use]
pub fn full(tried: &[String]) -> Vec<&str> {
    tried.iter().map(String::as_str).filter(|tried| !tried.starts_with("image ")).collect()
}

/// Where a machine was made and what had no room for it before, in words; none when neither is known.
#[must_use]
pub fn story(made: Option<&Offering>, tried: &[String]) -> Option<String> {
    let full = full(tried).join(", ");
    match (made, full.as_str()) {
        (None, "") => None,
        (Some(made), "") => Some(made.to_string()),
        (Some(made), _) => Some(format!("{made} (no room: {full})")),
        (None, _) => Some(format!("no room: {full}")),
    }
}

/// A price per hour of existence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Price {
    /// Millionths of the currency's unit per hour, net.
    pub micros_per_hour: u64,
    /// ISO 4217.
    pub currency: String,
}

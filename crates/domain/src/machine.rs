//! Machines: what is asked for, and the states one goes through.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::IllegalTransition;

/// A processor architecture, named as Docker and Debian name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[default]
    Amd64,
    /// AArch64.
    Arm64,
}

/// A size class. Providers map it to their own types by the guarantee below.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// At least 1 vCPU and 2 GB.
    Small,
    /// At least 2 vCPU and 4 GB.
    #[default]
    Medium,
    /// At least 4 vCPU and 8 GB.
    Large,
}

impl Size {
    /// The least number of virtual processors.
    #[must_use]
    pub const fn min_vcpus(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Medium => 2,
            Self::Large => 4,
        }
    }

    /// The least memory in MiB.
    #[must_use]
    pub const fn min_memory_mib(self) -> u64 {
        match self {
            Self::Small => 2048,
            Self::Medium => 4096,
            Self::Large => 8192,
        }
    }
}

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MachineRole")]
pub enum Role {
    /// Runs a preview environment.
    Preview,
    /// Builds images.
    Builder,
}

/// Where machines can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// AWS EC2.
    Aws,
    /// DigitalOcean Droplets.
    Digitalocean,
    /// Hetzner Cloud.
    Hetzner,
    /// QEMU/KVM on the user's own metal.
    Qemu,
}

/// Where a machine stands, as far as the control plane knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MachineState")]
pub enum State {
    /// The row is committed; the provider has not been called.
    Intended,
    /// The provider may have been called.
    Creating,
    /// The provider has given an id.
    Booting,
    /// The agent has enrolled.
    Enrolled,
    /// Its memory is on disk; it runs nothing.
    Hibernated,
    /// It is being removed.
    Deleting,
    /// The provider says that it is gone. Final.
    Gone,
}

/// What can happen to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The create call is about to be made.
    CreateSent,
    /// The provider answered with an id, or a look found one.
    Placed,
    /// The agent proved who it is.
    AgentEnrolled,
    /// The provider confirmed hibernation.
    Hibernated,
    /// The provider confirmed wake-up.
    Woken,
    /// Nobody wants it any more.
    DropRequested,
    /// The provider shows that it does not exist.
    SeenGone,
}

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 7] =
        [Self::Intended, Self::Creating, Self::Booting, Self::Enrolled, Self::Hibernated, Self::Deleting, Self::Gone];

    /// The state after `event`. Events that repeat what is known leave the state as it is.
    ///
    /// # Errors
    /// [`IllegalTransition`] when `event` cannot happen here. Nothing leaves [`State::Gone`].
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        use State::{Booting, Creating, Deleting, Enrolled, Gone, Hibernated, Intended};
        Ok(match (self, event) {
            (Intended | Creating, Event::CreateSent) => Creating,
            (Creating | Booting, Event::Placed) => Booting,
            (Booting | Enrolled, Event::AgentEnrolled) => Enrolled,
            (Enrolled | Hibernated, Event::Hibernated) => Hibernated,
            (Hibernated | Enrolled, Event::Woken) => Enrolled,
            (Intended | Creating | Booting | Enrolled | Hibernated | Deleting, Event::DropRequested) => Deleting,
            // A row that never was `creating` has nothing at the provider; others must pass `deleting`,
            // or were seen to have died on their own.
            (_, Event::SeenGone) if self != Creating => Gone,
            _ => return Err(IllegalTransition::new("machine", self, event)),
        })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        })
    }
}

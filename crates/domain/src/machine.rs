//! Machines: what is asked for, and the states one goes through.

use std::fmt;

use serde::{Deserialize, Serialize};

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

impl Arch {
    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
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
    /// Providers' names for machines of about a size, which a configuration may say instead of it. They mean the size and its
    /// guarantee, at whichever provider; Hetzner sells `cx11`, `cx21` and `cx31` no more, and `t3.large` has two of the four
    /// processors. The types in use are those of the provider's catalogue.
    pub const ALIASES: [(&'static str, Self); 9] = [
        ("t3.small", Self::Small),
        ("s-1vcpu-2gb", Self::Small),
        ("cx11", Self::Small),
        ("t3.medium", Self::Medium),
        ("s-2vcpu-4gb", Self::Medium),
        ("cx21", Self::Medium),
        ("t3.large", Self::Large),
        ("s-4vcpu-8gb", Self::Large),
        ("cx31", Self::Large),
    ];

    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

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
    /// Installs what every machine needs and stops, so that an image can be made of it. Its agent never runs.
    Bake,
}

impl Role {
    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::Builder => "builder",
            Self::Bake => "bake",
        }
    }
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

impl Provider {
    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Digitalocean => "digitalocean",
            Self::Hetzner => "hetzner",
            Self::Qemu => "qemu",
        }
    }
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

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 7] =
        [Self::Intended, Self::Creating, Self::Booting, Self::Enrolled, Self::Hibernated, Self::Deleting, Self::Gone];

    /// The word for it, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Creating => "creating",
            Self::Booting => "booting",
            Self::Enrolled => "enrolled",
            Self::Hibernated => "hibernated",
            Self::Deleting => "deleting",
            Self::Gone => "gone",
        }
    }

    /// Whether a row in this state may be put into `to`. What was ever [`State::Creating`] may exist at the provider, so it
    /// passes [`State::Deleting`] before it is gone; nothing leaves [`State::Gone`].
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Intended => matches!(to, Self::Creating | Self::Gone),
            Self::Creating => matches!(to, Self::Creating | Self::Booting | Self::Deleting),
            Self::Booting => matches!(to, Self::Enrolled | Self::Deleting),
            Self::Enrolled => matches!(to, Self::Hibernated | Self::Deleting),
            Self::Hibernated => matches!(to, Self::Enrolled | Self::Deleting),
            Self::Deleting => matches!(to, Self::Gone),
            Self::Gone => false,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arch, Provider, Role, Size, State};

    #[test]
    fn words_are_as_serde_writes_them() {
        let json = |value: serde_json::Result<serde_json::Value>| value.unwrap();
        for arch in [Arch::Amd64, Arch::Arm64] {
            assert_eq!(json(serde_json::to_value(arch)), arch.as_str());
        }
        for size in [Size::Small, Size::Medium, Size::Large] {
            assert_eq!(json(serde_json::to_value(size)), size.as_str());
        }
        for role in [Role::Preview, Role::Builder, Role::Bake] {
            assert_eq!(json(serde_json::to_value(role)), role.as_str());
        }
        for provider in [Provider::Aws, Provider::Digitalocean, Provider::Hetzner, Provider::Qemu] {
            assert_eq!(json(serde_json::to_value(provider)), provider.as_str());
        }
        for state in State::ALL {
            assert_eq!(json(serde_json::to_value(state)), state.as_str());
        }
    }

    /// Every pair; a row for each state, a column for each in the order of [`State::ALL`].
    #[test]
    fn the_table_of_every_pair_of_states() {
        let table = [
            "intended   no yes no  no  no  no  yes",
            "creating   no yes yes no  no  yes no",
            "booting    no no  no  yes no  yes no",
            "enrolled   no no  no  no  yes yes no",
            "hibernated no no  no  yes no  yes no",
            "deleting   no no  no  no  no  no  yes",
            "gone       no no  no  no  no  no  no",
        ];
        for (from, row) in State::ALL.into_iter().zip(table) {
            for (to, word) in State::ALL.into_iter().zip(row.split_whitespace().skip(1)) {
                assert_eq!(from.may_become(to), word == "yes", "{from:?} to {to:?}");
            }
        }
    }
}

//! What a member of a team, or a token that acts for one, may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A role. Roles are ordered: each may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything of the team but secrets.
    Viewer,
    /// Runs, stops and keeps environments.
    Member,
    /// Changes projects, cloud accounts and secrets.
    Admin,
    /// Changes members and the team itself.
    Owner,
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role: expected owner, admin, member or viewer")]
pub struct UnknownRole;

impl Role {
    /// Every role, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    /// The role as it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Whether this role may do what asks for `needed`.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn every_role_allows_itself_and_the_lesser_ones_only() {
        for (i, have) in Role::ALL.into_iter().enumerate() {
            for (j, need) in Role::ALL.into_iter().enumerate() {
                assert_eq!(have.allows(need), i >= j, "{have} asked for {need}");
            }
            assert_eq!(have.as_str().parse(), Ok(have));
        }
        assert!("root".parse::<Role>().is_err() && "".parse::<Role>().is_err());
    }
}

//! On whose behalf a query runs.

use stagely_domain::id::TeamId;
use uuid::Uuid;

/// The right to read or change the rows of one team, or of all for the platform's own work. It cannot be
/// made outside this crate except through [`Scope::system`], which is easy to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    Team(TeamId),
    System(&'static str),
}

impl Scope {
    /// Minted from a membership or token row, after the check.
    pub(crate) const fn team(team: TeamId) -> Self {
        Self { reach: Reach::Team(team) }
    }

    /// Every team's rows, for reconcilers and sweeps; `reason` says whose work it is.
    #[must_use]
    pub const fn system(reason: &'static str) -> Self {
        Self { reach: Reach::System(reason) }
    }

    /// The team, or `None` for the platform itself.
    #[must_use]
    pub const fn team_id(&self) -> Option<TeamId> {
        match self.reach {
            Reach::Team(team) => Some(team),
            Reach::System(_) => None,
        }
    }

    /// The team as a value of a statement: null for the platform itself, whose statements are not limited to a team.
    pub(crate) fn team_uuid(&self) -> Option<Uuid> {
        self.team_id().map(TeamId::uuid)
    }

    /// Whether a row of `team` may be seen.
    #[must_use]
    pub fn covers(&self, team: TeamId) -> bool {
        match self.reach {
            Reach::Team(own) => own == team,
            Reach::System(_) => true,
        }
    }
}

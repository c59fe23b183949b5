//! What a provider shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};

/// The provider's own id of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProviderId(pub String);

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A machine as the provider shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// The provider's id.
    pub id: ProviderId,
    /// Our id, from its tags.
    pub machine: MachineId,
    /// Our installation, from its tags.
    pub installation: InstallationId,
    /// The environment, from its tags.
    pub environment: Option<EnvironmentId>,
    /// Where it stands.
    pub state: VmState,
    /// `ip:port` of the agent's ingress, once it has one.
    pub address: Option<String>,
    /// The end that its tag says, for whoever clears up an account whose control plane is gone.
    pub expires_at: DateTime<Utc>,
    /// When it was created, where the provider says.
    pub created_at: Option<DateTime<Utc>>,
    /// A person has said at the provider that it must stay.
    pub hold: bool,
}

/// Where a machine stands at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmState {
    /// Being made.
    Pending,
    /// Running.
    Running,
    /// Its memory is on disk.
    Hibernated,
    /// It stopped by itself; what is left of it can be deleted.
    Stopped,
    /// Being deleted.
    Deleting,
    /// Something newer than this program.
    Other(String),
}

/// The answer to a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The provider's id.
    pub id: ProviderId,
    /// `ip:port` of the agent's ingress, if it is known already.
    pub address: Option<String>,
}

/// How far falling asleep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepProgress {
    /// Under way; ask again.
    InProgress,
    /// It costs nothing but its disk any more.
    Asleep,
}

/// How far a delete is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteProgress {
    /// Accepted; ask again.
    InProgress,
    /// A person has said at the provider that it must stay: nothing was deleted.
    Held,
    /// It does not exist.
    Gone,
}

/// How many machines each installation has, of what was found of them: a machine may be seen twice.
pub(crate) fn count<T: Ord>(found: impl IntoIterator<Item = (InstallationId, T)>) -> BTreeMap<InstallationId, usize> {
    let mut machines = BTreeMap::<InstallationId, BTreeSet<T>>::new();
    for (installation, machine) in found {
        machines.entry(installation).or_default().insert(machine);
    }
    machines.into_iter().map(|(installation, machines)| (installation, machines.len())).collect()
}

/// A list and whether it is whole. Nothing may be concluded from what a partial list lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The machines.
    pub vms: Vec<Vm>,
    /// Whether every page was read.
    pub complete: bool,
}

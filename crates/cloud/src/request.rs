//! What is asked of a provider.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use crate::catalogue::Offering;

/// What a provider can do beside creating and deleting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It can sleep.
    pub hibernate: bool,
    /// A machine that powers itself off stops costing and is gone.
    pub power_off_deletes: bool,
    /// Architectures it has.
    pub arches: &'static [Arch],
    /// Largest user data in bytes.
    pub user_data_max: usize,
}

/// A machine to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The idempotency token, name and tag.
    pub machine: MachineId,
    /// Whose installation it is; a tag.
    pub installation: InstallationId,
    /// For which environment; a tag.
    pub environment: Option<EnvironmentId>,
    /// What for; a tag.
    pub role: Role,
    /// How big.
    pub size: Size,
    /// On which processor.
    pub arch: Arch,
    /// Which type in which place, chosen from the catalogue; none where the catalogue is empty.
    pub offering: Option<Offering>,
    /// How often other offerings were tried for this machine: part of the idempotency token where one token stands for
    /// one type and place.
    pub attempt: u32,
    /// Its hard end; a tag.
    pub expires_at: DateTime<Utc>,
    /// Where the agent's program is.
    pub agent: AgentDownload,
    /// What the agent is told.
    pub config: AgentConfig,
}

/// The agent's program, as a machine gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDownload {
    /// Where to download it.
    pub url: String,
    /// What it must hash to, in hexadecimal.
    pub sha256: String,
}

/// `/etc/stagely/agent.json`: all that a machine knows at first.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `https://host:port` of the hub, as machines reach it.
    pub hub_url: String,
    /// Who it is.
    pub machine: MachineId,
    /// Good for one enrolment.
    pub enrolment_token: Secret,
    /// The internal CA.
    pub ca_pem: String,
    /// What for.
    pub role: Role,
    /// Where its ingress listens.
    pub ingress_port: u16,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
pub(crate) struct AgentConfigFile<'c> {
    hub_url: &'c str,
    machine_id: MachineId,
    enrolment_token: &'c str,
    ca_pem: &'c str,
    role: Role,
    ingress_port: u16,
}

impl AgentConfig {
    pub(crate) fn file(&self) -> AgentConfigFile<'_> {
        AgentConfigFile {
            hub_url: &self.hub_url,
            machine_id: self.machine,
            enrolment_token: self.enrolment_token.reveal(),
            ca_pem: &self.ca_pem,
            role: self.role,
            ingress_port: self.ingress_port,
        }
    }
}

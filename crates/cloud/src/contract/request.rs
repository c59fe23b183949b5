//! The machines that the cases ask for: they boot, run nothing, and turn themselves off after ten minutes.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::clock::Clock;
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use crate::{AgentConfig, AgentDownload, CreateRequest};

/// What stands for a secret in every request: no error and no text about a request may show it.
pub(super) const TOKEN: &str = "contract-token";

/// A request for a small machine of `installation` that installs nothing.
#[must_use]
pub fn request(installation: InstallationId, clock: &dyn Clock) -> CreateRequest {
    let machine = MachineId::generate();
    CreateRequest {
        machine,
        installation,
        environment: Some(EnvironmentId::generate()),
        role: Role::Preview,
        size: Size::Small,
        arch: Arch::Amd64,
        offering: None,
        attempt: 0,
        image: None,
        bake: None,
        expires_at: DateTime::<Utc>::from_timestamp(clock.now().timestamp(), 0).unwrap_or_default()
            + TimeDelta::hours(1),
        agent: AgentDownload::nothing(),
        config: AgentConfig {
            hub_url: "https://10.0.2.2:1".to_owned(),
            machine,
            enrolment_token: Secret::new(TOKEN),
            ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
            role: Role::Preview,
            ingress_port: 7443,
        },
    }
}

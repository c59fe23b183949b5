//! What is asked of a provider.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stagely_domain::id::{EnvironmentId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use crate::ProviderId;
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
    /// It can make an image of a machine.
    pub bake: bool,
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
    /// The environment that it runs, `None` for builders and for machines that an image is made of; a tag.
    pub environment: Option<EnvironmentId>,
    /// What it is used for; a tag.
    pub role: Role,
    /// The size class asked for; `offering` is what is bought.
    pub size: Size,
    /// The processor architecture asked for.
    pub arch: Arch,
    /// The type and place to buy, chosen from the catalogue; `None` where the catalogue is empty.
    pub offering: Option<Offering>,
    /// How often other offerings were tried for this machine: part of the idempotency token where one token stands for
    /// one type and place.
    pub attempt: u32,
    /// The provider's name of the image to boot; `None` for the one of the account's settings.
    pub image: Option<String>,
    /// What is to be on its disk when it stops, for a machine that an image is made of.
    pub bake: Option<Bake>,
    /// The end that its tag at the provider says, for whoever clears up an account whose control plane is gone. A
    /// running control plane does not go by it.
    pub expires_at: DateTime<Utc>,
    /// The agent's program, and where it is.
    pub agent: AgentDownload,
    /// What the agent is told, as a file of its own.
    pub config: AgentConfig,
}

/// What a machine puts on its disk beside Docker and the agent's program before it stops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bake {
    /// Container images to pull, as Docker names them.
    pub base_images: Vec<String>,
}

/// An image to make of a machine. A machine is good for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRequest {
    /// The image's id, its name and tag at the provider: whoever asks again finds the image that was made before.
    pub image: ImageId,
    /// Whose installation it is; a tag.
    pub installation: InstallationId,
    /// The machine, which was made to [`Bake`].
    pub machine: ProviderId,
}

/// How far an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureProgress {
    /// The machine still works, or the image is being made: ask again.
    InProgress,
    /// Machines can boot it.
    Ready(Image),
}

/// An image that machines can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The provider's name of it, for [`CreateRequest::image`].
    pub reference: String,
    /// Where machines can boot it, in the words of [`Offering::location`] (a region stands for its zones); everywhere
    /// when it is empty.
    pub locations: Vec<String>,
}

/// The agent's program, as a machine gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDownload {
    /// Where machines download it.
    pub url: String,
    /// What it must hash to, in hexadecimal.
    pub sha256: String,
}

impl AgentDownload {
    /// No agent, and nothing else either: the machine boots, waits, and turns itself off at its deadline.
    #[must_use]
    pub fn nothing() -> Self {
        Self { url: String::new(), sha256: String::new() }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.url.is_empty()
    }
}

/// `/etc/stagely/agent.json`: all that a machine knows at first.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `https://host:port` of the hub, as machines reach it.
    pub hub_url: String,
    /// The machine that the agent speaks for.
    pub machine: MachineId,
    /// The secret that it enrols with, once.
    pub enrolment_token: Secret,
    /// The certificate of the internal CA, in PEM: the hub's is signed by it.
    pub ca_pem: String,
    /// What the machine is used for.
    pub role: Role,
    /// The TCP port that its ingress listens on.
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

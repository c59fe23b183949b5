//! Machines at AWS EC2. [`Aws`] is one set of credentials (or the role that it may take on) in one region; [`Regions`] is
//! several of them as one account.
//!
//! A create carries a `ClientToken`, so that the same request is the same instance, and the tags that say what the
//! instance is. What was just made is not shown at once by every call there: a machine that this process has placed is
//! believed for some minutes although no list shows it, and one that is not found is believed gone only after a second
//! look. The crate `aws-sdk-ec2` writes requests and reads answers; retries are the orchestrator's, but for the one with
//! fresh keys when those of a role were refused. Parameters of SSM and prices are read by signed requests of our own, since
//! their SDKs are minutes of work for the compiler and serve one call each.

mod access;
mod actions;
mod bake;
mod budget;
mod client;
mod create;
mod image;
mod json;
mod machine;
mod memory;
mod network;
mod offerings;
mod order;
mod parameters;
mod prices;
mod refusal;
mod regions;
mod residue;
mod session;
mod sleep;
mod tags;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};
use stagely_domain::secret::Secret;

use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Catalogue, Cloud, CreateRequest, Created, DeleteProgress, Listing,
    Offering, ProviderId, Residue, Residues, Result, SleepProgress, Vm,
};
use client::Client;
use image::Images;
use memory::Memory;
use network::{Groups, Subnets};
use prices::Prices;

pub use actions::permissions;
pub use budget::Limits;
pub use regions::Regions;

/// The image of new machines: a public parameter of SSM that names Debian's newest. `{arch}` is `amd64` or `arm64`,
/// `{machine}` is `x86_64` or `arm64`. Others that exist:
///
/// - `/aws/service/debian/release/12/latest/{arch}`
/// - `/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id`
/// - `/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{machine}`
///
/// Instead of a parameter: `ami-…`, or `tag:key=value` for the newest image of one's own that carries it.
pub const IMAGE: &str = "/aws/service/debian/release/13/latest/{arch}";
/// The least size of a machine's disk.
pub const DISK_GIB: u32 = 40;

const USER_DATA_MAX: usize = 16 * 1024;

/// One account in one region, and how machines are made there.
#[derive(Debug, Clone)]
pub struct Config {
    /// `eu-central-1`.
    pub region: String,
    /// Instead of the region's own addresses of EC2, STS and SSM, and that of the price list: `http://127.0.0.1:5000`.
    /// Tests and proxies use it.
    pub endpoint: Option<String>,
    /// Who asks.
    pub keys: Keys,
    /// What the asker takes on first: a role in the account in which machines are made.
    pub role: Option<Role>,
    /// Availability zones in which machines may be, or the region; all when it is empty.
    pub locations: Vec<String>,
    /// Subnets to use, at most one for each zone; the default VPC's when it is empty. They give public addresses. Those of
    /// other regions count for nothing here.
    pub subnets: Vec<String>,
    /// [`IMAGE`], which says what else it may be.
    pub image: String,
    /// Size of a machine's disk, at least [`DISK_GIB`].
    pub disk_gib: u32,
    /// The edge, as CIDRs: whoever else asks a machine gets no answer.
    pub ingress_from: Vec<String>,
    /// How long things may take.
    pub timing: Timing,
    /// How many requests may be sent.
    pub limits: Limits,
}

/// An access key.
#[derive(Debug, Clone)]
pub struct Keys {
    /// `AKIA…`.
    pub access_key_id: String,
    /// What signs requests.
    pub secret_access_key: Secret,
    /// With temporary keys.
    pub session_token: Option<Secret>,
}

/// A role to take on.
#[derive(Debug, Clone)]
pub struct Role {
    /// `arn:aws:iam::…:role/…`.
    pub arn: String,
    /// What the role's trust policy wants to hear.
    pub external_id: Option<Secret>,
}

/// How long a call may wait.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one request with its answer.
    pub request: Duration,
    /// For something that the provider does after it has answered, such as to give an address.
    pub action: Duration,
    /// Between two looks at it.
    pub poll: Duration,
    /// Between two looks that both find nothing, until an instance is believed gone.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            action: Duration::from_secs(20),
            poll: Duration::from_secs(1),
            settle: Duration::from_secs(60),
        }
    }
}

/// The provider.
pub struct Aws {
    config: Config,
    client: Client,
    images: Images,
    subnets: Subnets,
    groups: Groups,
    memory: Memory,
    prices: Prices,
}

impl Aws {
    /// A provider with these keys. Asks nobody yet.
    ///
    /// # Errors
    /// When the endpoint would have credentials or user data sent unencrypted, or the disk is too small.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::new(&config, clock)?;
        Ok(Self {
            memory: Memory::new(config.timing.settle),
            config,
            client,
            images: Images::default(),
            subnets: Subnets::default(),
            groups: Groups::default(),
            prices: Prices::default(),
        })
    }
}

#[async_trait]
impl Cloud for Aws {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: true,
            arches: &[Arch::Amd64, Arch::Arm64],
            bake: true,
            user_data_max: USER_DATA_MAX,
        }
    }

    async fn check_access(&self) -> Result<()> {
        self.client.with_fresh_keys(|| self.check()).await?;
        network::all_found(&self.missing_subnets().await?)
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        self.client.with_fresh_keys(|| self.offerings()).await
    }

    async fn readable_catalogue(&self) -> Result<Catalogue> {
        let offerings = self.catalogue().await?;
        // Known ones are used while they cannot be read.
        let lacks_prices = offerings.iter().any(|one| one.price.is_none()) && self.prices.lack().await;
        Ok(Catalogue { offerings, lacks_prices, ..Catalogue::default() })
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        let image = request.image.as_deref().map(|image| self.here(image).map(str::to_owned)).transpose()?;
        let request = CreateRequest { image, ..request.clone() };
        self.client.with_fresh_keys(|| self.place(&request)).await
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.client.with_fresh_keys(|| self.find_machine(machine)).await
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        self.client.with_fresh_keys(|| self.list_machines(installation)).await
    }

    async fn installations(&self) -> Result<BTreeMap<InstallationId, usize>> {
        self.client.with_fresh_keys(|| self.count_installations()).await
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        let id = self.here(&id.0)?;
        self.client.with_fresh_keys(|| self.remove(id)).await
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        let id = self.here(&id.0)?;
        self.client.with_fresh_keys(|| self.fall_asleep(id)).await
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        let id = self.here(&id.0)?;
        self.client.with_fresh_keys(|| self.rise(id)).await
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        let machine = ProviderId(self.here(&request.machine.0)?.to_owned());
        let request = CaptureRequest { machine, ..request.clone() };
        self.client.with_fresh_keys(|| self.image_of(&request)).await
    }

    async fn protect(&self, installation: InstallationId, port: u16) -> Result<()> {
        self.client.with_fresh_keys(|| self.correct_groups(installation, port)).await
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        self.client.with_fresh_keys(|| self.residue_of(installation)).await
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        let id = self.here(&residue.id)?.to_owned();
        let residue = Residue { id, ..residue.clone() };
        self.client.with_fresh_keys(|| self.remove_residue(&residue)).await
    }

    async fn console_tail(&self, id: &ProviderId) -> Result<Option<String>> {
        let id = self.here(&id.0)?;
        self.client.with_fresh_keys(|| self.console(id)).await
    }
}

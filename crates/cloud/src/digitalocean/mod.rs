//! Machines at DigitalOcean. One token is one team there.
//!
//! Neither names nor anything else is unique, so a machine is known by its tags, given with the create; whoever makes one
//! looks for its tag first, and twins that a lost answer makes all the same are shown as two. The provider id is the
//! machine's id and the number of its first droplet: it stays the same through sleep, in which the droplet goes
//! and a snapshot stays. Answers are read with models of our own, which outlive a field that the provider drops.

mod access;
mod bake;
mod create;
mod firewall;
mod http;
mod machine;
mod offerings;
mod pages;
mod refusal;
mod residue;
mod sleep;
mod tags;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use crate::rest::Operation;
use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Cloud, CloudError, CreateRequest, Created, DeleteProgress,
    ErrorKind, Listing, Offering, ProviderId, Residue, ResidueKind, Residues, Result, SleepProgress, Vm, user_data,
};
use create::Order;
use firewall::Firewalls;
use http::Http;
use machine::Meant;
use tags::Tags;

/// DigitalOcean itself.
pub const API_URL: &str = "https://api.digitalocean.com/v2";
/// The image of new machines.
pub const IMAGE: &str = "debian-13-x64";
/// How many requests the provider allows in any minute.
pub const PER_MINUTE: u32 = 250;

const USER_DATA_MAX: usize = 64 * 1024;

/// One team and how machines are made in it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API is, with its version and without a slash at its end: [`API_URL`].
    pub api_url: String,
    /// A token of the team that may read and write.
    pub token: Secret,
    /// Regions where machines may be; all of them when it is empty.
    pub locations: Vec<String>,
    /// Name of a public image, or number of one of the team's own: [`IMAGE`].
    pub image: String,
    /// The edge, as CIDRs: whoever else asks a machine gets no answer.
    pub ingress_from: Vec<String>,
    /// Ids or fingerprints of keys of the team that machines admit. Without one the provider makes a password for each
    /// machine and sends it by mail.
    pub ssh_keys: Vec<String>,
    /// How many requests may be made in any minute: [`PER_MINUTE`].
    pub per_minute: u32,
    /// How long things may take.
    pub timing: Timing,
}

/// How long a call may wait.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one request with its answer.
    pub request: Duration,
    /// For a droplet that was accepted, to see whether it is refused after all.
    pub placing: Duration,
    /// For something long that the provider does, before the call answers that it goes on.
    pub action: Duration,
    /// Between two looks at it, at first; later up to five times that.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            placing: Duration::from_secs(5),
            action: Duration::from_secs(20),
            poll: Duration::from_secs(1),
        }
    }
}

/// The provider.
pub struct DigitalOcean {
    config: Config,
    http: Http,
    firewalls: Firewalls,
}

impl DigitalOcean {
    /// A provider with this token. Asks nobody yet.
    ///
    /// # Errors
    /// When the address of the API would have the token sent unencrypted.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&config, clock)?;
        Ok(Self { config, http, firewalls: Firewalls::default() })
    }
}

#[async_trait]
impl Cloud for DigitalOcean {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: false,
            arches: &[Arch::Amd64],
            bake: true,
            user_data_max: USER_DATA_MAX,
        }
    }

    async fn check_access(&self) -> Result<()> {
        access::check(&self.http).await
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        // Machines start from the provider's own image, which is always there.
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        offerings::read(&self.http, &self.config.locations).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        let refuse = |kind, message| Err(CloudError::new(kind, "create a machine", message));
        if request.arch != Arch::Amd64 {
            return refuse(ErrorKind::Unsupported, "this provider has amd64 machines only; aws and hetzner have arm64");
        }
        let Some(offering) = &request.offering else {
            return refuse(ErrorKind::Invalid, "no type and place were chosen");
        };
        if offering.arch != request.arch {
            return refuse(ErrorKind::Invalid, "the type that was chosen has another processor than the one asked for");
        }
        self.http.admit("create a machine", Operation::Make)?;
        if request.role == Role::Bake && !offerings::has_least_disk(&self.http, offering, request.size).await? {
            let message = format!("{}: of its disk an image would be too large for smaller sizes", offering.name);
            return Err(CloudError::new(ErrorKind::Capacity, "create a machine", message));
        }
        let tags = Tags::of(request);
        let order = Order {
            tags: &tags,
            size: &offering.name,
            region: &offering.location,
            image: create::reference(request.image.as_ref().unwrap_or(&self.config.image)),
            user_data: user_data::render(request, USER_DATA_MAX)?,
        };
        let placed = self.place(&order).await?;
        let address = placed.droplet.ip().map(|ip| format!("{ip}:{}", tags.port));
        if !placed.new {
            tracing::info!(machine.id = %request.machine, "{} had been created before", request.machine);
        }
        Ok(Created { id: Meant::id(request.machine, placed.root), address })
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.http.admit("find a machine", Operation::Find)?;
        machine::find(&self.http, machine).await
    }

    async fn find_to_remove(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.http.admit("find a machine", Operation::FindToRemove)?;
        self.find_removed(machine).await
    }

    async fn find_removed(&self, machine: MachineId) -> Result<Vec<Vm>> {
        machine::find(&self.http.removing(), machine).await
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        machine::list(&self.http, installation).await
    }

    async fn installations(&self) -> Result<BTreeMap<InstallationId, usize>> {
        machine::installations(&self.http).await
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        self.http.clock_ahead()
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        self.http.admit("delete a machine", Operation::Remove)?;
        machine::remove(&self.http.removing(), Meant::read(id)?).await
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        self.http.admit("hibernate a machine", Operation::Make)?;
        self.fall_asleep(Meant::read(id)?).await
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        self.http.admit("wake a machine", Operation::Make)?;
        self.rise(Meant::read(id)?).await
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        self.http.admit("make an image of a machine", Operation::Make)?;
        self.image_of(request, Meant::read(&request.machine)?).await
    }

    async fn protect(&self, installation: InstallationId, port: u16) -> Result<()> {
        self.firewalls.protect(&self.http, installation, port, &self.config.ingress_from).await
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        residue::list(&self.http, installation).await
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        if residue.kind == ResidueKind::Firewall {
            self.firewalls.forget().await;
        }
        residue::delete(&self.http.removing(), residue).await
    }

    async fn console_tail(&self, _: &ProviderId) -> Result<Option<String>> {
        // The provider has a console to look at, and none to read.
        Ok(None)
    }
}

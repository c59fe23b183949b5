//! Machines at Hetzner Cloud. One token is one project there.
//!
//! Names of servers are unique in a project, so a machine's name is its idempotency token, and its provider id too: it
//! stays the same through sleep, in which the server goes and a snapshot stays. Labels, given with the create, say
//! everything else. Bodies are written with the models of the `hcloud` crate; answers are read with our own, since
//! those must outlive a field that the provider drops, and we need the headers that say how many requests are left.

mod bake;
mod create;
mod firewall;
mod http;
mod labels;
mod machine;
mod offerings;
mod refusal;
mod residue;
mod sleep;
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
    ErrorKind, Listing, Offering, ProviderId, Residue, Residues, Result, SleepProgress, Vm, user_data,
};
use create::Order;
use firewall::Firewalls;
use http::{Http, Progress};
use labels::Tags;

/// Hetzner Cloud itself.
pub const API_URL: &str = "https://api.hetzner.cloud/v1";
/// The image of new machines.
pub const IMAGE: &str = "debian-13";

const USER_DATA_MAX: usize = 32 * 1024;

/// One project and how machines are made in it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API is, with its version and without a slash at its end: [`API_URL`].
    pub api_url: String,
    /// A token of the project that may read and write.
    pub token: Secret,
    /// Where machines may be; everywhere when it is empty.
    pub locations: Vec<String>,
    /// Name or id of the image: [`IMAGE`].
    pub image: String,
    /// The edge, as CIDRs: whoever else asks a machine gets no answer.
    pub ingress_from: Vec<String>,
    /// How long things may take.
    pub timing: Timing,
}

/// How long a call may wait.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one request with its answer.
    pub request: Duration,
    /// For something long that the provider does, before the call answers that it goes on.
    pub action: Duration,
    /// Between two looks at it, at first; later up to five times that.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { request: Duration::from_secs(30), action: Duration::from_secs(20), poll: Duration::from_secs(1) }
    }
}

/// The provider.
pub struct Hetzner {
    config: Config,
    http: Http,
    clock: Arc<dyn Clock>,
    firewalls: Firewalls,
}

impl Hetzner {
    /// A provider with this token. Asks nobody yet.
    ///
    /// # Errors
    /// When the address of the API would have the token sent unencrypted.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&config, Arc::clone(&clock))?;
        Ok(Self { config, http, clock, firewalls: Firewalls::default() })
    }
}

#[async_trait]
impl Cloud for Hetzner {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: false,
            arches: &[Arch::Amd64, Arch::Arm64],
            bake: true,
            user_data_max: USER_DATA_MAX,
        }
    }

    async fn check_access(&self) -> Result<()> {
        let doing = "check the access";
        self.http.get(doing, "servers", &[("per_page", "1")]).await?;
        // A token that may only read is refused whatever it wants to change; one that may write learns that there is no
        // such key, since ids begin at one.
        match self.http.delete(doing, "ssh_keys/0").await {
            Err(error) if error.kind != ErrorKind::Invalid => Err(error),
            _ => Ok(()),
        }
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        // Stock images boot faster here than snapshots, and cost nothing.
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        offerings::read(&self.http, &self.config.locations, self.clock.now()).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        let invalid = |message| CloudError::new(ErrorKind::Invalid, "create a machine", message);
        let offering = request.offering.as_ref().ok_or_else(|| invalid("no type and place were chosen"))?;
        if offering.arch != request.arch {
            return Err(invalid("the type that was chosen has another processor than the one asked for"));
        }
        self.http.admit("create a machine", Operation::Make)?;
        if request.role == Role::Bake
            && !offerings::has_least_disk(&self.http, offering, request.size, self.clock.now()).await?
        {
            let message = format!("{}: of its disk an image would be too large for smaller types", offering.name);
            return Err(CloudError::new(ErrorKind::Capacity, "create a machine", message));
        }
        let tags = Tags::of(request, &offering.name, &offering.location);
        let order = Order {
            tags: &tags,
            server_type: &offering.name,
            location: &offering.location,
            image: request.image.as_ref().unwrap_or(&self.config.image).clone(),
            user_data: user_data::render(request, USER_DATA_MAX)?,
        };
        let placed = self.place(&order).await?;
        let port = tags.port;
        let address = placed.server.ip().map(|ip| format!("{ip}:{port}"));
        if !placed.new {
            tracing::info!(machine.id = %request.machine, "{} had been created before", request.machine);
        }
        Ok(Created { id: ProviderId(request.machine.label()), address })
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.http.admit("find a machine", Operation::Find)?;
        Ok(machine::find(&self.http, machine).await?.into_iter().collect())
    }

    async fn find_to_remove(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.http.admit("find a machine", Operation::FindToRemove)?;
        self.find_removed(machine).await
    }

    async fn find_removed(&self, machine: MachineId) -> Result<Vec<Vm>> {
        Ok(machine::find(&self.http.removing(), machine).await?.into_iter().collect())
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
        machine::remove(&self.http.removing(), machine_of(id)?).await
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        self.http.admit("hibernate a machine", Operation::Make)?;
        self.fall_asleep(machine_of(id)?).await
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        self.http.admit("wake a machine", Operation::Make)?;
        self.rise(machine_of(id)?).await
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        self.http.admit("make an image of a machine", Operation::Make)?;
        self.image_of(request, machine_of(&request.machine)?).await
    }

    async fn protect(&self, installation: InstallationId, port: u16) -> Result<()> {
        self.firewalls.protect(&self.http, installation, port, &self.config.ingress_from).await
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        residue::list(&self.http, installation).await
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        residue::delete(&self.http.removing(), residue).await
    }

    async fn console_tail(&self, _: &ProviderId) -> Result<Option<String>> {
        // The provider has a console to look at, and none to read.
        Ok(None)
    }
}

/// Our provider ids are the names of our machines.
fn machine_of(id: &ProviderId) -> Result<MachineId> {
    id.0.parse().map_err(|_| CloudError::new(ErrorKind::Invalid, "find a machine", "not a machine id of this provider"))
}

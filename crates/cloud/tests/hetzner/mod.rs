//! Hetzner Cloud against a double, with a proxy in between that does harm.

mod access;
#[expect(clippy::duplicate_mod, reason = "the same tests with another rig")]
#[path = "../allowance.rs"]
mod allowance;
mod baking;
mod creating;
mod double;
mod firewall;
mod independent;
#[expect(clippy::duplicate_mod, reason = "the same tests with another rig")]
#[path = "../interrupted.rs"]
mod interrupted;
mod listing;
mod lost;
mod residue;
mod sleeping;

use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::contract::{self, offered};
use stagely_cloud::hetzner::{Config, Hetzner, IMAGE, Timing};
use stagely_cloud::{CaptureRequest, Cloud, CreateRequest, Created, ErrorKind, VmState};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId};
use stagely_domain::secret::Secret;

use crate::fault_proxy::FaultProxy;
use allowance::Published;
use double::Double;
use double::world::Bill;

/// A double, a proxy before it, and a provider that speaks to the proxy.
struct Rig {
    double: Double,
    proxy: FaultProxy,
    cloud: Hetzner,
}

/// One machine that runs: its disk is all that it costs beside its two addresses.
const ONE_AWAKE: Bill = Bill { servers: 1, snapshots: 0, addresses: 2, volumes: 0 };
const ONE_ASLEEP: Bill = Bill { servers: 0, snapshots: 1, addresses: 0, volumes: 0 };
const NOTHING: Bill = Bill { servers: 0, snapshots: 0, addresses: 0, volumes: 0 };

impl Rig {
    async fn start() -> Self {
        let double = Double::start().await;
        let proxy = FaultProxy::start(&double.url()).await;
        let cloud = provider(&proxy.url(), double::TOKEN);
        Self { double, proxy, cloud }
    }

    /// A request for the cheapest machine.
    async fn request(&self) -> CreateRequest {
        offered(&self.cloud, InstallationId::generate(), &SystemClock).await
    }

    /// A machine that runs, with this on its disk.
    async fn running(&self, disk: &str) -> (CreateRequest, Created) {
        let request = self.request().await;
        let created = self.cloud.create(&request).await.unwrap();
        self.settle(&request).await;
        self.write(disk);
        (request, created)
    }

    /// A machine that was made to bake and has done so, with this on its disk.
    async fn baked(&self, disk: &str) -> (CreateRequest, CaptureRequest) {
        let request = contract::baking(&self.cloud, InstallationId::generate(), &SystemClock).await;
        let created = self.cloud.create(&request).await.unwrap();
        self.settle(&request).await;
        self.write(disk);
        self.finish_baking();
        let (image, installation) = (ImageId::generate(), request.installation);
        (request, CaptureRequest { image, installation, machine: created.id })
    }

    /// Machines that bake are done, and turn themselves off.
    fn finish_baking(&self) {
        self.double.world().projects[0].finish_baking();
    }

    /// Looks until it runs.
    async fn settle(&self, request: &CreateRequest) {
        for _ in 0..20 {
            if self.cloud.find(request.machine).await.unwrap()[0].state == VmState::Running {
                return;
            }
        }
        panic!("it does not start");
    }

    /// Writes on the disk of every server.
    fn write(&self, disk: &str) {
        for server in self.double.world().projects[0].servers.values_mut() {
            disk.clone_into(&mut server.disk);
        }
    }

    fn bill(&self) -> Bill {
        self.double.world().projects[0].bill()
    }

    /// What is on the disk of the one server.
    fn disk(&self) -> String {
        self.double.world().projects[0].servers.values().next().map(|server| server.disk.clone()).unwrap_or_default()
    }

    /// So many requests are left, as the double counts.
    fn leave(&self, requests: u32) {
        self.double.world().projects[0].left = requests;
    }

    /// How many requests began like this.
    fn asked(&self, begin: &str) -> usize {
        self.double.world().requests.iter().filter(|request| request.starts_with(begin)).count()
    }
}

fn provider(url: &str, token: &str) -> Hetzner {
    Hetzner::new(config(url, token), Arc::new(SystemClock)).unwrap()
}

fn config(url: &str, token: &str) -> Config {
    Config {
        api_url: format!("{url}/v1"),
        token: Secret::new(token),
        locations: Vec::new(),
        image: IMAGE.to_owned(),
        ingress_from: vec!["198.51.100.7/32".to_owned(), "2001:db8:1::/64".to_owned()],
        timing: Timing {
            request: Duration::from_secs(2),
            action: Duration::from_millis(200),
            poll: Duration::from_millis(1),
        },
    }
}

/// A client in no hurry, and the provider's limits.
fn published(url: &str) -> (Hetzner, Published) {
    (provider(url, double::TOKEN), Published { hour: double::world::LIMIT, minute: None })
}

#[tokio::test]
async fn hetzner_keeps_the_contract() {
    let rig = Rig::start().await;
    rig.double.world().knobs.bakes_at_once = true;
    contract::keeps(&rig.cloud, &SystemClock, &[]).await;
    assert_eq!(rig.bill(), NOTHING);
}

/// A kind that says only that the other side is not well, or busy.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol | ErrorKind::Conflict)
}

//! DigitalOcean against a double, with a proxy in between that does harm.

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
use stagely_cloud::digitalocean::{Config, DigitalOcean, IMAGE, PER_MINUTE, Timing};
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
    cloud: DigitalOcean,
}

const ONE_AWAKE: Bill = Bill { droplets: 1, snapshots: 0, addresses: 0, volumes: 0 };
const ONE_ASLEEP: Bill = Bill { droplets: 0, snapshots: 1, addresses: 0, volumes: 0 };
const NOTHING: Bill = Bill { droplets: 0, snapshots: 0, addresses: 0, volumes: 0 };

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
        self.double.world().teams[0].finish_baking();
    }

    /// Looks until it runs.
    async fn settle(&self, request: &CreateRequest) {
        for _ in 0..20 {
            let found = self.cloud.find(request.machine).await.unwrap();
            if found.first().is_some_and(|vm| vm.state == VmState::Running) {
                return;
            }
        }
        panic!("it does not start");
    }

    /// Writes on the disk of every droplet.
    fn write(&self, disk: &str) {
        for droplet in self.double.world().teams[0].droplets.values_mut() {
            disk.clone_into(&mut droplet.disk);
        }
    }

    fn bill(&self) -> Bill {
        self.double.world().teams[0].bill()
    }

    /// What is on the disk of the one droplet.
    fn disk(&self) -> String {
        self.double.world().teams[0].droplets.values().next().map(|droplet| droplet.disk.clone()).unwrap_or_default()
    }

    /// So many requests are left, as the double counts.
    fn leave(&self, requests: u32) {
        self.double.world().teams[0].left = requests;
    }

    /// How many requests began like this. The one that can empty an account is never among them, whatever the test.
    fn asked(&self, begin: &str) -> usize {
        let requests = &self.double.world().requests;
        assert!(!requests.iter().any(|request| request.starts_with("DELETE /v2/droplets?")));
        requests.iter().filter(|request| request.starts_with(begin)).count()
    }
}

fn provider(url: &str, token: &str) -> DigitalOcean {
    DigitalOcean::new(config(url, token), Arc::new(SystemClock)).unwrap()
}

fn config(url: &str, token: &str) -> Config {
    Config {
        api_url: format!("{url}/v2"),
        token: Secret::new(token),
        locations: Vec::new(),
        image: IMAGE.to_owned(),
        ingress_from: vec!["198.51.100.7/32".to_owned(), "2001:db8:1::/64".to_owned()],
        ssh_keys: Vec::new(),
        // Tests are in a hurry; the real limit is tested by itself.
        per_minute: 1_000_000,
        timing: Timing {
            request: Duration::from_secs(2),
            placing: Duration::from_millis(20),
            action: Duration::from_millis(200),
            poll: Duration::from_millis(1),
        },
    }
}

/// A client in no hurry, and the provider's limits.
fn published(url: &str) -> (DigitalOcean, Published) {
    let usual = Config { per_minute: PER_MINUTE, ..config(url, double::TOKEN) };
    let cloud = DigitalOcean::new(usual, Arc::new(SystemClock)).unwrap();
    (cloud, Published { hour: double::world::LIMIT, minute: Some(PER_MINUTE) })
}

#[tokio::test]
async fn digitalocean_keeps_the_contract() {
    let rig = Rig::start().await;
    rig.double.world().knobs.bakes_at_once = true;
    contract::keeps(&rig.cloud, &SystemClock, &[]).await;
    assert_eq!((rig.bill(), rig.asked("DELETE /v2/droplets?")), (NOTHING, 0));
}

/// A kind that says only that the other side is not well, or busy.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol | ErrorKind::Conflict)
}

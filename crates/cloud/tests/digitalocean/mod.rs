//! DigitalOcean against a double, with a proxy in between that does harm.

mod access;
mod baking;
mod creating;
mod double;
mod firewall;
mod independent;
mod listing;
mod lost;
mod residue;
#[expect(clippy::duplicate_mod, reason = "the same tests with another rig")]
#[path = "../rest/mod.rs"]
mod rest;
mod sleeping;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stagely_cloud::ErrorKind;
use stagely_cloud::contract;
use stagely_cloud::digitalocean::{Config, DigitalOcean, IMAGE, PER_MINUTE, Timing};
use stagely_domain::clock::SystemClock;
use stagely_domain::secret::Secret;

use crate::double::{Bill, NOTHING, ONE_ASLEEP};
use crate::fault_proxy::FaultProxy;
use double::Double;
use rest::allowance::Published;
use rest::sleeping::NOTE;

/// A double, a proxy before it, and a provider that speaks to the proxy.
struct Rig {
    double: Double,
    proxy: FaultProxy,
    cloud: DigitalOcean,
}

const ONE_AWAKE: Bill = Bill { machines: 1, snapshots: 0, addresses: 0, volumes: 0 };

impl Rig {
    /// Where machines are listed and made.
    const MACHINES: &'static str = "/v2/droplets";
    const FIREWALLS: &'static str = "/v2/firewalls";
    /// Type and place.
    const CHEAPEST: (&'static str, &'static str) = ("s-1vcpu-2gb", "ams3");
    /// Types and places that cannot be had, and how they are refused.
    const NOT_SOLD: [(&'static str, &'static str, ErrorKind); 3] = [
        ("c-2-retired", "fra1", ErrorKind::Capacity),
        ("s-99vcpu-9gb", "fra1", ErrorKind::Invalid),
        ("s-1vcpu-2gb", "moon1", ErrorKind::Invalid),
    ];
    /// Numbers of machines: those of a whole page, one more, and those of several pages.
    const PAGES: [usize; 3] = [200, 201, 401];
    /// In bytes.
    const USER_DATA_MAX: usize = 64 * 1024;
    /// Requests of a create before the one that makes the machine.
    const LOOKS_BEFORE_CREATE: usize = 1;
    /// The status of a machine that runs.
    const ON: &'static str = "active";
    /// The status of a snapshot that is not whole.
    const UNFINISHED: &'static str = "pending";
    const POWER_ON: &'static str = "power_on";
    const POWER_OFF: &'static str = "power_off";

    /// Somebody else orders this of the one machine.
    fn act(&self, order: &str) {
        let world = &mut *self.double.world();
        let id = *world.accounts[0].machines.keys().next().unwrap();
        assert!(world.accounts[0].act(&mut world.knobs, id, &json!({"type": order})).is_ok());
    }

    /// A person holds all machines, or lets them go.
    fn hold_machines(&self, held: bool) {
        for droplet in self.double.world().accounts[0].machines.values_mut() {
            droplet.tags.retain(|tag| tag != HOLD);
            droplet.tags.extend(held.then(|| HOLD.to_owned()));
        }
    }

    /// A person holds all snapshots, and leaves a note on them, or lets them go.
    fn hold_snapshots(&self, held: bool) {
        let team = &mut self.double.world().accounts[0];
        team.tags.extend([HOLD, NOTE].map(str::to_owned));
        for image in team.images.values_mut().filter(|image| image.droplet != 0) {
            let tags = image.shown["tags"].as_array_mut().unwrap();
            tags.retain(|tag| tag != HOLD && tag != NOTE);
            if held {
                tags.extend([HOLD, NOTE].map(Into::into));
            }
        }
    }

    /// What the one machine was made with.
    fn user_data(&self) -> String {
        let world = self.double.world();
        let droplet = world.accounts[0].machines.values().next().unwrap();
        droplet.asked["user_data"].as_str().unwrap().to_owned()
    }

    /// How many requests began like this. The one that can empty an account is never among them, whatever the test.
    fn asked(&self, begin: &str) -> usize {
        let requests = &self.double.world().requests;
        assert!(!requests.iter().any(|request| request.starts_with("DELETE /v2/droplets?")));
        requests.iter().filter(|request| request.starts_with(begin)).count()
    }
}

/// The tag by which a person holds something.
const HOLD: &str = "stagely-hold:ada";

fn provider(url: &str, token: &str) -> DigitalOcean {
    connect(config(url, token))
}

fn connect(config: Config) -> DigitalOcean {
    DigitalOcean::new(config, Arc::new(SystemClock)).unwrap()
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
    (connect(usual), Published { hour: double::world::LIMIT, minute: Some(PER_MINUTE) })
}

#[tokio::test]
async fn digitalocean_keeps_the_contract() {
    let rig = Rig::start().await;
    rig.double.world().knobs.bakes_at_once = true;
    contract::keeps(&rig.cloud, &SystemClock, &[]).await;
    assert_eq!((rig.bill(), rig.asked("DELETE /v2/droplets?")), (NOTHING, 0));
}

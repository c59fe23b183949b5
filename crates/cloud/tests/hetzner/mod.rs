//! Hetzner Cloud against a double, with a proxy in between that does harm.

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

use serde_json::{Value, json};
use stagely_cloud::ErrorKind;
use stagely_cloud::contract;
use stagely_cloud::hetzner::{Config, Hetzner, IMAGE, Timing};
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
    cloud: Hetzner,
}

/// One machine that runs: its disk is all that it costs beside its two addresses.
const ONE_AWAKE: Bill = Bill { machines: 1, snapshots: 0, addresses: 2, volumes: 0 };

impl Rig {
    /// Where machines are listed and made.
    const MACHINES: &'static str = "/v1/servers";
    const FIREWALLS: &'static str = "/v1/firewalls";
    /// Type and place.
    const CHEAPEST: (&'static str, &'static str) = ("cx23", "fsn1");
    /// Types and places that cannot be had, and how they are refused.
    const NOT_SOLD: [(&'static str, &'static str, ErrorKind); 3] = [
        ("cx22", "fsn1", ErrorKind::Invalid),
        ("cx99", "fsn1", ErrorKind::Invalid),
        ("cx23", "moon1", ErrorKind::Invalid),
    ];
    /// Numbers of machines: those of a whole page, one more, and those of several pages.
    const PAGES: [usize; 3] = [50, 51, 201];
    /// In bytes.
    const USER_DATA_MAX: usize = 32 * 1024;
    /// Requests of a create before the one that makes the machine.
    const LOOKS_BEFORE_CREATE: usize = 0;
    /// The status of a machine that runs.
    const ON: &'static str = "running";
    /// The status of a snapshot that is not whole.
    const UNFINISHED: &'static str = "creating";
    const POWER_ON: &'static str = "poweron";
    const POWER_OFF: &'static str = "poweroff";

    /// Somebody else orders this of the one machine.
    fn act(&self, order: &str) {
        let world = &mut *self.double.world();
        let id = *world.accounts[0].machines.keys().next().unwrap();
        assert!(world.accounts[0].act(&mut world.knobs, id, order, &json!({})).is_ok());
    }

    /// A person holds all machines, or lets them go.
    fn hold_machines(&self, held: bool) {
        for server in self.double.world().accounts[0].machines.values_mut() {
            hold(&mut server.labels, held);
        }
    }

    /// A person holds all snapshots, and leaves a note on them, or lets them go.
    fn hold_snapshots(&self, held: bool) {
        let images = &mut self.double.world().accounts[0].images;
        for image in images.values_mut().filter(|image| image.shown["type"] == "snapshot") {
            image.shown["labels"]["note"] = NOTE.into();
            hold(&mut image.shown["labels"], held);
        }
    }

    /// What the one machine was made with.
    fn user_data(&self) -> String {
        self.double.world().accounts[0].machines.values().next().unwrap().user_data.clone()
    }

    /// How many requests began like this.
    fn asked(&self, begin: &str) -> usize {
        self.double.world().requests.iter().filter(|request| request.starts_with(begin)).count()
    }
}

fn hold(labels: &mut Value, held: bool) {
    match held {
        true => labels["stagely-hold"] = "ada".into(),
        false => drop(labels.as_object_mut().unwrap().remove("stagely-hold")),
    }
}

fn provider(url: &str, token: &str) -> Hetzner {
    connect(config(url, token))
}

fn connect(config: Config) -> Hetzner {
    Hetzner::new(config, Arc::new(SystemClock)).unwrap()
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

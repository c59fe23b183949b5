//! What we read of the provider's answers: the least that is needed. Whatever is missing, new or null is tolerated; only
//! an id must be there.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::rest::or_default;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Droplet {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    /// An action goes on with it.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) locked: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) size_slug: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) region: Region,
    #[serde(default, deserialize_with = "or_default")]
    networks: Networks,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Networks {
    #[serde(default, deserialize_with = "or_default")]
    v4: Vec<Address>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(default, deserialize_with = "or_default")]
    ip_address: String,
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    kind: String,
}

impl Droplet {
    /// Its public IPv4 address.
    pub(super) fn ip(&self) -> Option<&str> {
        let public = self.networks.v4.iter().find(|address| address.kind == "public");
        public.map(|address| &*address.ip_address).filter(|ip| !ip.is_empty())
    }
}

/// A snapshot, or any other image of the account.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Image {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
    /// Where droplets can be made of it.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) regions: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created_at: Option<DateTime<Utc>>,
}

/// Something long that the provider does.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Action {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Size {
    pub(super) slug: String,
    /// In MiB.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) memory: u64,
    /// In GB.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) disk: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) vcpus: u32,
    /// In US dollars.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) price_hourly: Option<f64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) regions: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) available: Option<bool>,
    #[serde(default)]
    pub(super) gpu_info: serde_json::Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Region {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) slug: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) available: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Firewall {
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) inbound_rules: Vec<Rule>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) outbound_rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rule {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) protocol: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ports: String,
    #[serde(default, alias = "sources", alias = "destinations", deserialize_with = "or_default")]
    pub(super) whom: Whom,
}

/// The other side of a rule. Only addresses are ours; whatever else is admitted is too much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Whom {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) addresses: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) droplet_ids: Vec<u64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) load_balancer_uids: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) kubernetes_ids: Vec<String>,
}

/// A volume, or a snapshot of one.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Disk {
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created_at: Option<DateTime<Utc>>,
}

/// A public address that is billed while no machine has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ReservedIp {
    pub(super) ip: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) droplet: Option<Tagged>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Tagged {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tags: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Key {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
}

/// Why the provider refuses.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) message: String,
    /// Where there is room, when there is none in the place that was asked for.
    #[serde(default)]
    pub(super) error_attributes: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::{Droplet, Firewall, Size};

    #[test]
    fn only_the_id_must_be_there() {
        for strange in [
            r#"{"id": 7}"#,
            r#"{"id": 7, "status": null, "tags": null, "created_at": "soon", "networks": {"v4": null}}"#,
            r#"{"id": 7, "status": "dreaming", "networks": null, "region": null, "novelty": {"a": [1]}}"#,
            r#"{"id": 7, "networks": {"v4": [{"type": "private", "ip_address": "10.0.0.1"}, {"type": "public"}]}}"#,
        ] {
            let droplet: Droplet = serde_json::from_str(strange).unwrap();
            assert_eq!((droplet.id, droplet.ip(), droplet.tags.len()), (7, None, 0));
        }
        assert!(serde_json::from_str::<Droplet>(r#"{"name": "x"}"#).is_err());
        let size: Size = serde_json::from_str(r#"{"slug": "s-1vcpu-2gb", "vcpus": "two"}"#).unwrap();
        assert_eq!((size.vcpus, size.available, size.gpu_info.is_null()), (0, None, true));
        let firewall: Firewall = serde_json::from_str(
            r#"{"id": "f", "inbound_rules": [{"sources": {"addresses": ["::/0"]}}], "outbound_rules": null}"#,
        )
        .unwrap();
        assert_eq!(firewall.inbound_rules[0].whom.addresses, ["::/0"]);
    }
}

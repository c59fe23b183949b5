//! What we read of the provider's answers: the least that is needed. Whatever is missing, new or null is tolerated; only
//! an id must be there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::rest::or_default;

/// Labels of any resource.
pub(super) type Labels = HashMap<String, String>;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "or_default")]
    public_net: PublicNet,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PublicNet {
    #[serde(default)]
    ipv4: Option<Address>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(default)]
    ip: Option<String>,
}

impl Server {
    /// Its public IPv4 address.
    pub(super) fn ip(&self) -> Option<&str> {
        self.public_net.ipv4.as_ref()?.ip.as_deref()
    }
}

/// A snapshot, or any image.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Image {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created: Option<DateTime<Utc>>,
}

/// Something long that the provider does.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Action {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) command: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
}

/// The provider's reason.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) code: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Firewall {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Rule {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) direction: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) protocol: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) port: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) source_ips: Vec<String>,
}

/// Anything with labels that is not a machine.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Labelled {
    pub(super) id: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ServerType {
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) cores: u32,
    /// In GB.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) memory: f64,
    /// In GB.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) disk: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) prices: Vec<TypePrice>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) locations: Vec<TypeLocation>,
    #[serde(default)]
    pub(super) deprecation: Option<Deprecation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TypePrice {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) location: String,
    #[serde(default)]
    pub(super) price_hourly: Option<Money>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Money {
    /// A decimal number in the currency of the price list.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) net: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TypeLocation {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) available: Option<bool>,
    #[serde(default)]
    pub(super) deprecation: Option<Deprecation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Deprecation {
    #[serde(default)]
    pub(super) unavailable_after: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::{Server, ServerType};

    #[test]
    fn only_the_id_must_be_there() {
        for strange in [
            r#"{"id": 7}"#,
            r#"{"id": 7, "status": null, "labels": null, "created": "soon", "public_net": {"ipv4": null}}"#,
            r#"{"id": 7, "status": "dreaming", "public_net": null, "novelty": {"a": [1]}}"#,
            r#"{"id": 7, "public_net": {"ipv4": {"blocked": false}}}"#,
        ] {
            let server: Server = serde_json::from_str(strange).unwrap();
            assert_eq!((server.id, server.ip(), server.labels.len()), (7, None, 0));
        }
        assert!(serde_json::from_str::<Server>(r#"{"name": "x"}"#).is_err());
        let kind: ServerType = serde_json::from_str(r#"{"name": "cx23", "cores": "two"}"#).unwrap();
        assert_eq!(kind.cores, 0);
    }
}

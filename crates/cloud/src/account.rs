//! From what a person gives for an account to a client of its provider.

use std::sync::Arc;

use serde::Deserialize;
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::Clock;
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;

use crate::aws::{self, Aws, Regions};
use crate::digitalocean::{self, DigitalOcean};
use crate::hetzner::{self, Hetzner};
use crate::{Cloud, CloudError, ErrorKind, Result};

const DOING: &str = "open a cloud account";

/// Where the providers' APIs are, when not where the providers have them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apis {
    /// That of EC2, STS and SSM: `AWS_ENDPOINT_URL`.
    pub aws: Option<String>,
    /// DigitalOcean's, with its version: `DIGITALOCEAN_API_URL`.
    pub digitalocean: Option<String>,
    /// Hetzner Cloud's, with its version: `HCLOUD_ENDPOINT`.
    pub hetzner: Option<String>,
}

/// A client of an account. Asks nobody yet.
///
/// # Errors
/// What is missing or wrong; [`ErrorKind::Unsupported`] for `qemu`, whose machines are of the host on which it runs.
pub fn open(
    kind: Provider,
    settings: &Settings,
    credentials: &Credentials,
    apis: &Apis,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Cloud>> {
    match kind {
        Provider::Aws => {
            let config = amazon(settings, credentials, apis)?;
            match settings.all_regions().as_slice() {
                [_] => Ok(Arc::new(Aws::new(config, clock)?)),
                regions => Ok(Arc::new(Regions::new(&config, regions, &clock)?)),
            }
        }
        Provider::Digitalocean => {
            let config = digitalocean::Config {
                api_url: apis.digitalocean.clone().unwrap_or_else(|| digitalocean::API_URL.to_owned()),
                token: needed(credentials, "token")?,
                locations: settings.locations.clone(),
                image: settings.image.clone().unwrap_or_else(|| digitalocean::IMAGE.to_owned()),
                ingress_from: settings.ingress_from.clone(),
                ssh_keys: settings.ssh_keys.clone(),
                per_minute: digitalocean::PER_MINUTE,
                timing: digitalocean::Timing::default(),
            };
            Ok(Arc::new(DigitalOcean::new(config, clock)?))
        }
        Provider::Hetzner => {
            let config = hetzner::Config {
                api_url: apis.hetzner.clone().unwrap_or_else(|| hetzner::API_URL.to_owned()),
                token: needed(credentials, "token")?,
                locations: settings.locations.clone(),
                image: settings.image.clone().unwrap_or_else(|| hetzner::IMAGE.to_owned()),
                ingress_from: settings.ingress_from.clone(),
                timing: hetzner::Timing::default(),
            };
            Ok(Arc::new(Hetzner::new(config, clock)?))
        }
        Provider::Qemu => {
            Err(CloudError::new(ErrorKind::Unsupported, DOING, "machines on a host of one's own have no account"))
        }
    }
}

fn amazon(settings: &Settings, credentials: &Credentials, apis: &Apis) -> Result<aws::Config> {
    let role = credentials
        .get("role_arn")
        .map(|arn| aws::Role { arn: arn.reveal().to_owned(), external_id: credentials.get("external_id").cloned() });
    Ok(aws::Config {
        region: settings.all_regions().into_iter().next().ok_or_else(|| lacks("region"))?,
        endpoint: apis.aws.clone(),
        keys: aws::Keys {
            access_key_id: needed(credentials, "access_key_id")?.reveal().to_owned(),
            secret_access_key: needed(credentials, "secret_access_key")?,
            session_token: credentials.get("session_token").cloned(),
        },
        role,
        locations: settings.locations.clone(),
        subnets: settings.subnets.clone(),
        image: settings.image.clone().unwrap_or_else(|| aws::IMAGE.to_owned()),
        disk_gib: aws::DISK_GIB,
        ingress_from: settings.ingress_from.clone(),
        timing: aws::Timing::default(),
        limits: aws::Limits::Published,
    })
}

fn needed(credentials: &Credentials, name: &'static str) -> Result<Secret> {
    credentials.get(name).cloned().ok_or_else(|| lacks(name))
}

fn lacks(name: &'static str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, format!("it has no `{name}`"))
}

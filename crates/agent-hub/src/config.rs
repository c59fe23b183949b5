//! The table `[agent_hub]` of the configuration file.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::bail;
use serde::Deserialize;

/// The longest life of a credential, in seconds.
const MAX_CREDENTIAL_TTL_SECS: u32 = 24 * 60 * 60;

/// The hub's own settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where agents connect, by TLS.
    pub listen: SocketAddr,
    /// The same as machines reach it: `https://host:port`.
    pub public_url: String,
    /// Names and addresses in the hub's own certificate; the host of `public_url` is always among them.
    pub server_names: Vec<String>,
    /// How often agents send something, in seconds.
    pub heartbeat_secs: u32,
    /// How long a machine lives without being heard of, in seconds.
    pub lease_secs: u32,
    /// How long a credential is valid, in seconds; a day at most.
    pub credential_ttl_secs: u32,
    /// Over how many seconds connections are closed at shutdown.
    pub drain_secs: u32,
    /// Size of the hub's database pool.
    pub database_connections: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9443)),
            public_url: "https://127.0.0.1:9443".to_owned(),
            server_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            heartbeat_secs: 15,
            // Longer than an upgrade or an outage that somebody is at work on; an hour is what a machine that nobody
            // knows of may cost.
            lease_secs: 60 * 60,
            credential_ttl_secs: 12 * 60 * 60,
            drain_secs: 8,
            database_connections: 12,
        }
    }
}

impl Config {
    /// Checks what one key alone cannot say.
    ///
    /// # Errors
    /// Names the key at fault.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.public_host().is_none() {
            bail!("agent_hub.public_url: `{}` is not of the form https://host:port", self.public_url);
        }
        if self.credential_ttl_secs == 0 || self.credential_ttl_secs > MAX_CREDENTIAL_TTL_SECS {
            bail!("agent_hub.credential_ttl_secs: give 1 to {MAX_CREDENTIAL_TTL_SECS}");
        }
        if self.heartbeat_secs == 0 || self.heartbeat_secs > 30 {
            bail!("agent_hub.heartbeat_secs: give 1 to 30, since 40 s of silence end a connection");
        }
        if self.lease_secs < 2 * self.heartbeat_secs {
            bail!("agent_hub.lease_secs: give at least twice agent_hub.heartbeat_secs");
        }
        Ok(())
    }

    /// Every name that the hub's certificate bears.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.server_names.clone();
        names.extend(self.public_host());
        names.sort();
        names.dedup();
        names
    }

    fn public_host(&self) -> Option<String> {
        let url: http::Uri = self.public_url.parse().ok()?;
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        (url.scheme_str() == Some("https")).then_some(host)
    }
}

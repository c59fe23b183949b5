//! The table `[edge_proxy]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// What the edge is told.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where visitors come in.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Threads; default one per core.
    pub workers: Option<usize>,
    /// The certificate that machines' ingresses ask for.
    pub client_cert_file: PathBuf,
    /// Its key.
    pub client_key_file: PathBuf,
    /// The internal CA, by which machines are known.
    pub ca_file: PathBuf,
    /// What every key in Redis starts with.
    #[serde(default = "default_prefix")]
    pub redis_prefix: String,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8443))
}

fn default_prefix() -> String {
    "stagely:".to_owned()
}

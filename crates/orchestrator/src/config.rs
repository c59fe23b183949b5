//! The table `[orchestrator]`.

use std::path::PathBuf;

use serde::Deserialize;
use stagely_cloud::account::Apis;
use stagely_domain::secret::Secret;

/// What the orchestrator is told.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The git host.
    pub github: GitHub,
    /// Where machines download the agent: `{arch}` is replaced.
    pub agent_url: String,
    /// The agent's static program for amd64, to know its checksum and to put it on seed disks.
    pub agent_binary: PathBuf,
    /// The `qemu` provider.
    pub qemu: Qemu,
    /// Where the clouds' APIs are, when not where their providers have them.
    #[serde(default)]
    pub clouds: Apis,
    /// `host:port` of the registry, as machines reach it.
    pub registry_host: String,
    /// The CA of the registry, in PEM; sent to machines.
    pub registry_ca_file: Option<PathBuf>,
    /// A pull-through cache for Docker Hub, as machines reach it.
    #[serde(default)]
    pub mirror_url: String,
    /// Where the public edge answers, for the proof request: `ip:port`.
    pub edge_address: std::net::SocketAddr,
    /// Where people read more: the dashboard's or API's public URL.
    #[serde(default)]
    pub public_url: String,
    /// Connections to the database.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// What every key in Redis starts with.
    #[serde(default = "default_prefix")]
    pub redis_prefix: String,
    /// The longest that a machine may live.
    #[serde(default = "default_lifetime_hours")]
    pub machine_lifetime_hours: i64,
}

/// How we are known to GitHub: a token, or an App.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHub {
    /// `https://api.github.com`, or an Enterprise's.
    #[serde(default = "default_api_url")]
    pub api_url: String,
    /// What clone URLs start with, as machines reach it.
    #[serde(default = "default_git_url")]
    pub git_url: String,
    /// A token.
    pub token: Option<Secret>,
    /// An App's id.
    pub app_id: Option<String>,
    /// The App's RSA key, a PEM file.
    pub app_key_file: Option<PathBuf>,
}

/// The `qemu` provider.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// Machines, templates, locks; default below the common state directory.
    pub state_dir: Option<PathBuf>,
    /// `disk.qcow2`, `vmlinuz`, `initrd`.
    pub image_dir: PathBuf,
    /// Whether machines are copies of a template that is booted once.
    #[serde(default = "yes")]
    pub templates: bool,
}

const fn yes() -> bool {
    true
}

const fn default_connections() -> u32 {
    20
}

const fn default_lifetime_hours() -> i64 {
    24 * 30
}

fn default_prefix() -> String {
    "stagely:".to_owned()
}

fn default_api_url() -> String {
    "https://api.github.com".to_owned()
}

fn default_git_url() -> String {
    "https://github.com".to_owned()
}

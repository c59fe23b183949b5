//! The `[api]` table of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use stagely_domain::secret::Secret;

/// What the API needs to know.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens: REST, webhooks, registry tokens, agent downloads.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// How browsers, git hosts and machines reach it, without a slash at the end.
    #[serde(default = "default_public_url")]
    pub public_url: String,
    /// Webhook secrets that are valid now: two while one is being replaced.
    #[serde(default)]
    pub github_webhook_secrets: Vec<Secret>,
    /// The longest webhook body that is looked at. GitHub sends at most 25 MiB.
    #[serde(default = "default_max_webhook_bytes")]
    pub max_webhook_bytes: usize,
    /// The image registry whose tokens are issued here.
    #[serde(default)]
    pub registry: Registry,
    /// The agent programs that machines download.
    #[serde(default)]
    pub agent_binaries: AgentBinaries,
    /// Database connections of this process.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
}

/// What stands in registry tokens. It must agree with `auth.token` in the registry's own configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// The registry's name, `aud` of each token.
    pub service: String,
    /// Our name, `iss` of each token.
    pub issuer: String,
    /// How long a token lasts. Long enough for one large push.
    pub token_ttl_secs: u32,
    /// `host:port` as it stands in image names.
    pub host: String,
}

/// Where the static agent programs are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentBinaries {
    /// For x86-64.
    pub amd64: Option<PathBuf>,
    /// For AArch64.
    pub arm64: Option<PathBuf>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            service: "stagely-registry".to_owned(),
            issuer: "stagely".to_owned(),
            token_ttl_secs: 900,
            host: "localhost:5000".to_owned(),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

fn default_public_url() -> String {
    "http://localhost:8080".to_owned()
}

const fn default_max_webhook_bytes() -> usize {
    5 * 1024 * 1024
}

const fn default_connections() -> u32 {
    16
}

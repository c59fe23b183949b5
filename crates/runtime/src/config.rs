//! Configuration: one TOML file with a table per service, environment variables on top.
//!
//! Order, later wins: defaults, the file named by `STAGELY_CONFIG`, `STAGELY__TABLE__KEY` variables, and the
//! short names that operators know: `DATABASE_URL REDIS_URL PORT ENVIRONMENT LOG_LEVEL ENCRYPTION_KEY
//! ENCRYPTION_KEYS`. Nothing else in the workspace reads the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stagely_domain::secret::Secret;

/// The six services, as peers of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// REST, webhooks, registry tokens.
    Api,
    /// Runs, environments, machines, routes, posts.
    Orchestrator,
    /// Build jobs and the builder fleet.
    BuilderScheduler,
    /// Agent connections.
    AgentHub,
    /// Public traffic.
    EdgeProxy,
    /// When something must end.
    Reaper,
}

impl Peer {
    /// All of them, in the order in which `stagelyd up` starts them.
    pub const ALL: [Self; 6] =
        [Self::AgentHub, Self::Orchestrator, Self::BuilderScheduler, Self::EdgeProxy, Self::Reaper, Self::Api];

    /// The name in configuration and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Orchestrator => "orchestrator",
            Self::BuilderScheduler => "builder_scheduler",
            Self::AgentHub => "agent_hub",
            Self::EdgeProxy => "edge_proxy",
            Self::Reaper => "reaper",
        }
    }

    /// Whether it seals and opens what is kept sealed in the database. The others are not to have the key for that.
    #[must_use]
    pub const fn has_key_ring(self) -> bool {
        matches!(self, Self::Api | Self::Orchestrator | Self::AgentHub)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Readable logs; `stagelyd` makes up the secrets that were not given.
    #[default]
    Development,
    /// JSON logs; the secrets must be given.
    Production,
}

/// What all services share.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// `DATABASE_URL`; the edge has none.
    pub database_url: Option<Secret>,
    /// `REDIS_URL`.
    pub redis_url: Option<Secret>,
    /// `ENVIRONMENT`.
    #[serde(default)]
    pub environment: Environment,
    /// `LOG_LEVEL`, as `tracing_subscriber::EnvFilter` reads it.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// `ENCRYPTION_KEY`: 32 bytes in hexadecimal.
    pub encryption_key: Option<Secret>,
    /// `ENCRYPTION_KEYS`: `id:hex,…` while rotating; the first seals, all open.
    pub encryption_keys: Option<Secret>,
    /// What callers between services show; every internal gRPC call carries it.
    pub service_token: Option<Secret>,
    /// The domain below which previews live: `<hash>.<preview_domain>`.
    #[serde(default = "default_preview_domain")]
    pub preview_domain: String,
    /// What stands before and after a preview's host in its public URL.
    #[serde(default)]
    pub preview_url: PreviewUrl,
    /// Files that must outlive a restart: machine state of `qemu`, issued certificates.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
}

impl Common {
    /// Whether these services may start with it.
    fn check(&self, peers: &[Peer]) -> anyhow::Result<()> {
        if self.environment == Environment::Development {
            return Ok(());
        }
        let has_key = self.encryption_key.is_some() || self.encryption_keys.is_some();
        if !has_key && peers.iter().any(|peer| peer.has_key_ring()) {
            bail!("ENCRYPTION_KEY is not set: in production give 32 bytes in hexadecimal (openssl rand -hex 32)");
        }
        if self.service_token.is_none() {
            bail!("STAGELY_SERVICE_TOKEN is not set: in production give the same long random text to every service");
        }
        Ok(())
    }
}

/// How public preview URLs are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewUrl {
    /// `https`, or `http` where no TLS is set up yet.
    pub scheme: String,
    /// The public port, when it is not the scheme's own.
    pub port: Option<u16>,
}

impl Default for PreviewUrl {
    fn default() -> Self {
        Self { scheme: "https".to_owned(), port: None }
    }
}

impl PreviewUrl {
    /// The URL of `host`.
    #[must_use]
    pub fn of(&self, host: &str) -> String {
        self.port.map_or_else(|| format!("{}://{host}", self.scheme), |port| format!("{}://{host}:{port}", self.scheme))
    }
}

/// Where a service's internal ports are, seen from itself (`*_listen`) and from the others (`grpc_url`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// gRPC, private.
    pub grpc_listen: SocketAddr,
    /// `/healthz` and `/readyz`, private.
    pub admin_listen: SocketAddr,
    /// How the others dial the gRPC port.
    pub grpc_url: String,
}

/// The whole configuration, read once.
#[derive(Clone)]
pub struct Settings {
    /// What all services share.
    pub common: Common,
    figment: Figment,
}

impl Settings {
    /// The table of one service.
    ///
    /// # Errors
    /// Names the key that is missing or malformed.
    pub fn service<C: DeserializeOwned>(&self, peer: Peer) -> anyhow::Result<C> {
        self.figment.extract_inner(peer.name()).with_context(|| format!("configuration table [{peer}]"))
    }

    /// The internal ports of one service.
    ///
    /// # Errors
    /// Names the key that is missing or malformed.
    pub fn ports(&self, peer: Peer) -> anyhow::Result<Ports> {
        self.figment
            .extract_inner(&format!("ports.{}", peer.name()))
            .with_context(|| format!("configuration table [ports.{peer}]"))
    }

    /// The database's address.
    ///
    /// # Errors
    /// When `DATABASE_URL` is not set.
    pub fn database_url(&self) -> anyhow::Result<&Secret> {
        self.common.database_url.as_ref().context("DATABASE_URL is not set: give it a postgres:// address")
    }

    /// Redis' address.
    ///
    /// # Errors
    /// When `REDIS_URL` is not set.
    pub fn redis_url(&self) -> anyhow::Result<&Secret> {
        self.common.redis_url.as_ref().context("REDIS_URL is not set: give it a redis:// address")
    }

    /// The same settings with one key replaced, for a process that decides some itself.
    #[must_use]
    pub fn with(&self, key: &str, value: impl Serialize) -> Self {
        Self { common: self.common.clone(), figment: self.figment.clone().merge(Serialized::default(key, value)) }
    }
}

/// Reads defaults, file and environment, for a process that runs all services.
///
/// # Errors
/// Names the file or variable at fault, never a secret's value.
pub fn load() -> anyhow::Result<Settings> {
    load_for(&Peer::ALL)
}

/// The same for a process that runs only these.
///
/// # Errors
/// As [`load`].
pub fn load_for(peers: &[Peer]) -> anyhow::Result<Settings> {
    let settings = read()?;
    settings.common.check(peers)?;
    Ok(settings)
}

fn read() -> anyhow::Result<Settings> {
    let mut figment = Figment::new();
    for (index, peer) in Peer::ALL.into_iter().enumerate() {
        let offset = u16::try_from(index).unwrap_or_default();
        let (grpc, admin) = (9100 + offset, 9200 + offset);
        figment = figment.merge(Serialized::default(
            &format!("ports.{}", peer.name()),
            Ports {
                grpc_listen: SocketAddr::from(([127, 0, 0, 1], grpc)),
                admin_listen: SocketAddr::from(([127, 0, 0, 1], admin)),
                grpc_url: format!("http://127.0.0.1:{grpc}"),
            },
        ));
        figment = figment.merge(Serialized::default(peer.name(), serde_json::json!({})));
    }
    if let Some(file) = variable("STAGELY_CONFIG") {
        if !std::path::Path::new(&file).is_file() {
            bail!("STAGELY_CONFIG names {file}, which is not a file");
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(Env::prefixed("STAGELY__").split("__"));
    for (name, key) in [
        ("DATABASE_URL", "common.database_url"),
        ("REDIS_URL", "common.redis_url"),
        ("ENVIRONMENT", "common.environment"),
        ("LOG_LEVEL", "common.log_level"),
        ("ENCRYPTION_KEY", "common.encryption_key"),
        ("ENCRYPTION_KEYS", "common.encryption_keys"),
        ("STAGELY_SERVICE_TOKEN", "common.service_token"),
        ("GITHUB_API_URL", "orchestrator.github.api_url"),
        ("AWS_ENDPOINT_URL", "orchestrator.clouds.aws"),
        ("DIGITALOCEAN_API_URL", "orchestrator.clouds.digitalocean"),
        ("HCLOUD_ENDPOINT", "orchestrator.clouds.hetzner"),
    ] {
        if let Some(value) = variable(name) {
            figment = figment.merge(Serialized::default(key, value));
        }
    }
    if let Some(port) = variable("PORT") {
        let port: u16 = port.parse().context("PORT is not a port number")?;
        figment = figment.merge(Serialized::default("api.listen", SocketAddr::from(([0, 0, 0, 0], port))));
    }
    figment = figment.join(Serialized::default("common", serde_json::json!({})));
    let common: Common = figment.extract_inner("common").context("configuration table [common]")?;
    Ok(Settings { common, figment })
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn default_log_level() -> String {
    "info".to_owned()
}

fn default_preview_domain() -> String {
    "preview.localhost".to_owned()
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/stagely")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Common, Peer, Ports};

    /// The services that may not start with these settings in production.
    fn refused(settings: Value) -> Vec<Peer> {
        let common: Common = serde_json::from_value(settings).unwrap();
        Peer::ALL.into_iter().filter(|peer| common.check(&[*peer]).is_err()).collect()
    }

    #[test]
    fn in_production_only_who_opens_what_is_sealed_must_have_the_key() {
        assert_eq!(refused(json!({})), []);
        assert_eq!(refused(json!({"environment": "production", "encryption_key": "00"})), Peer::ALL);
        let keyless = json!({"environment": "production", "service_token": "long"});
        assert_eq!(refused(keyless.clone()), [Peer::AgentHub, Peer::Orchestrator, Peer::Api]);
        for key in [json!({"encryption_key": "00"}), json!({"encryption_keys": "a:00"})] {
            let mut settings = keyless.clone();
            settings.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
            assert_eq!(refused(settings), []);
        }
    }

    #[test]
    fn a_process_that_runs_all_services_must_have_the_key_too() {
        let common: Common =
            serde_json::from_value(json!({"environment": "production", "service_token": "long"})).unwrap();
        let told = common.check(&Peer::ALL).unwrap_err().to_string();
        assert!(told.starts_with("ENCRYPTION_KEY is not set"), "{told}");
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_its_name() {
        let common = |settings| serde_json::from_value::<Common>(settings).err().unwrap().to_string();
        let ports = json!({
            "grpc_listen": "127.0.0.1:9100",
            "admin_listen": "127.0.0.1:9200",
            "grpc_url": "http://127.0.0.1:9100",
            "grpc_adress": "127.0.0.1:9100",
        });
        for (told, wanted) in [
            (common(json!({"preview_domian": "preview.test"})), "unknown field `preview_domian`"),
            (common(json!({"preview_url": {"scheme": "http", "prot": 8443}})), "unknown field `prot`"),
            (serde_json::from_value::<Ports>(ports).err().unwrap().to_string(), "unknown field `grpc_adress`"),
        ] {
            assert!(told.contains(wanted), "{told}");
        }
    }
}

//! The table `[builder_scheduler]` of the configuration file.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;

/// The builder-scheduler's own settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The registry as machines reach it: `host:port`.
    pub registry_host: String,
    /// The registry as this service reaches it: `https://host:port`. Without it no tag is ever deleted.
    pub registry_api_url: Option<String>,
    /// The authority of the registry's certificate, PEM; sent to machines. Without it public ones are trusted.
    pub registry_ca_file: Option<PathBuf>,
    /// A pull-through cache of Docker Hub.
    pub mirror_url: Option<String>,
    /// How long a builder is kept without work, in seconds.
    pub idle_builder_secs: u32,
    /// How many jobs a builder is given at once.
    pub builds_per_builder: u32,
    /// How many builders a project may have per architecture.
    pub max_builders_per_project: u32,
    /// Size of the database pool.
    pub database_connections: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registry_host: "127.0.0.1:5000".to_owned(),
            registry_api_url: None,
            registry_ca_file: None,
            mirror_url: None,
            idle_builder_secs: 600,
            builds_per_builder: 4,
            max_builders_per_project: 1,
            database_connections: 8,
        }
    }
}

impl Config {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// Names the key at fault.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.registry_host.is_empty() || self.registry_host.contains('/') {
            bail!("builder_scheduler.registry_host: `{}` is not of the form host:port", self.registry_host);
        }
        if self.builds_per_builder == 0 || self.max_builders_per_project == 0 {
            bail!("builder_scheduler.builds_per_builder and max_builders_per_project: give at least 1");
        }
        Ok(())
    }

    /// The authority of the registry's certificate; empty for none.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn registry_ca(&self) -> anyhow::Result<String> {
        let Some(file) = &self.registry_ca_file else { return Ok(String::new()) };
        std::fs::read_to_string(file)
            .with_context(|| format!("builder_scheduler.registry_ca_file: read {}", file.display()))
    }
}

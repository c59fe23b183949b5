//! The internal CA's certificates as files: for the edge, which has no database, and for the registry.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use stagely_agent_hub::ca::Ca;
use stagely_api::registry::SigningKey;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_runtime::Settings;
use stagely_store::Store;
use stagely_store::seal::KeyRing;

/// Where they are written.
pub struct Files {
    /// The CA itself.
    pub ca: PathBuf,
    /// The edge's client certificate.
    pub edge_certificate: PathBuf,
    /// The edge's key.
    pub edge_key: PathBuf,
}

/// Writes them anew into `<state_dir>/tls`: `ca.pem`, `edge.{pem,key}`, `registry.{pem,key}` for the registry's
/// own TLS under `names`, and `registry-tokens.pem`, by which it checks tokens.
pub async fn write(settings: &Settings, store: &Store, names: &[String]) -> anyhow::Result<Files> {
    let directory = settings.common.state_dir.join("tls");
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let keys = keyring(settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ca = Ca::load_or_create(store, &keys, Arc::clone(&clock)).await?;
    let edge = ca.issue_client("edge.stagely.internal")?;
    let registry = ca.issue_server(names)?;
    let tokens = SigningKey::ensure(store, &keys, clock.now()).await?;
    let at = |name: &str| directory.join(name);
    put(&at("ca.pem"), ca.pem())?;
    put(&at("edge.pem"), &edge.certificate_pem)?;
    put(&at("edge.key"), edge.key_pem.reveal())?;
    put(&at("registry.pem"), &registry.certificate_pem)?;
    put(&at("registry.key"), registry.key_pem.reveal())?;
    put(&at("registry-tokens.pem"), tokens.root_bundle_pem())?;
    Ok(Files { ca: at("ca.pem"), edge_certificate: at("edge.pem"), edge_key: at("edge.key") })
}

fn keyring(settings: &Settings) -> anyhow::Result<KeyRing> {
    match (&settings.common.encryption_keys, &settings.common.encryption_key) {
        (Some(keys), _) => Ok(KeyRing::several(keys)?),
        (None, Some(key)) => Ok(KeyRing::single(key)?),
        (None, None) => anyhow::bail!("ENCRYPTION_KEY is not set"),
    }
}

/// Replaces a file as a whole; only its owner reads it.
fn put(path: &Path, content: &str) -> anyhow::Result<()> {
    let told = || format!("write {}", path.display());
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).with_context(told)?;
    file.write_all(content.as_bytes()).with_context(told)?;
    fs::rename(&partial, path).with_context(told)
}

//! The internal CA's certificates as files: for the edge, which has no database, and for the registry.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stagely_agent_hub::ca::{self, Ca, Issued};
use stagely_api::registry::SigningKey;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_runtime::Settings;
use stagely_store::Store;
use stagely_store::seal::KeyRing;
use tokio_util::sync::CancellationToken;

/// Where they are written.
pub struct Files {
    /// The CA itself.
    pub ca: PathBuf,
    /// The edge's client certificate.
    pub edge_certificate: PathBuf,
    /// The edge's key.
    pub edge_key: PathBuf,
}

/// Whom machines let in.
const EDGE: &str = "edge.stagely.internal";

/// The registry's names and addresses while it was given no others.
const REGISTRY: [&str; 3] = ["localhost", "127.0.0.1", "10.0.2.2"];

/// How often [`keep`] looks.
const CERT_CHECK: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that a look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sees to the files in `<state_dir>/tls`: `ca.pem`, `edge.{pem,key}`, `registry.{pem,key}` for the registry's own TLS,
/// and `registry-tokens.pem`, by which it checks tokens. A certificate that is missing, is another authority's or has a
/// third of its life left is written anew. The registry's is for `names`; with none, for those that it has.
pub async fn ensure(settings: &Settings, store: &Store, names: &[String]) -> anyhow::Result<Files> {
    let directory = settings.common.state_dir.join("tls");
    let common = &settings.common;
    let keys = KeyRing::configured(common.encryption_keys.as_ref(), common.encryption_key.as_ref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ca = Ca::load_or_create(store, &keys, Arc::clone(&clock)).await?;
    let tokens = SigningKey::ensure(store, &keys, clock.now()).await?;
    let files = put_due(&directory, &ca, names)?;
    put(&directory.join("registry-tokens.pem"), tokens.root_bundle_pem())?;
    Ok(files)
}

/// Sees to them every day until shutdown.
pub async fn keep(settings: Settings, store: Store, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CERT_CHECK) => {}
            () = shutdown.cancelled() => return,
        }
        let seen_to = tokio::time::timeout(PATIENCE, ensure(&settings, &store, &[])).await;
        if let Err(error) = seen_to.map_err(anyhow::Error::from).flatten() {
            tracing::error!(error = format!("{error:#}"), "the certificates were not looked after, tomorrow again");
        }
    }
}

fn put_due(directory: &Path, ca: &Ca, names: &[String]) -> anyhow::Result<Files> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let at = |name: &str| directory.join(name);
    // What cannot be read is as good as missing.
    let known = |name: &str| fs::read_to_string(at(name)).unwrap_or_default();
    let is_ours = known("ca.pem") == ca.pem();
    let is_due = |certificate: &str, key: &str, names: &[String]| {
        !is_ours || !at(key).exists() || ca.is_due(&known(certificate), names)
    };
    let edge = [EDGE.to_owned()];
    if is_due("edge.pem", "edge.key", &edge) {
        put_pair(&at("edge.pem"), &at("edge.key"), &ca.issue_client(EDGE)?)?;
        tracing::info!("wrote the edge's certificate anew");
    }
    let registry = match (names, ca::names(&known("registry.pem"))) {
        ([], kept) if kept.is_empty() => REGISTRY.map(str::to_owned).to_vec(),
        ([], kept) => kept,
        (given, _) => given.to_vec(),
    };
    if is_due("registry.pem", "registry.key", &registry) {
        put_pair(&at("registry.pem"), &at("registry.key"), &ca.issue_server(&registry)?)?;
        tracing::warn!("wrote the registry's certificate anew: a registry that runs must be started again");
    }
    // Last: as long as it is another's, so are they.
    put(&at("ca.pem"), ca.pem())?;
    Ok(Files { ca: at("ca.pem"), edge_certificate: at("edge.pem"), edge_key: at("edge.key") })
}

/// Replaces a certificate and its key. A pair that is left half written has no certificate, and is due.
fn put_pair(certificate: &Path, key: &Path, issued: &Issued) -> anyhow::Result<()> {
    match fs::remove_file(certificate) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", certificate.display()));
        }
        _ => {}
    }
    put(key, issued.key_pem.reveal())?;
    put(certificate, &issued.certificate_pem)
}

/// Replaces a file as a whole, if it says something else; only its owner reads it.
fn put(path: &Path, content: &str) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|known| known == content.as_bytes()) {
        return Ok(());
    }
    let told = || format!("write {}", path.display());
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).with_context(told)?;
    file.write_all(content.as_bytes()).with_context(told)?;
    fs::rename(&partial, path).with_context(told)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use stagely_agent_hub::ca::{self, Ca};
    use stagely_domain::clock::ManualClock;

    use super::put_due;

    const FILES: [&str; 4] = ["edge.pem", "edge.key", "registry.pem", "registry.key"];

    #[test]
    fn what_is_due_is_written_anew_for_the_names_that_the_registry_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let authority = || Ca::ephemeral(Arc::new(clock.clone())).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let (ours, given) = (authority(), ["registry.example.com".to_owned()]);
        let after = |ca: &Ca, names: &[String]| {
            put_due(directory.path(), ca, names).unwrap();
            assert_eq!((read("ca.pem").as_str(), ca::names(&read("registry.pem")).as_slice()), (ca.pem(), &given[..]));
            FILES.map(read)
        };
        let first = after(&ours, &given);
        clock.advance(TimeDelta::days(59));
        assert_eq!(after(&ours, &[]), first);
        clock.advance(TimeDelta::days(1));
        let second = after(&ours, &[]);
        std::fs::remove_file(directory.path().join("edge.key")).unwrap();
        let third = after(&ours, &[]);
        assert!(second[..2].iter().zip(&third).all(|(old, new)| old != new) && second[2..] == third[2..]);
        let fourth = after(&authority(), &[]);
        for (old, new) in [(&first, &second), (&third, &fourth)] {
            assert!(old.iter().zip(new).all(|(old, new)| old != new), "something was not renewed");
        }
    }
}

//! Templates: a machine booted once, up to the point where its agent waits for an identity, and saved.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use stagely_domain::machine::Size;

use crate::qemu::hypervisor::{self, EMULATED_CPU, Start};
use crate::qemu::machine::{Directory, hear, remove_if_there};
use crate::qemu::qmp::Qmp;
use crate::qemu::{Config, accel, seed};
use crate::{CloudError, Result};

/// How long a cold boot may take under software emulation on a busy host.
const BOOT: Duration = Duration::from_secs(420);
const SAVE: Duration = Duration::from_secs(120);

/// The template for a size, if it has been made.
pub(super) fn find(config: &Config, size: Size) -> Option<PathBuf> {
    let path = path(config, size).ok()?;
    path.join("memory").is_file().then_some(path)
}

/// Makes the template for a size unless it is there. A half-made one of a crash is thrown away.
pub(super) async fn ensure(config: &Config, size: Size) -> Result<PathBuf> {
    let done = path(config, size)?;
    retire(config, &done).await?;
    if done.join("memory").is_file() {
        return Ok(done);
    }
    let partial = done.with_extension("partial");
    hypervisor::end(&partial).await?;
    remove_if_there(&partial).await?;
    std::fs::create_dir_all(&partial).map_err(|error| CloudError::io("make a template's directory", &error))?;
    tracing::info!(%size, "making a machine template: one cold boot");
    let made = make(config, size, &partial).await;
    hypervisor::end(&partial).await?;
    if let Err(error) = made {
        remove_if_there(&partial).await?;
        return Err(error);
    }
    for left in ["pid", "qmp.sock", "identity.sock", "keep"] {
        let _ = std::fs::remove_file(partial.join(left));
    }
    std::fs::rename(&partial, &done).map_err(|error| CloudError::io("keep a template", &error))?;
    Ok(done)
}

/// Removes the templates that are for another image or agent and that no machine is a copy of.
async fn retire(config: &Config, current: &Path) -> Result<()> {
    let io = |error: std::io::Error| CloudError::io("look for old templates", &error);
    let key = |path: &Path| path.file_stem()?.to_str()?.rsplit_once('-').map(|(_, key)| key.to_owned());
    let mut used = HashSet::new();
    for entry in std::fs::read_dir(config.state_dir.join("machines")).map_err(io)? {
        let machine = Directory::new(entry.map_err(io)?.path());
        match machine.facts().await {
            // The state directory may have been spelled differently when the machine was made.
            Ok(facts) => used.extend(facts.and_then(|facts| facts.template?.file_name().map(ToOwned::to_owned))),
            Err(error) => {
                let path = machine.path().display();
                tracing::warn!(%error, "{path} may be a copy of any template: none is removed");
                return Ok(());
            }
        }
    }
    for entry in std::fs::read_dir(config.state_dir.join("templates")).map_err(io)? {
        let entry = entry.map_err(io)?;
        if key(&entry.path()) != key(current) && !used.contains(&entry.file_name()) {
            hypervisor::end(&entry.path()).await?;
            remove_if_there(&entry.path()).await?;
        }
    }
    Ok(())
}

async fn make(config: &Config, size: Size, directory: &Path) -> Result<()> {
    hypervisor::overlay(&config.image_dir.join("disk.qcow2"), &directory.join("disk.qcow2")).await?;
    let seed = directory.join("seed.img");
    seed::write(&seed, "stagely-template", &seed::Boot::Template, &config.agent_binary)?;
    let start = Start {
        directory,
        image_dir: &config.image_dir,
        accel: accel::choose(&config.state_dir, &config.image_dir).await,
        emulated_cpu: EMULATED_CPU,
        size,
        seed,
        memory: None,
        port: hypervisor::free_port()?,
        ephemeral: false,
    };
    start.spawn().await?;
    hear(&directory.join("identity.sock"), "ready", BOOT).await?;
    // Let what the boot still writes reach the disk, so that no copy has to do it again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Qmp::connect(&directory.join("qmp.sock")).await?.save(&directory.join("memory"), SAVE).await
}

/// Templates are for one image, agent, processor and size: anything else is another template.
fn path(config: &Config, size: Size) -> Result<PathBuf> {
    let io = |error: std::io::Error| CloudError::io("look at the template's inputs", &error);
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&std::fs::read(&config.agent_binary).map_err(io)?);
    let disk = std::fs::canonicalize(config.image_dir.join("disk.qcow2")).map_err(io)?;
    let facts = std::fs::metadata(&disk).map_err(io)?;
    hash.update(disk.display().to_string().as_bytes());
    hash.update(&facts.len().to_be_bytes());
    if let Ok(modified) = facts.modified() {
        let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        hash.update(&age.as_nanos().to_be_bytes());
    }
    hash.update(EMULATED_CPU.as_bytes());
    let key = hex::encode(&hash.finish().as_ref()[..8]);
    Ok(config.state_dir.join("templates").join(format!("{size}-{key}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::retire;
    use crate::qemu::Config;

    fn left(state: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(state.join("templates")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_template_stays_while_a_machine_is_a_copy_of_it_or_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        for name in ["templates/small-new", "templates/small-used", "templates/large-old", "machines/one"] {
            std::fs::create_dir_all(state.join(name)).unwrap();
        }
        let facts = json!({
            "machine": stagely_domain::id::MachineId::generate(),
            "installation": stagely_domain::id::InstallationId::generate(),
            "environment": null, "size": "small", "port": 1, "identified": true,
            "expires_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
            "template": state.join("../spelled/otherwise/templates/small-used"),
        });
        let config = Config {
            state_dir: state.to_owned(),
            image_dir: state.to_owned(),
            agent_binary: state.to_owned(),
            templates: true,
        };
        let current = state.join("templates/small-new");
        std::fs::write(state.join("machines/one/machine.json"), "half a fi").unwrap();
        retire(&config, &current).await.unwrap();
        assert_eq!(left(state), ["large-old", "small-new", "small-used"]);
        std::fs::write(state.join("machines/one/machine.json"), facts.to_string()).unwrap();
        retire(&config, &current).await.unwrap();
        assert_eq!(left(state), ["small-new", "small-used"]);
    }
}

//! Virtual machines on the user's own metal: QEMU with KVM where the host can run it, software emulation
//! elsewhere.
//!
//! There is no daemon. A machine is a directory (`machine.json`, disk overlay, QMP and identity sockets) and a
//! process that outlives us; the two are the observed truth. When the process ends by itself, a wrapper
//! removes the directory, so a machine that ends itself leaves nothing. A *template* is booted once per image,
//! size and agent, and saved with its memory; a new machine is a copy of it that gets its identity through a
//! virtio-serial port after it was restored.

mod accel;
mod hypervisor;
mod machine;
mod qmp;
mod seed;
mod template;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};
use tokio::sync::Mutex;

use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Cloud, CloudError, CreateRequest, Created, DeleteProgress,
    ErrorKind, Listing, ProviderId, Result, SleepProgress, Vm, user_data,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use accel::choose as acceleration;
use machine::Directory;

/// A seed disk would take more; what no other cloud takes is refused here too.
const USER_DATA_MAX: usize = 16 * 1024;

/// Where the provider keeps things and what it starts machines from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything it owns: `machines/`, `templates/`, `locks/`, `trash/`.
    pub state_dir: PathBuf,
    /// `disk.qcow2`, `vmlinuz`, `initrd`, made by `deploy/image/build.sh`.
    pub image_dir: PathBuf,
    /// The agent's static program.
    pub agent_binary: PathBuf,
    /// Whether new machines are copies of a template where there is one.
    pub templates: bool,
}

/// The provider.
pub struct Qemu {
    config: Config,
    clock: Arc<dyn Clock>,
    // One template is made at a time: making one takes the host's whole attention.
    preparing: Mutex<()>,
}

impl Qemu {
    /// A provider over `config.state_dir`, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        for directory in ["locks", "machines", "templates", "trash"] {
            std::fs::create_dir_all(config.state_dir.join(directory))
                .map_err(|error| CloudError::io("make the state directory", &error))?;
        }
        let qemu = Self { config, clock, preparing: Mutex::new(()) };
        qemu.empty_trash();
        Ok(qemu)
    }

    /// Removes what a process that was killed had begun to remove. Another one may be at the same.
    fn empty_trash(&self) {
        let entries = std::fs::read_dir(self.config.state_dir.join("trash"));
        for grave in entries.into_iter().flatten().flatten() {
            if let Err(error) = std::fs::remove_dir_all(grave.path())
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "a removed machine's directory is left in the trash");
            }
        }
    }

    /// Whether machines of this size are copies of a template by now.
    #[must_use]
    pub fn is_prepared(&self, size: Size) -> bool {
        template::find(&self.config, size).is_some()
    }

    fn machine(&self, id: MachineId) -> Directory {
        Directory::new(self.config.state_dir.join("machines").join(id.label()))
    }

    fn by_provider_id(&self, id: &ProviderId) -> Result<Directory> {
        // Our provider ids are machine labels; anything else never becomes a path.
        let machine: MachineId = id
            .0
            .parse()
            .map_err(|_| CloudError::new(ErrorKind::Invalid, "find a machine", "not a machine id of this provider"))?;
        Ok(self.machine(machine))
    }

    async fn check_image(&self) -> Result<()> {
        for file in ["disk.qcow2", "vmlinuz", "initrd"] {
            if !self.config.image_dir.join(file).is_file() {
                let message = format!("{} lacks {file}: run `cargo xtask image`", self.config.image_dir.display());
                return Err(CloudError::new(ErrorKind::Invalid, "look for the machine image", message));
            }
        }
        Ok(())
    }

    fn directories(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.config.state_dir.join("machines"))
            .map_err(|error| CloudError::io("list machines", &error))?;
        Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
    }
}

#[async_trait]
impl Cloud for Qemu {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: true,
            arches: &[Arch::Amd64],
            bake: false,
            user_data_max: USER_DATA_MAX,
        }
    }

    async fn check_access(&self) -> Result<()> {
        self.check_image().await?;
        hypervisor::check_installed().await
    }

    async fn prepare(&self, size: Size, arch: Arch) -> Result<()> {
        supported(arch)?;
        self.check_image().await?;
        let _one = self.preparing.lock().await;
        template::ensure(&self.config, size).await.map(drop)
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        supported(request.arch)?;
        user_data::render(request, USER_DATA_MAX)?;
        self.check_image().await?;
        let directory = self.machine(request.machine);
        let _held = directory.lock().await?;
        if let Some(vm) = directory.inspect().await? {
            if vm.installation != request.installation {
                return Err(CloudError::new(ErrorKind::Exists, "create a machine", "another installation has this id"));
            }
            if let Some(created) = directory.adopt(&request.config).await? {
                return Ok(created);
            }
        }
        directory.create(&self.config, request, self.clock.now()).await
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        Ok(self.machine(machine).inspect().await?.into_iter().collect())
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        let mut listing = Listing { vms: Vec::new(), complete: true };
        for path in self.directories()? {
            match Directory::new(path).inspect().await {
                Ok(Some(vm)) if vm.installation == installation => listing.vms.push(vm),
                Ok(_) => {}
                Err(_) => listing.complete = false,
            }
        }
        Ok(listing)
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        let directory = self.by_provider_id(id)?;
        let _held = directory.lock().await?;
        directory.remove(&self.config.state_dir.join("trash")).await?;
        Ok(DeleteProgress::Gone)
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        let directory = self.by_provider_id(id)?;
        let _held = directory.lock().await?;
        directory.hibernate().await?;
        Ok(SleepProgress::Asleep)
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        let directory = self.by_provider_id(id)?;
        let _held = directory.lock().await?;
        directory.wake(&self.config, self.clock.now()).await
    }

    async fn capture(&self, _: &CaptureRequest) -> Result<CaptureProgress> {
        let message = "its machines are copies of a template, which it makes by itself";
        Err(CloudError::new(ErrorKind::Unsupported, "make an image of a machine", message))
    }

    async fn console_tail(&self, id: &ProviderId) -> Result<Option<String>> {
        let path = self.by_provider_id(id)?.path().join("console.log");
        Ok(tail(&path).await)
    }
}

fn supported(arch: Arch) -> Result<()> {
    if arch == Arch::Amd64 {
        return Ok(());
    }
    let message = "this host runs amd64 machines; arm64 is offered by aws and hetzner";
    Err(CloudError::new(ErrorKind::Unsupported, "create a machine", message))
}

/// The last 8 KiB of a file, as text.
async fn tail(path: &Path) -> Option<String> {
    let bytes = tokio::fs::read(path).await.ok()?;
    let start = bytes.len().saturating_sub(8 * 1024);
    Some(String::from_utf8_lossy(&bytes[start..]).into_owned())
}

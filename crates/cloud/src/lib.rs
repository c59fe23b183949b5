//! Clouds: one trait with one call each, and its providers. Everything that decides (which offering, adopt or
//! retry, deadlines, budget) lives above, in the orchestrator. A provider is trusted with nothing it cannot
//! show again: the machine id is its idempotency token, name and tag, and what it lists is what exists.

mod error;
pub mod qemu;
mod request;
mod vm;

#[cfg(feature = "testing")]
pub mod contract;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{CloudError, ErrorKind};
pub use request::{AgentConfig, AgentDownload, Capabilities, CreateRequest};
pub use vm::{Created, DeleteProgress, Listing, ProviderId, Vm, VmState};

use async_trait::async_trait;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};

/// A result of a provider call.
pub type Result<T> = std::result::Result<T, CloudError>;

/// One account at one provider. Every call may be made twice, and may have taken effect although it failed.
#[async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// What this provider can do.
    fn capabilities(&self) -> Capabilities;

    /// Whether the credentials work and suffice.
    async fn check_access(&self) -> Result<()>;

    /// Makes machines of this kind quick to create (a template, a warm image). May take minutes; safe to repeat.
    async fn prepare(&self, size: Size, arch: Arch) -> Result<()>;

    /// Creates the machine, or finds that it was created before. Does not wait for it to boot.
    async fn create(&self, request: &CreateRequest) -> Result<Created>;

    /// Every machine that carries this id: none, one, or twins where a provider allows them.
    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>>;

    /// Every machine of the installation.
    async fn list(&self, installation: InstallationId) -> Result<Listing>;

    /// Removes a machine with all that it owns. One that is absent is gone.
    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress>;

    /// Puts its memory on disk and stops it.
    async fn hibernate(&self, id: &ProviderId) -> Result<()>;

    /// Brings it back from hibernation; its address may be another.
    async fn wake(&self, id: &ProviderId) -> Result<Vm>;

    /// The end of its console, where the provider has one.
    async fn console_tail(&self, id: &ProviderId) -> Result<Option<String>>;
}

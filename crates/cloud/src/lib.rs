//! Clouds: one trait with one call each, and its providers. Everything that decides (which offering, adopt or
//! retry, deadlines, budget) lives above, in the orchestrator. A provider is trusted with nothing it cannot
//! show again: the machine id is its idempotency token, name and tag, and what it lists is what exists.

pub mod account;
pub mod aws;
pub mod catalogue;
pub mod contract;
pub mod digitalocean;
mod error;
pub mod hetzner;
pub mod qemu;
mod request;
mod residue;
mod rest;
mod user_data;
mod vm;

#[cfg(feature = "testing")]
pub mod testing;

pub use catalogue::{Catalogue, Offering, Price};
pub use error::{CloudError, ErrorKind};
pub use request::{
    AgentConfig, AgentDownload, Bake, Capabilities, CaptureProgress, CaptureRequest, CreateRequest, Image,
};
pub use residue::{Residue, ResidueKind, Residues};
pub use user_data::BAKE_DEADLINE;
pub use vm::{Created, DeleteProgress, Listing, ProviderId, SleepProgress, Vm, VmState};

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::TimeDelta;
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

    /// What machines can be had. Empty where size and architecture say all, as on one's own metal.
    async fn catalogue(&self) -> Result<Vec<Offering>> {
        Ok(Vec::new())
    }

    /// The catalogue of every part of the account that can be read, with what is missing from it.
    async fn readable_catalogue(&self) -> Result<Catalogue> {
        Ok(Catalogue { offerings: self.catalogue().await?, ..Catalogue::default() })
    }

    /// Creates the machine, or finds that it was created before. Does not wait for it to boot.
    async fn create(&self, request: &CreateRequest) -> Result<Created>;

    /// Every machine that carries this id: none, one, or twins where a provider allows them.
    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>>;

    /// Like [`find`](Self::find), before a removal: from the requests that are kept for deletes, where a provider counts
    /// them, and only while there are enough for the removal and the look after it.
    async fn find_to_remove(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.find(machine).await
    }

    /// Like [`find_to_remove`](Self::find_to_remove), after the removal: whether anything is left.
    async fn find_removed(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.find(machine).await
    }

    /// Every machine of the installation.
    async fn list(&self, installation: InstallationId) -> Result<Listing>;

    /// Every installation that has machines here, with how many, as far as their tags say.
    async fn installations(&self) -> Result<BTreeMap<InstallationId, usize>> {
        Ok(BTreeMap::new())
    }

    /// How far this host's clock is ahead of the provider's, where an answer has told. A provider that refuses requests of
    /// another time than its own tells nothing.
    fn clock_ahead(&self) -> Option<TimeDelta> {
        None
    }

    /// Removes a machine with all that it owns. One that is absent is gone; one that a person holds, or of which a person
    /// holds a part, stays, whoever looked before.
    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress>;

    /// Puts it to sleep in the way that stops the bill: memory on disk, stopped, or a snapshot and no machine. Called
    /// again until it sleeps; what sleeps is still found and listed, perhaps under another id.
    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress>;

    /// Brings it back from hibernation; its address may be another.
    async fn wake(&self, id: &ProviderId) -> Result<Vm>;

    /// Makes an image of a machine that was made to [`Bake`] and has powered itself off, or finds the one that was made
    /// before; refuses when somebody else has stopped the machine. Called again until it is ready. It outlives its machine
    /// and is removed as what it is: every [`Residue`] with its [`Residue::image`].
    async fn capture(&self, _request: &CaptureRequest) -> Result<CaptureProgress> {
        Err(CloudError::new(ErrorKind::Unsupported, "make an image of a machine", "this provider makes none"))
    }

    /// Makes the firewalls that the installation has here as the settings say, with `port` as the agents': those whose rules
    /// somebody has changed, and those that were made by other settings. Makes none that is not there.
    async fn protect(&self, _installation: InstallationId, _port: u16) -> Result<()> {
        Ok(())
    }

    /// Everything else of the installation that costs money or quota. Empty for a provider whose machines own nothing
    /// beside themselves.
    async fn list_residue(&self, _installation: InstallationId) -> Result<Residues> {
        Ok(Residues { items: Vec::new(), complete: true })
    }

    /// Removes one of them. What is absent is gone.
    async fn delete_residue(&self, _residue: &Residue) -> Result<DeleteProgress> {
        Ok(DeleteProgress::Gone)
    }

    /// The end of its console, where the provider has one.
    async fn console_tail(&self, id: &ProviderId) -> Result<Option<String>>;
}

//! The reconcilers one by one, with a cloud and a git host of a test's own.

use std::sync::Arc;

use stagely_cloud::Cloud;
use stagely_domain::id::{ImageId, TeamId};
use stagely_forge::Forge;
use stagely_reconcile::StepError;
use stagely_runtime::Kit;
use stagely_store::Store;
use stagely_store::images::NewImage;
use stagely_store::tenants::CloudAccount;

pub use crate::clouds::{Known, Seen};
use crate::config::Config;
use crate::context::Context;
pub use crate::feeds::Scan;
pub use crate::images::Refused;
pub use crate::reconcile::environment::Environments;
pub use crate::reconcile::image::Images;
pub use crate::reconcile::inbox::Inbox;
pub use crate::reconcile::machine::Machines;
pub use crate::reconcile::post::Posts;
pub use crate::reconcile::route::Routes;
pub use crate::reconcile::sweep::{Findings, Sweeps};
use crate::{feeds, images, service};

/// What a process of the orchestrator holds.
pub struct Reconcilers(Arc<Context>);

impl Reconcilers {
    /// Connects as the service does; nothing runs yet.
    ///
    /// # Errors
    /// As the service's own start.
    pub async fn open(config: Config, kit: &Kit, cloud: Arc<dyn Cloud>, forge: Arc<dyn Forge>) -> anyhow::Result<Self> {
        service::open(config, kit, cloud, forge).await.map(Self)
    }

    /// Takes commands by gRPC, as the service does, until the kit's shutdown.
    ///
    /// # Errors
    /// The transport's error.
    pub async fn serve(&self, kit: &Kit) -> anyhow::Result<()> {
        service::serve(&self.0, kit).await
    }

    /// The database, by this process's own connections.
    #[must_use]
    pub fn store(&self) -> Store {
        self.0.store.clone()
    }

    /// What a start wakes.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wake_all(&self) -> Result<(), StepError> {
        feeds::wake_all(&self.0).await
    }

    /// A scan of open pull requests that remembers nothing yet.
    #[must_use]
    pub fn scan(&self) -> Scan {
        Scan::new(Arc::clone(&self.0))
    }

    /// Of environments.
    #[must_use]
    pub fn environments(&self) -> Environments {
        service::environments(&self.0)
    }

    /// What a member asks for: an image to be.
    ///
    /// # Errors
    /// As the command's.
    pub async fn bake_image(&self, new: &NewImage) -> Result<(), Refused> {
        images::bake(&self.0, new).await
    }

    /// What a member asks for: an image that is not to be any more.
    ///
    /// # Errors
    /// As the command's.
    pub async fn drop_image(&self, team: TeamId, id: ImageId) -> Result<(), Refused> {
        images::drop(&self.0, team, id).await
    }

    /// What is asked before an account is changed: whether it works, and whether its provider shows one of these.
    ///
    /// # Errors
    /// As the command's.
    pub async fn verify_account(&self, row: &CloudAccount, known: &Known) -> Result<Seen, StepError> {
        self.0.clouds.verify(row, known).await
    }

    /// Of images.
    #[must_use]
    pub fn images(&self) -> Images {
        Images(self.0.clone())
    }

    /// Of deliveries.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.0))
    }

    /// Of machines.
    #[must_use]
    pub fn machines(&self) -> Machines {
        Machines(self.0.clone())
    }

    /// Of posts.
    #[must_use]
    pub fn posts(&self) -> Posts {
        Posts(Arc::clone(&self.0))
    }

    /// Of routes.
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes(Arc::clone(&self.0))
    }

    /// Of cloud accounts.
    #[must_use]
    pub fn sweeps(&self) -> Sweeps {
        service::sweeps(&self.0)
    }
}

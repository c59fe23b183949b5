//! What every reconciler holds.

use std::sync::Arc;
use std::time::Duration;

use stagely_cache::Cache;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, ProjectId};
use stagely_domain::secret::Secret;
use stagely_forge::{Forge, Repo};
use stagely_proto::hub::hub_client::HubClient;
use stagely_reconcile::{ErrorClass, StepError};
use stagely_runtime::config::PreviewUrl;
use stagely_runtime::grpc::Channel;
use stagely_runtime::registry_credential::{Access, Claims, Minter};
use stagely_store::{Scope, Store, StoreError};

use crate::clouds::Clouds;
use crate::config::Config;

/// Clients, configuration and the time.
pub struct Context {
    pub store: Store,
    pub cache: Cache,
    pub forge: Arc<dyn Forge>,
    pub clouds: Clouds,
    pub hub: HubClient<Channel>,
    pub clock: Arc<dyn Clock>,
    pub config: Config,
    pub installation: InstallationId,
    pub preview_domain: String,
    pub preview_url: PreviewUrl,
    pub registry_ca_pem: String,
    pub minter: Minter,
    pub http: reqwest::Client,
}

impl Context {
    /// A password with which machines of a project use the registry for twelve hours.
    pub fn registry_password(&self, project: ProjectId, access: Access) -> (String, Secret) {
        let expires_at = self.clock.now() + chrono::TimeDelta::hours(12);
        let claims = Claims { project, holder: "machine".to_owned(), access, expires_at };
        (Minter::username(&claims), self.minter.mint(&claims))
    }

    /// The repository of a project.
    pub async fn repo(&self, project: ProjectId) -> Result<Repo, StepError> {
        let project = self
            .store
            .get_project(&Scope::system("reconcile"), project)
            .await
            .map_err(store_error("read a project"))?;
        project.repo.parse().map_err(|error| StepError::new(ErrorClass::Permanent, "read a project", error))
    }
}

/// What a failure of the store means for a step.
pub fn store_error(doing: &'static str) -> impl FnOnce(StoreError) -> StepError {
    move |error| error.into_step_error(doing)
}

/// What a refusal of the git host means for a step.
pub fn forge_error(doing: &'static str) -> impl FnOnce(stagely_forge::ForgeError) -> StepError {
    use stagely_forge::ErrorKind;
    move |error| {
        let class = match error.kind {
            ErrorKind::RateLimited { retry_after } => ErrorClass::RateLimited { retry_after },
            ErrorKind::Invalid => ErrorClass::Permanent,
            _ => ErrorClass::Transient,
        };
        of_others(class, doing, error)
    }
}

/// What a refusal of a cloud means for a step.
pub fn cloud_error(doing: &'static str) -> impl FnOnce(stagely_cloud::CloudError) -> StepError {
    use stagely_cloud::ErrorKind;
    move |error| {
        let class = match error.kind {
            ErrorKind::RateLimited { retry_after } => {
                ErrorClass::RateLimited { retry_after: retry_after.unwrap_or(Duration::from_secs(30)) }
            }
            _ => ErrorClass::Transient,
        };
        of_others(class, doing, error)
    }
}

/// What a refusal of another service means for a step.
pub fn rpc_error(doing: &'static str) -> impl FnOnce(tonic::Status) -> StepError {
    move |status| of_others(ErrorClass::Transient, doing, format!("{:?}: {}", status.code(), status.message()))
}

/// An outage ends without waking the rows that it stopped, so it parks none, however long it takes.
fn of_others(
    class: ErrorClass,
    doing: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StepError {
    let error = StepError::new(class, doing, error);
    if class == ErrorClass::Transient { error.never_parks() } else { error }
}

#[cfg(test)]
mod tests {
    use stagely_cloud::{CloudError, ErrorKind as Cloud};
    use stagely_forge::{ErrorKind as Forge, ForgeError};

    use super::{cloud_error, forge_error, rpc_error};

    #[test]
    fn an_outage_of_others_parks_nothing_and_what_is_wrong_for_good_does() {
        let told = |kind| forge_error("test")(ForgeError { kind, doing: "test", message: String::new() }).may_park;
        assert!(!told(Forge::Unavailable) && !told(Forge::Auth) && told(Forge::Invalid));
        for kind in [Cloud::Auth, Cloud::Unavailable, Cloud::Capacity] {
            assert!(!cloud_error("test")(CloudError::new(kind, "test", "no")).may_park, "{kind:?}");
        }
        assert!(!rpc_error("test")(tonic::Status::unavailable("no")).may_park);
    }
}

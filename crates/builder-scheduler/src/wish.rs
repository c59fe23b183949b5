//! The wish that a builder is sent: its builds, with fresh credentials.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::id::{MachineId, ProjectId};
use stagely_proto::agent::desired::Spec;
use stagely_proto::agent::{Build, Builder, Checkout, Desired, RegistryAccess};
use stagely_proto::hub::SetDesiredRequest;
use stagely_proto::orchestrator::CloneAccessRequest;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_reconcile::StepError;
use stagely_runtime::grpc::Channel;
use stagely_runtime::registry_credential::{Access, Claims, Minter};
use stagely_store::builds::BuildJob;

use crate::fleet::refused;

/// How long a builder may push with one wish.
const REGISTRY_ACCESS_HOURS: i64 = 6;

/// What every wish needs besides the jobs.
pub struct Wishes {
    pub(crate) orchestrator: OrchestratorClient<Channel>,
    pub(crate) minter: Minter,
    pub(crate) registry_host: String,
    pub(crate) registry_ca: String,
    pub(crate) mirror_url: String,
}

impl Wishes {
    /// The wish for `machine` to have these builds and no others. The git host is asked only when there are any.
    pub(crate) async fn builder(
        &self,
        project: ProjectId,
        machine: MachineId,
        generation: u64,
        jobs: &[&BuildJob],
        now: DateTime<Utc>,
    ) -> Result<SetDesiredRequest, StepError> {
        let access = if jobs.is_empty() {
            Checkout::default()
        } else {
            let request = CloneAccessRequest { project_id: project.to_string() };
            let answer = self.orchestrator.clone().clone_access(request).await;
            let access = answer.map_err(|status| refused("get access to the repository", status))?.into_inner();
            Checkout { url: access.url, username: access.username, token: access.token, sha: String::new() }
        };
        let claims = Claims {
            project,
            holder: machine.to_string(),
            access: Access::Push,
            expires_at: now + TimeDelta::hours(REGISTRY_ACCESS_HOURS),
        };
        let registry = RegistryAccess {
            host: self.registry_host.clone(),
            username: Minter::username(&claims),
            password: self.minter.mint(&claims).reveal().to_owned(),
            ca_pem: self.registry_ca.clone(),
            mirror_url: self.mirror_url.clone(),
        };
        let builds = jobs.iter().map(|job| self.build(job, &access)).collect();
        let spec = Spec::Builder(Builder { registry: Some(registry), builds });
        Ok(SetDesiredRequest {
            machine_id: machine.to_string(),
            desired: Some(Desired { generation, spec: Some(spec) }),
        })
    }

    fn build(&self, job: &BuildJob, access: &Checkout) -> Build {
        Build {
            job_id: job.id.to_string(),
            checkout: Some(Checkout { sha: job.spec.sha.clone(), ..access.clone() }),
            context: job.spec.context.clone(),
            dockerfile: job.spec.dockerfile.clone(),
            stage: job.spec.stage.clone(),
            args: job.spec.args.clone().into_iter().collect(),
            platform: job.platform.as_str().to_owned(),
            image: format!("{}/{}", self.registry_host, job.spec.image),
            timeout_secs: job.spec.timeout_secs,
            ..Build::default()
        }
    }
}

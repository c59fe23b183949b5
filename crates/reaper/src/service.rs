//! The loop and its gRPC port.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use stagely_domain::clock::Clock;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_proto::orchestrator::{EnvironmentRequest, ExpireRequest};
use stagely_proto::reaper::reaper_server::{Reaper as Api, ReaperServer};
use stagely_proto::reaper::{RunNowRequest, RunNowResponse};
use stagely_runtime::config::Peer;
use stagely_runtime::grpc::Channel;
use stagely_runtime::{Kit, Service};
use stagely_store::environments::Environment;
use stagely_store::{Scope, Store, StoreError};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::decide::{Verdict, decide};

/// The table `[reaper]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often everything is looked at.
    pub every_secs: u64,
    /// Connections to the database.
    pub database_connections: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { every_secs: 10, database_connections: 4 }
    }
}

/// The service.
pub struct Reaper {
    round: Arc<Round>,
    every: Duration,
}

/// One look at everything.
struct Round {
    store: Store,
    orchestrator: OrchestratorClient<Channel>,
    clock: Arc<dyn Clock>,
}

impl Service for Reaper {
    const PEER: Peer = Peer::Reaper;
    type Config = Config;

    async fn build(config: Config, kit: &Kit) -> anyhow::Result<Self> {
        let round = Arc::new(Round {
            store: Store::connect(kit.settings.database_url()?.reveal(), config.database_connections).await?,
            orchestrator: OrchestratorClient::new(kit.connect(Peer::Orchestrator)?),
            clock: Arc::clone(&kit.clock),
        });
        kit.serve_grpc(Routes::new(ReaperServer::new(Server(Arc::clone(&round))))).await?;
        kit.health.set_ready(true);
        Ok(Self { round, every: Duration::from_secs(config.every_secs.max(1)) })
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if let Err(error) = self.round.run().await {
                tracing::warn!(%error, "the reaper could not look at the environments");
            }
        }
    }
}

impl Round {
    /// Decides about every environment; the number of commands given. One that fails does not stop the others.
    async fn run(&self) -> Result<u32, StoreError> {
        let scope = Scope::system("reap");
        self.store.ensure_partitions().await?;
        let mut given = 0;
        for env in self.store.list_live_environments(&scope).await? {
            let exists = match self.store.get_project(&scope, env.project).await {
                Ok(_) => true,
                Err(StoreError::NotFound(_)) => false,
                Err(error) => return Err(error),
            };
            let Some(verdict) = decide(&env, exists, self.clock.now()) else { continue };
            match self.command(&env, verdict).await {
                Ok(()) => {
                    given += 1;
                    tracing::info!(env.id = %env.id, ?verdict, "{}: {verdict:?}", env.id);
                }
                Err(status) => tracing::warn!(env.id = %env.id, code = ?status.code(), "{} was not told", env.id),
            }
        }
        Ok(given)
    }

    async fn command(&self, env: &Environment, verdict: Verdict) -> Result<(), Status> {
        let mut orchestrator = self.orchestrator.clone();
        match verdict {
            Verdict::Expire(reason) => {
                let generation = u64::try_from(env.generation).unwrap_or(0);
                let request =
                    ExpireRequest { environment_id: env.id.to_string(), generation, reason: reason.to_owned() };
                orchestrator.expire(request).await.map(drop)
            }
            Verdict::Sleep => {
                let request = EnvironmentRequest { environment_id: env.id.to_string(), team_id: env.team.to_string() };
                orchestrator.sleep(request).await.map(drop)
            }
        }
    }
}

struct Server(Arc<Round>);

#[tonic::async_trait]
impl Api for Server {
    async fn run_now(&self, _: Request<RunNowRequest>) -> Result<Response<RunNowResponse>, Status> {
        let decided = self.0.run().await.map_err(|error| {
            tracing::warn!(%error, "the reaper could not look at the environments");
            Status::unavailable("the database does not answer")
        })?;
        Ok(Response::new(RunNowResponse { decided }))
    }
}

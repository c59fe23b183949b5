//! The loop and its gRPC port.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use stagely_domain::clock::Clock;
use stagely_domain::error_chain::chain;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_proto::orchestrator::{ExpireRequest, Sighting, SleepRequest};
use stagely_proto::reaper::reaper_server::{Reaper as Api, ReaperServer};
use stagely_proto::reaper::{RunNowRequest, RunNowResponse};
use stagely_runtime::config::Peer;
use stagely_runtime::grpc::Channel;
use stagely_runtime::{Kit, Service};
use stagely_store::environments::Environment;
use stagely_store::{Scope, Store, StoreError};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

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
                tracing::warn!(error = %chain(&error), "the reaper could not look at the environments");
            }
        }
    }
}

impl Round {
    /// Decides about every environment; the number of commands that took effect. One that fails does not stop the others.
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
                Ok(true) => {
                    given += 1;
                    tracing::info!(env.id = %env.id, ?verdict, "{}: {verdict:?}", env.id);
                }
                Ok(false) => tracing::debug!(env.id = %env.id, ?verdict, "{} changed meanwhile", env.id),
                Err(status) => tracing::warn!(env.id = %env.id, code = ?status.code(), "{} was not told", env.id),
            }
        }
        Ok(given)
    }

    /// Whether it took effect: what changed since `env` was read wins.
    async fn command(&self, env: &Environment, verdict: Verdict) -> Result<bool, Status> {
        match verdict {
            Verdict::Abandon => self.expire(env, "the project was deleted", None).await,
            Verdict::Expire => self.expire(env, "its time to live is over", Some(env.expires_at)).await,
            Verdict::Sleep => self.sleep(env).await,
        }
    }

    async fn expire(&self, env: &Environment, reason: &str, end: Option<DateTime<Utc>>) -> Result<bool, Status> {
        let request = ExpireRequest {
            environment_id: env.id.to_string(),
            generation: env.generation.unsigned_abs(),
            reason: reason.to_owned(),
            expires_at_unix_micros: end.map(|end| end.timestamp_micros()),
        };
        Ok(self.orchestrator.clone().expire(request).await?.into_inner().applied)
    }

    async fn sleep(&self, env: &Environment) -> Result<bool, Status> {
        let seen = Sighting {
            generation: env.generation.unsigned_abs(),
            last_activity_at_unix_micros: env.last_activity_at.timestamp_micros(),
        };
        let (environment_id, team_id) = (env.id.to_string(), env.team.to_string());
        let request = SleepRequest { environment_id, team_id, seen: Some(seen) };
        match self.orchestrator.clone().sleep(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::Aborted => Ok(false),
            Err(status) => Err(status),
        }
    }
}

struct Server(Arc<Round>);

#[tonic::async_trait]
impl Api for Server {
    async fn run_now(&self, _: Request<RunNowRequest>) -> Result<Response<RunNowResponse>, Status> {
        let decided = self.0.run().await.map_err(|error| {
            tracing::warn!(error = %chain(&error), "the reaper could not look at the environments");
            Status::unavailable("the database does not answer")
        })?;
        Ok(Response::new(RunNowResponse { decided }))
    }
}

//! The builder-scheduler: gives every build job a builder, copies what builders report into the jobs, and gives
//! builders up when they are idle.
//!
//! It owns the state of `build_jobs` and nothing else: machines are asked of the orchestrator, wishes go through
//! the agent hub, and whoever waits for a build is woken. A builder works for one project only.

pub mod config;
mod fleet;
mod grpc;
pub mod plan;
pub mod registry;
mod wish;

pub use config::Config;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagely_domain::error_chain::chain;
use stagely_domain::id::ProjectId;
use stagely_proto::builder::builder_server::BuilderServer;
use stagely_proto::hub::hub_client::HubClient;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_reconcile::{Options, WorkStore, Worker};
use stagely_runtime::registry_credential::Minter;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::work::{PgWork, kind};
use stagely_store::{Store, StoreError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::fleet::{Fleet, Limits, Memory};
use crate::registry::RegistryClient;
use crate::wish::Wishes;

/// How often every fleet is looked at, whatever was or was not woken.
const NET: Duration = Duration::from_secs(30);

/// The service.
pub struct BuilderScheduler {
    store: Store,
    fleet: Fleet,
}

impl Service for BuilderScheduler {
    const PEER: Peer = Peer::BuilderScheduler;
    type Config = Config;

    async fn build(config: Config, kit: &Kit) -> anyhow::Result<Self> {
        config.check()?;
        let store = Store::connect(kit.settings.database_url()?.reveal(), config.database_connections).await?;
        let minter = Minter::from_common(&kit.settings.common)?;
        let registry_ca = config.registry_ca()?;
        let registry = match &config.registry_api_url {
            Some(url) => Some(RegistryClient::new(url, &registry_ca, minter.clone())?),
            None => None,
        };
        let orchestrator = OrchestratorClient::new(kit.connect(Peer::Orchestrator)?);
        let fleet = Fleet {
            store: store.clone(),
            clock: Arc::clone(&kit.clock),
            orchestrator: orchestrator.clone(),
            hub: HubClient::new(kit.connect(Peer::AgentHub)?),
            wishes: Wishes {
                orchestrator,
                minter,
                registry_host: config.registry_host,
                registry_ca,
                mirror_url: config.mirror_url.unwrap_or_default(),
            },
            registry,
            limits: Limits {
                builds_per_builder: config.builds_per_builder as usize,
                max_builders: config.max_builders_per_project as usize,
                idle: TimeDelta::seconds(i64::from(config.idle_builder_secs)),
            },
            memory: Memory::default(),
        };
        kit.serve_grpc(Routes::new(BuilderServer::new(grpc::Server(store.clone())))).await?;
        kit.health.set_ready(true);
        Ok(Self { store, fleet })
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        let work = PgWork::new(self.store.clone());
        tasks.spawn(Arc::clone(&work).listen(shutdown.clone()));
        tasks.spawn(wake_all(self.store, shutdown.clone()));
        let owner = format!("builder-scheduler-{}", uuid::Uuid::now_v7().simple());
        let queue: Arc<dyn WorkStore> = work;
        Worker::new(self.fleet, queue, Options::new(owner)).run(shutdown).await;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// The net below lost wake-ups: at the start and every half minute.
async fn wake_all(store: Store, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(NET);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = wake_fleets(&store).await {
            tracing::warn!(error = %chain(&error), "fleets could not be woken");
        }
    }
}

async fn wake_fleets(store: &Store) -> Result<(), StoreError> {
    let mut projects: BTreeSet<ProjectId> = store.list_building_projects().await?.into_iter().collect();
    projects.extend(store.list_left_images(None).await?.iter().map(|left| left.project));
    for project in projects {
        let tx = store.begin().await?;
        tx.wake(kind::FLEET, project.uuid()).await?;
        tx.commit().await?;
    }
    Ok(())
}

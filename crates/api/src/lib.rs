//! The API: REST under `/api/v1`, webhook intake, registry tokens, agent downloads.
//!
//! It owns API tokens and audit lines, inserts webhook deliveries and reads what people want to see.
//! Commands that change an environment go to the orchestrator by gRPC; nothing here decides about one.
//! Every route stands in one table ([`router::operations`]), from which the router, the OpenAPI document and
//! the permission tests are made.

pub mod agent_binaries;
pub mod auth;
pub mod config;
pub mod error;
pub mod extract;
pub mod json;
pub mod openapi;
pub mod operation;
pub mod registry;
pub mod router;
pub mod routes;
pub mod timeline;
pub mod tokens;
pub mod webhooks;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stagely_domain::clock::Clock;
use stagely_domain::secret::Secret;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_runtime::config::PreviewUrl;
use stagely_runtime::grpc::Channel;
use stagely_runtime::registry_credential::Minter;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::Store;
use stagely_store::seal::KeyRing;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// How long answers under way may take after shutdown.
const DRAIN: Duration = Duration::from_secs(8);

/// What every handler may use. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The inside of [`App`].
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals credentials before they are stored.
    pub keys: KeyRing,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where commands go.
    pub orchestrator: OrchestratorClient<Channel>,
    /// How preview URLs are written.
    pub preview_url: PreviewUrl,
    /// How others reach this service.
    pub public_url: String,
    /// The webhook secrets that are valid now.
    pub webhook_secrets: Vec<Secret>,
    /// The longest webhook body.
    pub max_webhook_bytes: usize,
    /// What registry tokens are made with.
    pub registry: Registry,
    /// What machines download.
    pub agents: agent_binaries::AgentBinaries,
    /// Cancelled when the process stops: live streams end.
    pub shutdown: CancellationToken,
}

/// What registry tokens are made with.
pub struct Registry {
    /// The `[api.registry]` table.
    pub config: config::Registry,
    /// Checks credentials.
    pub minter: Minter,
    /// Signs tokens.
    pub key: registry::SigningKey,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The service.
pub struct Api {
    app: App,
    listener: TcpListener,
    health: stagely_runtime::admin::Health,
}

impl Api {
    /// Where it listens.
    ///
    /// # Errors
    /// The socket's error.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Service for Api {
    const PEER: Peer = Peer::Api;
    type Config = Config;

    async fn build(config: Config, kit: &Kit) -> anyhow::Result<Self> {
        let common = &kit.settings.common;
        let store = Store::connect(kit.settings.database_url()?.reveal(), config.database_connections).await?;
        let keys = KeyRing::configured(common.encryption_keys.as_ref(), common.encryption_key.as_ref())?;
        let key = registry::SigningKey::ensure(&store, &keys, kit.clock.now()).await.context("registry signing key")?;
        let agents = agent_binaries::AgentBinaries::read(&config.agent_binaries).await?;
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("bind {} for the API", config.listen))?;
        if config.github_webhook_secrets.is_empty() {
            tracing::warn!("api.github_webhook_secrets is empty: every webhook will be refused");
        }
        let app = App(Arc::new(Parts {
            store,
            keys,
            clock: kit.clock.clone(),
            orchestrator: OrchestratorClient::new(kit.connect(Peer::Orchestrator)?),
            preview_url: common.preview_url.clone(),
            public_url: config.public_url,
            webhook_secrets: config.github_webhook_secrets,
            max_webhook_bytes: config.max_webhook_bytes,
            registry: Registry { config: config.registry, minter: Minter::from_common(common)?, key },
            agents,
            shutdown: kit.shutdown.clone(),
        }));
        kit.serve_grpc(tonic::service::Routes::default()).await?;
        Ok(Self { app, listener, health: kit.health.clone() })
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.health.set_ready(true);
        let server = axum::serve(self.listener, router::router(self.app))
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = server => served.context("serve the API"),
            () = late => Ok(()),
        }
    }
}

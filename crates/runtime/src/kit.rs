//! What a service is handed when it is built.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use stagely_domain::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::admin::Health;
use crate::config::{Peer, Settings};
use crate::grpc::{self, Channel};

/// How long tasks may take to end after shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Settings, clock, task tracker and the already bound private ports of one service.
pub struct Kit {
    /// The whole configuration.
    pub settings: Settings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Every task of the process is spawned here, so that shutdown can wait for it.
    pub tracker: TaskTracker,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
    /// Flipped to ready by the service.
    pub health: Health,
    peer: Peer,
    grpc: Mutex<Option<TcpListener>>,
}

impl Kit {
    /// Binds the private ports of `peer` and starts its admin endpoints.
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub async fn bind(settings: &Settings, peer: Peer, shutdown: CancellationToken) -> anyhow::Result<Self> {
        crate::install_crypto();
        let ports = settings.ports(peer)?;
        let grpc = TcpListener::bind(ports.grpc_listen)
            .await
            .with_context(|| format!("bind {} for gRPC of {peer}", ports.grpc_listen))?;
        let admin = TcpListener::bind(ports.admin_listen)
            .await
            .with_context(|| format!("bind {} for the admin port of {peer}", ports.admin_listen))?;
        let (tracker, health) = (TaskTracker::new(), Health::default());
        tracker.spawn(crate::admin::serve(admin, health.clone(), shutdown.clone()));
        Ok(Self {
            settings: settings.clone(),
            clock: Arc::new(SystemClock),
            tracker,
            shutdown,
            health,
            peer,
            grpc: Mutex::new(Some(grpc)),
        })
    }

    /// A channel to another service: lazy, with a deadline on every call and the service token.
    ///
    /// # Errors
    /// When the peer's address in the configuration is malformed.
    pub fn connect(&self, peer: Peer) -> anyhow::Result<Channel> {
        grpc::connect(&self.settings.ports(peer)?.grpc_url, self.settings.common.service_token.as_ref())
            .with_context(|| format!("gRPC address of {peer}"))
    }

    /// Serves `routes` and the standard health service on the gRPC port until shutdown.
    ///
    /// # Errors
    /// The transport's error.
    pub async fn serve_grpc(&self, routes: Routes) -> anyhow::Result<()> {
        let listener = self.grpc.lock().await.take().context("the gRPC port is being served already")?;
        let server = grpc::Server {
            listener,
            token: self.settings.common.service_token.clone(),
            shutdown: self.shutdown.clone(),
        };
        let peer = self.peer;
        self.tracker.spawn(async move {
            if let Err(error) = server.serve(routes).await {
                tracing::error!(service = %peer, error = format!("{error:#}"), "gRPC server ended");
            }
        });
        Ok(())
    }

    /// Waits for every tracked task, at most ten seconds.
    pub async fn drain(&self) {
        self.tracker.close();
        if tokio::time::timeout(DRAIN, self.tracker.wait()).await.is_err() {
            tracing::warn!(service = %self.peer, tasks = self.tracker.len(), "tasks did not end in time");
        }
    }
}

//! The agent hub: enrolment of machines, the one connection of each agent, wishes down, facts and logs up.
//!
//! It owns the tables `agent_connections`, `log_streams`, `build_logs` and the internal authority, and writes no
//! others: what happens in a machine becomes a row plus a wake-up of whoever decides. An agent may speak for
//! its own machine only, and everything it sends is bounded and cleaned before it is stored. Any replica can
//! serve any agent; what a replica knows besides Postgres can be lost at any moment.

pub mod ca;
pub mod config;
mod connections;
pub mod credential;
mod enrol;
mod error;
mod grpc;
mod hub;
mod intake;
mod keys;
mod listener;
mod loops;
mod observed;
mod session;
mod socket;
mod stream_name;

pub use ca::Ca;
pub use config::Config;
pub use error::HubError;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use stagely_proto::hub::hub_server::HubServer;
use stagely_runtime::{Kit, Peer, Service};
use stagely_store::Store;
use stagely_store::seal::KeyRing;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::credential::Signer;
use crate::hub::Hub;
use crate::listener::{Listener, ServerCertificate};

/// How often the hub's own certificate is replaced.
const RENEW_CERTIFICATE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long connections may take to end after the drain.
const LINGER: Duration = Duration::from_secs(5);

/// The service.
pub struct AgentHub {
    hub: Arc<Hub>,
    listener: Listener,
    certificate: Arc<ServerCertificate>,
    address: SocketAddr,
    sessions: TaskTracker,
    loops: TaskTracker,
}

impl AgentHub {
    /// Where agents connect: the port is known only after it was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Service for AgentHub {
    const PEER: Peer = Peer::AgentHub;
    type Config = Config;

    async fn build(mut config: Config, kit: &Kit) -> anyhow::Result<Self> {
        config.check()?;
        let store = Store::connect(kit.settings.database_url()?.reveal(), config.database_connections).await?;
        let common = &kit.settings.common;
        let keyring = KeyRing::configured(common.encryption_keys.as_ref(), common.encryption_key.as_ref())?;
        let tcp =
            TcpListener::bind(config.listen).await.with_context(|| format!("bind {} for agents", config.listen))?;
        let address = tcp.local_addr().context("read the bound port")?;
        config.listen = address;
        let ca = Ca::load_or_create(&store, &keyring, Arc::clone(&kit.clock)).await?;
        let ttl = TimeDelta::seconds(i64::from(config.credential_ttl_secs));
        let signer = Signer::load_or_create(&store, &keyring, kit.clock.now(), ttl).await?;
        let certificate = Arc::new(ServerCertificate::default());
        certificate.show(&ca.issue_server(&config.names())?).context("show the hub's certificate")?;
        let hub = Arc::new(Hub::new(config, store, keyring, ca, signer, Arc::clone(&kit.clock)));
        let sessions = TaskTracker::new();
        let listener = Listener::new(tcp, Arc::clone(&certificate), Arc::clone(&hub), sessions.clone())?;
        kit.serve_grpc(Routes::new(HubServer::new(grpc::Server(Arc::clone(&hub))))).await?;
        kit.health.set_ready(true);
        Ok(Self { hub, listener, certificate, address, sessions, loops: TaskTracker::new() })
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        // Sessions end by the drain's goodbyes, and only then by this.
        let end_of_sessions = CancellationToken::new();
        self.loops.spawn(loops::listen(Arc::clone(&self.hub), shutdown.clone()));
        self.loops.spawn(loops::push_changes(Arc::clone(&self.hub), shutdown.clone()));
        self.loops.spawn(loops::renew_leases(Arc::clone(&self.hub), shutdown.clone()));
        self.loops.spawn(loops::notify_log_readers(Arc::clone(&self.hub), shutdown.clone()));
        self.loops.spawn(renew_certificate(Arc::clone(&self.hub), Arc::clone(&self.certificate), shutdown.clone()));
        self.loops.spawn(self.listener.run(shutdown.clone(), end_of_sessions.clone()));
        tracing::info!(address = %self.address, "agents connect at {}", self.hub.config.public_url);
        shutdown.cancelled().await;
        loops::drain(&self.hub).await;
        end_of_sessions.cancel();
        self.sessions.close();
        self.loops.close();
        let ended = async { tokio::join!(self.sessions.wait(), self.loops.wait()) };
        if tokio::time::timeout(LINGER, ended).await.is_err() {
            tracing::warn!(connections = self.sessions.len(), "connections did not end in time");
        }
        Ok(())
    }
}

async fn renew_certificate(hub: Arc<Hub>, certificate: Arc<ServerCertificate>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEW_CERTIFICATE) => {}
            () = shutdown.cancelled() => return,
        }
        let renewed = hub.ca.issue_server(&hub.config.names()).map_err(anyhow::Error::from);
        if let Err(error) = renewed.and_then(|issued| certificate.show(&issued)) {
            tracing::error!(error = format!("{error:#}"), "the hub's certificate was not renewed");
        }
    }
}

//! Putting it together: one thread per core for visitors, the service's own runtime for everything else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use stagely_cache::Cache;
use stagely_domain::clock::Clock;
use stagely_proto::edge::edge_server::EdgeServer;
use stagely_runtime::admin::Health;
use stagely_runtime::config::Peer;
use stagely_runtime::{Kit, Service};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes as GrpcRoutes;

use crate::accept;
use crate::config::Config;
use crate::forward::Worker;
use crate::grpc::Server;
use crate::hints::Hints;
use crate::route::Routes;
use crate::upstream::{Pool, Tls};

/// How often resting connections are looked through.
const SWEEP: Duration = Duration::from_secs(15);

/// The service.
pub struct EdgeProxy {
    listeners: Vec<std::net::TcpListener>,
    address: SocketAddr,
    routes: Arc<Routes>,
    hints: Arc<Hints>,
    requests: Arc<AtomicU64>,
    tls: Tls,
    cache: Cache,
    health: Health,
    clock: Arc<dyn Clock>,
    drain: CancellationToken,
}

impl EdgeProxy {
    /// Where visitors come in, once built.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Service for EdgeProxy {
    const PEER: Peer = Peer::EdgeProxy;
    type Config = Config;

    async fn build(config: Config, kit: &Kit) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let first = accept::bind(config.listen)?;
        let address = first.local_addr().context("read the bound address")?;
        let mut listeners = vec![first];
        for _ in 1..config.workers.unwrap_or(cores).max(1) {
            listeners.push(accept::bind(address)?);
        }
        let edge = Self {
            listeners,
            address,
            routes: Arc::default(),
            hints: Arc::default(),
            requests: Arc::default(),
            tls: Tls::load(config.clone())?,
            cache: Cache::connect(kit.settings.redis_url()?.reveal(), &config.redis_prefix).await?,
            health: kit.health.clone(),
            clock: Arc::clone(&kit.clock),
            drain: kit.shutdown.child_token(),
        };
        let server = Server {
            routes: Arc::clone(&edge.routes),
            requests: Arc::clone(&edge.requests),
            drain: edge.drain.clone(),
        };
        kit.serve_grpc(GrpcRoutes::new(EdgeServer::new(server))).await?;
        Ok(edge)
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let tracker = TaskTracker::new();
        tracker.spawn(self.tls.clone().follow(shutdown.clone()));
        let (routes, cache, health, stop) =
            (Arc::clone(&self.routes), self.cache.clone(), self.health, shutdown.clone());
        tracker.spawn(async move { routes.follow(cache, health, stop).await });
        tracker.spawn(Arc::clone(&self.hints).send(self.cache.clone(), Arc::clone(&self.clock), shutdown.clone()));
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let worker = Arc::new(Worker {
                routes: Arc::clone(&self.routes),
                hints: Arc::clone(&self.hints),
                tls: self.tls.clone(),
                pool: Arc::new(Pool::default()),
                relays: TaskTracker::new(),
                shutdown: self.drain.clone(),
                requests: Arc::clone(&self.requests),
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let drain = self.drain.clone();
            let thread = std::thread::Builder::new().name(format!("edge-{index}")).spawn(move || {
                runtime.block_on(core(listener, worker, drain));
            });
            let thread = thread.context("start a thread")?;
            tracker.spawn_blocking(move || {
                if thread.join().is_err() {
                    tracing::error!("an edge thread panicked");
                }
            });
        }
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

/// One core's work until it is drained.
async fn core(listener: std::net::TcpListener, worker: Arc<Worker>, drain: CancellationToken) {
    let sweep = async {
        loop {
            tokio::time::sleep(SWEEP).await;
            worker.pool.sweep();
        }
    };
    tokio::select! {
        () = accept::serve(listener, Arc::clone(&worker), drain) => {}
        () = sweep => {}
    }
    worker.relays.close();
    let _ = tokio::time::timeout(Duration::from_secs(1), worker.relays.wait()).await;
}

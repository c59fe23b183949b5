//! Putting it together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use stagely_cache::Cache;
use stagely_cloud::Cloud;
use stagely_cloud::qemu::{self, Qemu};
use stagely_domain::machine::{Arch, Size};
use stagely_forge::{Forge, GitHub};
use stagely_proto::hub::hub_client::HubClient;
use stagely_proto::orchestrator::orchestrator_server::OrchestratorServer;
use stagely_reconcile::{Options, Reconciler, WorkStore, Worker};
use stagely_runtime::config::Peer;
use stagely_runtime::registry_credential::Minter;
use stagely_runtime::{Kit, Service};
use stagely_store::Store;
use stagely_store::seal::KeyRing;
use stagely_store::work::PgWork;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes as GrpcRoutes;

use crate::clouds::Clouds;
use crate::config::Config;
use crate::context::Context;
use crate::feeds;
use crate::grpc::Server;
use crate::reconcile::environment::Environments;
use crate::reconcile::image::Images;
use crate::reconcile::inbox::Inbox;
use crate::reconcile::machine::Machines;
use crate::reconcile::post::Posts;
use crate::reconcile::route::Routes;
use crate::reconcile::sweep::Sweeps;

/// The service.
pub struct Orchestrator {
    context: Arc<Context>,
    work: Arc<PgWork>,
    owner: String,
    templates: bool,
    tracker: TaskTracker,
}

impl Service for Orchestrator {
    const PEER: Peer = Peer::Orchestrator;
    type Config = Config;

    async fn build(config: Config, kit: &Kit) -> anyhow::Result<Self> {
        let common = &kit.settings.common;
        let qemu = qemu::Config {
            state_dir: config.qemu.state_dir.clone().unwrap_or_else(|| common.state_dir.join("qemu")),
            image_dir: config.qemu.image_dir.clone(),
            agent_binary: config.agent_binaries.amd64.clone(),
            templates: config.qemu.templates,
        };
        let qemu = Arc::new(Qemu::new(qemu, Arc::clone(&kit.clock))?);
        let github = &config.github;
        let forge = GitHub::new(&github.api_url, &github.git_url, github.auth()?, Arc::clone(&kit.clock))?;
        let templates = config.qemu.templates;
        let context = open(config, kit, qemu, Arc::new(forge)).await?;
        serve(&context, kit).await?;
        kit.health.set_ready(true);
        let owner = format!("orchestrator-{}", uuid::Uuid::now_v7().simple());
        let work = PgWork::new(context.store.clone());
        Ok(Self { context, work, owner, templates, tracker: kit.tracker.clone() })
    }

    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let context = &self.context;
        self.tracker.spawn(Arc::clone(&self.work).listen(shutdown.clone()));
        self.tracker.spawn(feeds::follow_edge(Arc::clone(context), shutdown.clone()));
        self.tracker.spawn(feeds::redeliver_lost(Arc::clone(context), shutdown.clone()));
        self.tracker.spawn(feeds::scan_pull_requests(Arc::clone(context), shutdown.clone()));
        self.tracker.spawn(feeds::wake_sweeps(Arc::clone(context), shutdown.clone()));
        if self.templates {
            self.tracker.spawn(prepare(Arc::clone(context), shutdown.clone()));
        }
        self.tracker.spawn(wake_all(Arc::clone(context), shutdown.clone()));
        let workers = TaskTracker::new();
        workers.spawn(self.worker(environments(context), 16).run(shutdown.clone()));
        workers.spawn(self.worker(Images(context.clone()), 2).run(shutdown.clone()));
        workers.spawn(self.worker(Inbox(Arc::clone(context)), 8).run(shutdown.clone()));
        workers.spawn(self.worker(Machines(context.clone()), 16).run(shutdown.clone()));
        workers.spawn(self.worker(Posts(Arc::clone(context)), 8).run(shutdown.clone()));
        workers.spawn(self.worker(Routes(Arc::clone(context)), 4).run(shutdown.clone()));
        workers.spawn(self.worker(sweeps(context), 2).run(shutdown.clone()));
        workers.close();
        workers.wait().await;
        Ok(())
    }
}

impl Orchestrator {
    fn worker<R: Reconciler>(&self, reconciler: R, concurrency: u32) -> Worker<R> {
        let options = Options { concurrency, ..Options::new(self.owner.clone()) };
        Worker::new(reconciler, Arc::clone(&self.work) as Arc<dyn WorkStore>, options)
    }
}

/// What every reconciler holds, with this cloud and this git host.
pub async fn open(
    config: Config,
    kit: &Kit,
    qemu: Arc<dyn Cloud>,
    forge: Arc<dyn Forge>,
) -> anyhow::Result<Arc<Context>> {
    let common = &kit.settings.common;
    let store = Store::connect(kit.settings.database_url()?.reveal(), config.database_connections).await?;
    let keys = KeyRing::configured(common.encryption_keys.as_ref(), common.encryption_key.as_ref())?;
    let registry_ca_pem = match &config.registry_ca_file {
        Some(file) => tokio::fs::read_to_string(file).await.with_context(|| format!("read {}", file.display()))?,
        None => String::new(),
    };
    Ok(Arc::new(Context {
        installation: store.ensure_installation().await?,
        cache: Cache::connect(kit.settings.redis_url()?.reveal(), &config.redis_prefix).await?,
        forge,
        clouds: Clouds::new(store.clone(), keys, Arc::clone(&kit.clock), config.clouds.clone(), qemu),
        hub: HubClient::new(kit.connect(Peer::AgentHub)?),
        clock: Arc::clone(&kit.clock),
        preview_domain: common.preview_domain.clone(),
        preview_url: common.preview_url.clone(),
        registry_ca_pem,
        minter: Minter::from_common(common)?,
        http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?,
        store,
        config,
    }))
}

/// Takes commands by gRPC until shutdown.
pub async fn serve(context: &Arc<Context>, kit: &Kit) -> anyhow::Result<()> {
    let server = Server { context: Arc::clone(context), sweeps: sweeps(context) };
    kit.serve_grpc(GrpcRoutes::new(OrchestratorServer::new(server))).await
}

pub fn environments(context: &Arc<Context>) -> Environments {
    Environments { context: Arc::clone(context), compared: Mutex::default() }
}

pub fn sweeps(context: &Arc<Context>) -> Sweeps {
    Sweeps { context: context.clone(), memory: Arc::default() }
}

/// Wakes what must always be due, until it worked once.
async fn wake_all(context: Arc<Context>, shutdown: CancellationToken) {
    while let Err(failure) = feeds::wake_all(&context).await {
        tracing::warn!(error = failure.chain(), "the first wake failed, trying again");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Makes the templates that most previews need.
async fn prepare(context: Arc<Context>, shutdown: CancellationToken) {
    let cloud = context.clouds.metal();
    let work = async {
        for size in [Size::Small, Size::Medium] {
            if let Err(error) = cloud.prepare(size, Arch::Amd64).await {
                tracing::warn!(%size, %error, "no template: machines of this size boot from cold");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

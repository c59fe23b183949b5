//! All six under one shutdown. They talk gRPC over loopback as they do apart, so there is one code path.

use std::time::Duration;

use anyhow::{Context, bail};
use stagely_agent_hub::AgentHub;
use stagely_api::Api;
use stagely_builder_scheduler::BuilderScheduler;
use stagely_edge_proxy::EdgeProxy;
use stagely_orchestrator::Orchestrator;
use stagely_reaper::Reaper;
use stagely_runtime::config::Peer;
use stagely_runtime::{Kit, Service, Settings, cancel_on_signal};
use stagely_store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificates;

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let store = Store::connect(settings.database_url()?.reveal(), 2).await?;
    store.migrate_up().await?;
    let files = certificates::ensure(&settings, &store, &[]).await?;
    // Operators may name other files; these are the ones of this process.
    let settings = settings
        .with("edge_proxy.client_cert_file", &files.edge_certificate)
        .with("edge_proxy.client_key_file", &files.edge_key)
        .with("edge_proxy.ca_file", &files.ca);

    let shutdown = CancellationToken::new();
    let mut all =
        All { settings: &settings, shutdown: shutdown.clone(), tracker: TaskTracker::new(), ended: mpsc::channel(6) };
    // Every private port is bound before the first service dials another.
    let kits = [
        all.bind(Peer::AgentHub).await?,
        all.bind(Peer::Orchestrator).await?,
        all.bind(Peer::BuilderScheduler).await?,
        all.bind(Peer::EdgeProxy).await?,
        all.bind(Peer::Reaper).await?,
        all.bind(Peer::Api).await?,
    ];
    let [hub, orchestrator, builder, edge, reaper, api] = &kits;
    all.start::<AgentHub>(hub).await?;
    all.start::<Orchestrator>(orchestrator).await?;
    all.start::<BuilderScheduler>(builder).await?;
    all.start::<EdgeProxy>(edge).await?;
    all.start::<Reaper>(reaper).await?;
    all.start::<Api>(api).await?;
    all.tracker.spawn(cancel_on_signal(shutdown.clone()));
    all.tracker.spawn(certificates::keep(settings.clone(), store, shutdown.clone()));
    tracing::info!("stagelyd is up");

    let first = tokio::select! {
        ended = all.ended.1.recv() => ended,
        () = shutdown.cancelled() => None,
    };
    shutdown.cancel();
    all.tracker.close();
    if tokio::time::timeout(Duration::from_secs(15), all.tracker.wait()).await.is_err() {
        tracing::warn!("a service did not end in time");
    }
    for kit in &kits {
        kit.drain().await;
    }
    match first {
        Some((peer, outcome)) => outcome.with_context(|| format!("{peer} ended")),
        None => Ok(()),
    }
}

struct All<'s> {
    settings: &'s Settings,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

type Ended = (Peer, anyhow::Result<()>);

impl All<'_> {
    async fn bind(&self, peer: Peer) -> anyhow::Result<Kit> {
        Kit::bind(self.settings, peer, self.shutdown.clone()).await
    }

    async fn start<S: Service>(&self, kit: &Kit) -> anyhow::Result<()> {
        let config = self.settings.service::<S::Config>(S::PEER)?;
        let service = S::build(config, kit).await.with_context(|| format!("start {}", S::PEER))?;
        let (ended, shutdown) = (self.ended.0.clone(), self.shutdown.clone());
        self.tracker.spawn(async move {
            let outcome = service.run(shutdown.clone()).await;
            if !shutdown.is_cancelled() {
                // Only the first is read; the others end with it.
                let _ = ended.send((S::PEER, outcome)).await;
            }
        });
        Ok(())
    }
}

/// Asks each admin port.
pub async fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build()?;
    let mut away = Vec::new();
    for peer in Peer::ALL {
        let url = format!("http://{}/readyz", settings.ports(peer)?.admin_listen);
        let ready = client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        if !ready {
            away.push(peer.name());
        }
    }
    if away.is_empty() { Ok(()) } else { bail!("not ready: {}", away.join(", ")) }
}

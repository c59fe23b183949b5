//! What every process of Stagely needs and none should write twice: configuration, logs, listeners,
//! gRPC set-up, health, shutdown. A service implements [`Service`]; its `main.rs` is [`main`].

pub mod admin;
pub mod config;
pub mod grpc;
pub mod kit;
pub mod registry_credential;
pub mod telemetry;

use std::process::ExitCode;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use config::{Peer, Settings};
pub use kit::Kit;

/// One of the six services.
#[allow(async_fn_in_trait, reason = "implemented and called inside this workspace only")]
pub trait Service: Sized + Send + 'static {
    /// The name in the configuration file, logs and `docs/architecture.toml`.
    const PEER: Peer;
    /// The service's own table of the configuration file.
    type Config: DeserializeOwned + Send;

    /// Checks the configuration, connects and binds. Nothing is served yet.
    fn build(config: Self::Config, kit: &Kit) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Serves until `shutdown` is cancelled, then drains and returns.
    fn run(self, shutdown: CancellationToken) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The `main` of a service that runs as its own process.
#[must_use]
pub fn main<S: Service>() -> ExitCode {
    let settings = match config::load_for(&[S::PEER]) {
        Ok(settings) => settings,
        Err(error) => return fail(S::PEER, &error, 64),
    };
    telemetry::start(&settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(S::PEER, &error.into(), 71),
    };
    match runtime.block_on(run_one::<S>(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(S::PEER, &error, 1),
    }
}

async fn run_one<S: Service>(settings: Settings) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let kit = Kit::bind(&settings, S::PEER, shutdown.clone()).await?;
    let config = settings.service::<S::Config>(S::PEER)?;
    let service = S::build(config, &kit).await?;
    kit.tracker.spawn(cancel_on_signal(shutdown.clone()));
    tracing::info!(service = %S::PEER, "{} is up", S::PEER);
    let outcome = service.run(shutdown.clone()).await;
    shutdown.cancel();
    kit.drain().await;
    outcome
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT.
pub async fn cancel_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be caught: stop this process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = shutdown.cancelled() => {}
    }
    shutdown.cancel();
}

/// Chooses ring as the process's one cryptography provider. Safe to call again.
pub fn install_crypto() {
    // An error only says that a provider is installed already, and ring is the only one linked in.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[expect(clippy::print_stderr, reason = "the log may not be up yet, and the operator must see this")]
fn fail(peer: Peer, error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{peer}: {error:#}");
    ExitCode::from(code)
}

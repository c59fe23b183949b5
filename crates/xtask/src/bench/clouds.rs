//! How a sweep bears an account with very many machines.

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::{Promise, REPETITIONS, Samples};
use crate::services::Services;
use crate::{cargo, progress, workspace};

/// Seconds that a sweep of the larger account may take.
const TIME: f64 = 30.0;
/// What the whole process may hold meanwhile, but for the machines of the server that stands for the cloud. Unit: MiB.
const MEMORY: u64 = 190;

/// A line of the test that measures.
#[derive(Deserialize)]
struct Account {
    machines: u64,
    seconds: Vec<f64>,
    mib: u64,
}

/// Sweeps of a small account beside those of a large one, at the server that stands for Hetzner.
pub(super) async fn measure() -> anyhow::Result<Vec<Promise>> {
    let services = Services::start().await?;
    let accounts = sweeps(&services).await;
    services.stop().await;
    let accounts = accounts?;
    let [small, large] = accounts.as_slice() else { anyhow::bail!("{} accounts were measured, not 2", accounts.len()) };
    ensure!(large.seconds.len() >= REPETITIONS, "only {} sweeps were measured", large.seconds.len());
    let (few, many) = (Samples::of_seconds(&small.seconds), Samples::of_seconds(&large.seconds));
    Ok(vec![
        Promise {
            what: format!("sweep of {} machines", large.machines),
            wanted: format!("< {TIME} s"),
            got: many.to_string(),
            beside: format!("{few} for {}", small.machines),
            holds: many.median().as_secs_f64() < TIME,
        },
        Promise {
            what: format!("memory of a sweep of {} machines", large.machines),
            wanted: format!("< {MEMORY} MiB"),
            got: format!("{} MiB", large.mib),
            beside: format!("{} MiB for {}", small.mib, small.machines),
            holds: large.mib < MEMORY,
        },
    ])
}

async fn sweeps(services: &Services) -> anyhow::Result<Vec<Account>> {
    let mut command = cargo();
    command.current_dir(workspace()).args(["test", "--locked", "--release", "--package", "stagely-orchestrator"]);
    command.args(["--test", "main", "--", "--ignored", "--nocapture", "--test-threads=1", "scale::"]);
    command.env("STAGELY_TEST_DATABASE_URL", &services.postgres_url);
    command.env("STAGELY_TEST_REDIS_URL", &services.redis_url);
    progress("cargo test scale::, optimized");
    let ended = command.stderr(std::process::Stdio::inherit()).output().await.context("run cargo")?;
    let told = String::from_utf8_lossy(&ended.stdout);
    ensure!(ended.status.success(), "the sweeps failed:\n{told}");
    // The first line stands behind the name of the test.
    let lines = told.lines().filter_map(|line| line.find(r#"{"machines""#).and_then(|at| line.get(at..)));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("read {line}"))).collect()
}

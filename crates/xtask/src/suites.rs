//! The tests, by what they need.

use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::time::Instant;

use crate::services::Services;
use crate::{Suite, broken, cargo, contract, packages, print_result, progress, stories, workspace};

/// Crates whose tests beside the code need nothing outside.
const UNIT: &[&str] = &[
    "stagely-domain",
    "stagely-proto",
    "stagely-reconcile",
    "stagely-runtime",
    "stagely-reaper",
    "stagely-orchestrator",
];

/// The one test among them that does: it compares the simulation's rows with those of Postgres.
const NEEDS_POSTGRES: &str = "rows_in_memory_change_as_rows_in_postgres_do";

/// The selection of all tests. A part of the packages would compile what they need once more, with fewer features.
pub const WHOLE: &[&str] = &["--workspace", "--lib", "--bins", "--tests"];

pub async fn run(suite: Option<Suite>, only: Option<&str>) -> anyhow::Result<()> {
    let wanted = |one| suite.is_none_or(|suite| suite == one);
    if suite == Some(Suite::Unit) {
        let packages = UNIT.iter().flat_map(|name| ["--package", name]);
        let which = ["--lib", "--bins", "--", "--skip", NEEDS_POSTGRES];
        return cargo_test(&packages.chain(which).collect::<Vec<_>>(), &[]).await;
    }
    packages::ensure(&[("/usr/sbin/dockerd", "docker.io")]).await?;
    if wanted(Suite::Integration) {
        timed("integration", with_services(async |environment| cargo_test(WHOLE, environment).await)).await?;
    }
    if wanted(Suite::E2e) {
        timed("stories", stories::run(only)).await?;
        if only.is_none() {
            // Those that need a Docker engine, root or Debian's packages.
            let privileged = [WHOLE, &["--", "--ignored", "docker::", "registry::"]].concat();
            timed("privileged", cargo_test(&privileged, &[])).await?;
            timed("contract", contract::with_the_tests()).await?;
        }
    }
    if wanted(Suite::Broken) {
        // Last, since what it compiles takes the place of what the others use.
        timed("broken", with_services(async |environment| broken::run(environment).await)).await?;
    }
    Ok(())
}

/// Runs what needs a Postgres and a Redis, which it is told of by its environment.
pub async fn with_services(run: impl AsyncFnOnce(&[(&str, &str)]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let services = Services::start().await?;
    let outcome = run(&[
        ("STAGELY_TEST_DATABASE_URL", services.postgres_url.as_str()),
        ("STAGELY_TEST_REDIS_URL", services.redis_url.as_str()),
    ])
    .await;
    services.stop().await;
    outcome
}

/// Tells how long a part took.
async fn timed(part: &str, run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let begun = Instant::now();
    run.await?;
    print_result(format!("tests: {part} ... ok ({} s)", begun.elapsed().as_secs()));
    Ok(())
}

/// `cargo test` in the workspace; its output goes to the terminal.
pub async fn cargo_test(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    progress(format!("cargo test {}", arguments.join(" ")));
    let mut command = cargo();
    command.current_dir(workspace()).args(["test", "--locked"]).args(arguments);
    command.envs(environment.iter().copied()).stdin(Stdio::null());
    let status = command.status().await.context("run cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo test {} failed", arguments.join(" ")) }
}

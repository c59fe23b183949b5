//! The tests, by what they need.

use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::services::Services;
use crate::{Suite, broken, contract, packages, say, stories, workspace};

/// Crates whose tests need nothing outside.
const UNIT: &[&str] = &[
    "stagely-domain",
    "stagely-proto",
    "stagely-reconcile",
    "stagely-runtime",
    "stagely-reaper",
    "stagely-orchestrator",
];

/// The selection of all tests. A part of the packages would compile what they need once more, with fewer features.
pub const WHOLE: &[&str] = &["--workspace", "--lib", "--bins", "--tests"];

pub async fn run(suite: Option<Suite>, only: Option<&str>) -> anyhow::Result<()> {
    let wanted = |one| suite.is_none_or(|suite| suite == one);
    if suite == Some(Suite::Unit) {
        let packages = UNIT.iter().flat_map(|name| ["--package", name]);
        return cargo_test(&packages.collect::<Vec<_>>(), &[]).await;
    }
    packages::ensure(&[("/usr/sbin/dockerd", "docker.io")]).await?;
    if wanted(Suite::Integration) || wanted(Suite::Broken) {
        let services = Services::start().await?;
        let environment = [
            ("STAGELY_TEST_DATABASE_URL", services.postgres_url.as_str()),
            ("STAGELY_TEST_REDIS_URL", services.redis_url.as_str()),
        ];
        let outcome = async {
            if wanted(Suite::Integration) {
                cargo_test(WHOLE, &environment).await?;
            }
            if wanted(Suite::Broken) { broken::run(&environment).await } else { Ok(()) }
        };
        let outcome = outcome.await;
        services.stop().await;
        outcome?;
    }
    if wanted(Suite::E2e) {
        stories::run(only).await?;
        if only.is_none() {
            // Those that need a Docker engine, root or Debian's packages.
            cargo_test(&[WHOLE, &["--", "--ignored", "docker::", "registry::"]].concat(), &[]).await?;
            contract::with_the_tests().await?;
        }
    }
    Ok(())
}

/// `cargo test` in the workspace; its output goes to the terminal.
pub async fn cargo_test(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    say(format!("cargo test {}", arguments.join(" ")));
    let mut command = Command::new("cargo");
    command.current_dir(workspace()).args(["test", "--locked"]).args(arguments);
    command.envs(environment.iter().copied()).stdin(Stdio::null());
    let status = command.status().await.context("run cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo test {} failed", arguments.join(" ")) }
}

//! What machines are made of: the image, and the agent's static program.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use ring::digest::{SHA256, digest};
use tokio::process::Command;

use crate::{cargo, packages, progress, scratch, workspace};

/// The directory of the machine image, built once for its recipe.
pub async fn image() -> anyhow::Result<PathBuf> {
    built("deploy/image/build.sh", "machine image", "").await
}

/// The directory of an image like those that clouds have, for the first boot there.
pub async fn stock_image() -> anyhow::Result<PathBuf> {
    // Its machines install packages from the mirror that it was made from.
    let mirror = xtask::base_images::debian_mirror().await?;
    built("deploy/image/stock.sh", "image that stands for a cloud's own", &mirror).await
}

/// `also` is what an image depends on beside its recipe.
async fn built(recipe: &str, name: &str, also: &str) -> anyhow::Result<PathBuf> {
    packages::ensure(packages::MACHINES).await?;
    let path = workspace().join(recipe);
    let script = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let inputs = [script.as_slice(), also.as_bytes()].concat();
    let key = hex::encode(&digest(&SHA256, &inputs).as_ref()[..8]);
    let directory = scratch().join("images").join(key);
    if directory.join("manifest.json").is_file() {
        return Ok(directory);
    }
    progress(format!("building the {name} from Debian's packages (about a minute)"));
    let partial = directory.with_extension("partial");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    let output = Command::new(&path).arg(&partial).stdin(Stdio::null()).output().await.context("run a recipe")?;
    if !output.status.success() {
        bail!("{recipe} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::rename(&partial, &directory).with_context(|| format!("keep {}", directory.display()))?;
    Ok(directory)
}

/// The agent's program: static, small, for amd64.
pub async fn agent() -> anyhow::Result<PathBuf> {
    progress("building the agent's static program");
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let directory = workspace().join("target/agent");
    let status = cargo()
        .current_dir(workspace())
        .args(["build", "--quiet", "--locked", "--profile", "agent", "--package", "stagely-agent", "--target", TARGET])
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stdin(Stdio::null())
        .status()
        .await
        .context("run cargo")?;
    if !status.success() {
        bail!("the agent does not build");
    }
    Ok(directory.join(TARGET).join("agent/stagely-agent"))
}

/// What the control plane is compiled together with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing else.
    Nothing,
    /// The tests, which are compiled already: what both need then has the same features, and is not compiled once more.
    Tests,
}

/// `stagelyd`, with the six services beside it. All packages are selected, as they are for `cargo xtask` itself: a part of
/// them would compile what they need with fewer features once more.
pub async fn stagelyd(beside: Beside) -> anyhow::Result<PathBuf> {
    progress("building the control plane");
    let tests: &[&str] = if beside == Beside::Tests { &["--tests"] } else { &[] };
    let status = cargo()
        .current_dir(workspace())
        .args(["build", "--quiet", "--locked", "--workspace", "--bins"])
        .args(tests)
        .stdin(Stdio::null())
        .status()
        .await
        .context("run cargo")?;
    if !status.success() {
        bail!("the control plane does not build");
    }
    Ok(workspace().join("target/debug/stagelyd"))
}

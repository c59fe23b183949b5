//! Debian packages that a task needs, installed when they are missing.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::progress;

/// For tests with real services.
pub const SERVICES: &[(&str, &str)] = &[
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/docker-registry", "docker-registry"),
    ("/usr/bin/git", "git"),
];

/// For virtual machines.
pub const MACHINES: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/qemu-img", "qemu-utils"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
];

/// Installs what is missing of `wanted` (a file of the package, and its name).
pub async fn ensure(wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress(format!("installing Debian packages: {}", missing.join(" ")));
    apt(&["update", "-qq"]).await?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments).await
}

async fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut command = Command::new("sudo");
        command.arg("apt-get");
        command
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().await.context("run apt-get")?;
    if status.success() { Ok(()) } else { bail!("apt-get {} failed ({status})", arguments.join(" ")) }
}

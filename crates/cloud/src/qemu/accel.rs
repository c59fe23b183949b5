//! Whether this host can run KVM, found out by booting: a host can have `/dev/kvm` and still hang a guest.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long the probe's kernel may take to say a word. With KVM it is well under a second.
const PROBE: Duration = Duration::from_secs(8);

/// The value of `-accel`, probed once per boot of the host.
pub(crate) async fn choose(state_dir: &Path, image_dir: &Path) -> &'static str {
    const EMULATED: &str = "tcg,thread=multi";
    if !Path::new("/dev/kvm").exists() {
        return EMULATED;
    }
    let boot = tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await.unwrap_or_default();
    let cache = state_dir.join("kvm-probe");
    let known = tokio::fs::read_to_string(&cache).await.unwrap_or_default();
    if let Some(answer) = known.strip_prefix(boot.trim()) {
        return if answer.trim() == "kvm" { "kvm" } else { EMULATED };
    }
    let works = boots(image_dir).await;
    tracing::info!(kvm = works, "probed KVM by booting a kernel");
    let answer = if works { "kvm" } else { "tcg" };
    // Without the cache the probe only runs again.
    let _ = tokio::fs::write(&cache, format!("{} {answer}\n", boot.trim())).await;
    if works { "kvm" } else { EMULATED }
}

/// Whether a kernel without a root reaches its panic, which `-no-reboot` turns into an exit.
async fn boots(image_dir: &Path) -> bool {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "256",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-serial",
            "none",
        ])
        .arg("-kernel")
        .arg(image_dir.join("vmlinuz"))
        .args(["-append", "panic=-1 root=/dev/none"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(mut child) = command.spawn() else { return false };
    matches!(tokio::time::timeout(PROBE, child.wait()).await, Ok(Ok(status)) if status.success())
}

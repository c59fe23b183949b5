//! A machine that was restored from a template gets its identity afterwards, over a virtio port of the host. One
//! line of JSON says who it is; later lines say what time it is after a sleep.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Identity;
use crate::config::Config;
use crate::files;
use crate::process::Command;

/// The longest line the host may send.
const LONGEST_LINE: usize = 256 * 1024;

/// Where the machine's own traces are; tests point it elsewhere.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/`.
    pub root: PathBuf,
    /// Whether clock, host name and random pool are the machine's own to set.
    pub kernel: Kernel,
}

/// Whether to touch the kernel's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Set clock, host name and random pool.
    Set,
    /// Leave them: this machine is somebody else's.
    Leave,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: "/".into(), kernel: Kernel::Set }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    seed: String,
    now: i64,
    #[serde(flatten)]
    identity: serde_json::Value,
}

/// Says `ready`, waits for the identity, makes the machine be that one, and says `ok`.
///
/// # Errors
/// If the port ends, or the line makes no sense.
pub async fn receive<P: AsyncRead + AsyncWrite + Unpin>(
    port: &mut BufReader<P>,
    config: &Config,
    host: &Host,
) -> anyhow::Result<Identity> {
    port.write_all(b"ready\n").await?;
    port.flush().await?;
    let line = read_line(port).await?.ok_or_else(|| anyhow::anyhow!("the host hung up before it sent an identity"))?;
    let line: Line = serde_json::from_str(&line)?;
    let identity: Identity = serde_json::from_value(line.identity)?;
    become_machine(host, line.now, &line.hostname, &line.seed).await;
    identity.write(&config.paths.identity)?;
    port.write_all(b"ok\n").await?;
    port.flush().await?;
    info!(machine.id = %identity.machine_id, "this machine is {}", identity.machine_id);
    Ok(identity)
}

/// Hears of wake-ups until the port ends.
pub async fn listen<P: AsyncRead + AsyncWrite + Unpin>(
    mut port: BufReader<P>,
    host: Host,
    woken: Arc<Notify>,
    cancel: CancellationToken,
) {
    #[derive(Deserialize)]
    struct Wake {
        now: i64,
    }
    loop {
        let line = tokio::select! {
            () = cancel.cancelled() => return,
            line = read_line(&mut port) => line,
        };
        let text = match line {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "cannot read from the host");
                return;
            }
        };
        match serde_json::from_str::<Wake>(&text) {
            Ok(wake) => {
                set_clock(&host, wake.now);
                woken.notify_one();
                let _ = port.write_all(b"ok\n").await;
                let _ = port.flush().await;
            }
            Err(error) => warn!(%error, "the host sent something else than the time"),
        }
    }
}

async fn read_line<P: AsyncRead + Unpin>(port: &mut BufReader<P>) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let piece = port.fill_buf().await?;
        if piece.is_empty() {
            return Ok(None);
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(piece.len(), |at| at + 1);
        bytes.extend_from_slice(&piece[..take]);
        port.consume(take);
        if bytes.len() > LONGEST_LINE {
            return Err(std::io::Error::other("the line is too long"));
        }
        if end.is_some() {
            return Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()));
        }
    }
}

/// Makes the restored copy a machine of its own. What cannot be set is logged: the machine can still work.
async fn become_machine(host: &Host, now: i64, hostname: &str, seed: &str) {
    set_clock(host, now);
    if host.kernel == Kernel::Set {
        // First: everything random afterwards must differ from the other copies of the template.
        match hex::decode(seed) {
            Ok(seed) if seed.len() >= 16 => {
                if let Err(error) = mix(&seed) {
                    warn!(%error, "cannot mix the seed into the random pool");
                }
            }
            _ => warn!("the host gave no seed"),
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    if !hostname.is_empty() && hostname.len() <= 64 && hostname.chars().all(plain) {
        if host.kernel == Kernel::Set
            && let Err(error) = rustix::system::sethostname(hostname.as_bytes())
        {
            warn!(%error, "cannot set the host name");
        }
        note(files::write_public(&host.root.join("etc/hostname"), format!("{hostname}\n").as_bytes()));
    }
    // Written here rather than by systemd, which takes the firmware's id where there is one - the same in all
    // copies of a template.
    let mut id = [0; 16];
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id).is_ok() {
        let text = format!("{}\n", hex::encode(id));
        note(files::write_public(&host.root.join("etc/machine-id"), text.as_bytes()));
    }
    renew_host_keys(host).await;
}

async fn renew_host_keys(host: &Host) {
    let directory = host.root.join("etc/ssh");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        return;
    };
    let mut any = false;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            note(files::drop_file(&entry.path()));
            any = true;
        }
    }
    if any {
        let prefix = host.root.display().to_string();
        let ended = Command::new("ssh-keygen", ["-A", "-f", &prefix])
            .deadline(Duration::from_secs(60))
            .capture(&CancellationToken::new())
            .await;
        if !ended.is_ok_and(|ended| ended.code == 0) {
            warn!("cannot make new ssh host keys");
        }
    }
}

fn set_clock(host: &Host, now: i64) {
    if host.kernel == Kernel::Set {
        let time = Timespec { tv_sec: now, tv_nsec: 0 };
        if let Err(error) = clock_settime(ClockId::Realtime, time) {
            warn!(%error, "cannot set the clock");
        }
    }
}

/// Mixes `seed` into the kernel's random pool and makes it take effect at once. Writing alone is not enough: the
/// generator, a copy of the template's, would go on for up to a minute before it looks at the pool again.
fn mix(seed: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut pool = std::fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    pool.write_all(seed)?;
    reseed(&pool)?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "RNDRESEEDCRNG has no safe wrapper, and without it two copies of a template would make the same key"
)]
fn reseed(pool: &std::fs::File) -> rustix::io::Result<()> {
    // _IO('R', 0x07), linux/random.h.
    const RNDRESEEDCRNG: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b'R', 0x07);
    // SAFETY: the operation takes no argument and touches no memory of this process.
    unsafe { rustix::ioctl::ioctl(pool, rustix::ioctl::NoArg::<RNDRESEEDCRNG>::new()) }
}

fn note(result: std::io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "cannot write a file of the machine's identity");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use stagely_domain::id::MachineId;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{Host, Identity, Kernel, listen, receive};
    use crate::config::{Config, Paths};

    #[tokio::test]
    async fn a_restored_copy_becomes_the_machine_it_is_told_to_be_and_hears_of_wake_ups() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { paths: Paths::under(root.path()), ..Config::default() };
        let host = Host { root: root.path().join("root"), kernel: Kernel::Leave };
        let (near, far) = tokio::io::duplex(4096);
        let mut far = BufReader::new(far);
        let machine = MachineId::generate();
        let tasks = TaskTracker::new();
        let woken = Arc::new(Notify::new());
        let cancel = CancellationToken::new();
        let agent = {
            let (host, config, woken, cancel) = (host.clone(), config.clone(), woken.clone(), cancel.clone());
            tasks.spawn(async move {
                let mut port = BufReader::new(near);
                let identity = receive(&mut port, &config, &host).await.unwrap();
                listen(port, host, woken, cancel).await;
                identity
            })
        };
        let mut line = String::new();
        far.read_line(&mut line).await.unwrap();
        assert_eq!(line, "ready\n");
        let json = serde_json::json!({
            "hub_url": "https://hub", "machine_id": machine, "enrolment_token": "t", "ca_pem": "PEM",
            "role": "preview", "ingress_port": 7443, "hostname": "pr-7", "seed": "00", "now": 1_700_000_000,
        });
        far.write_all(format!("{json}\n").as_bytes()).await.unwrap();
        line.clear();
        far.read_line(&mut line).await.unwrap();
        assert_eq!(line, "ok\n");
        let read = |path: &str| std::fs::read_to_string(host.root.join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "pr-7\n");
        assert_eq!(read("etc/machine-id").trim().len(), 32);
        let kept = Identity::find(&config.paths.identity).unwrap().unwrap();
        assert_eq!(kept.machine_id, machine);

        far.write_all(b"{\"now\": 1700000100}\n").await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), woken.notified()).await.unwrap();
        cancel.cancel();
        assert_eq!(agent.await.unwrap().machine_id, machine);
    }
}

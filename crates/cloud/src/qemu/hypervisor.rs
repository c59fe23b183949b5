//! Starting, finding and ending QEMU processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use stagely_domain::machine::Size;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::{CloudError, ErrorKind, Result};

/// Where the agent's ingress listens inside the machine.
pub(super) const INGRESS_PORT: u16 = 7443;

/// The processor where there is no KVM. Emulating AVX costs more than it saves: without it the same work takes a fifth
/// less. A container that needs x86-64-v3 needs KVM.
pub(super) const EMULATED_CPU: &str = "max,avx=off,avx2=off";

/// What to start.
pub(super) struct Start<'s> {
    /// The machine's directory: sockets, pid file, console.
    pub(super) directory: &'s Path,
    /// Kernel and initial RAM disk.
    pub(super) image_dir: &'s Path,
    /// The value of `-accel`.
    pub(super) accel: &'static str,
    /// The value of `-cpu` where it is emulated. Saved memory goes on with the one that it was saved with.
    pub(super) emulated_cpu: &'s str,
    /// Memory and processors.
    pub(super) size: Size,
    /// The seed disk; a restored machine must have one too, since its template had.
    pub(super) seed: PathBuf,
    /// Saved memory to begin from.
    pub(super) memory: Option<PathBuf>,
    /// The loopback port that leads to the ingress.
    pub(super) port: u16,
    /// Whether the directory is removed when the machine ends by itself.
    pub(super) ephemeral: bool,
}

/// Removes the directory of a machine that ended, unless its memory was saved there first. `$1` is the
/// directory, the rest is the command: fixed text, no word of it comes from outside.
const WRAPPER: &str = r#"dir=$1; shift; "$@"; [ -e "$dir/memory" ] || [ -e "$dir/keep" ] || rm -rf "$dir""#;

pub(super) async fn check_installed() -> Result<()> {
    for program in ["qemu-system-x86_64", "qemu-img"] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !found.is_ok_and(|status| status.success()) {
            let message = format!("{program} is not installed: apt-get install qemu-system-x86 qemu-utils");
            return Err(CloudError::new(ErrorKind::Invalid, "look for QEMU", message));
        }
    }
    Ok(())
}

/// A copy-on-write disk over `base`.
pub(super) async fn overlay(base: &Path, disk: &Path) -> Result<()> {
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(base)
        .arg(disk)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| CloudError::io("run qemu-img", &error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(CloudError::new(ErrorKind::Unavailable, "make a disk", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Start<'_> {
    /// Starts the process in a session of its own and waits until it answers on its sockets.
    pub(super) async fn spawn(&self) -> Result<()> {
        let log = std::fs::File::create(self.directory.join("qemu.log"))
            .map_err(|error| CloudError::io("open a log", &error))?;
        let errors = log.try_clone().map_err(|error| CloudError::io("open a log", &error))?;
        let mut command = Command::new("setsid");
        command.args(["--fork", "sh", "-c", WRAPPER, "stagely-machine"]).arg(self.directory);
        if !self.ephemeral {
            std::fs::write(self.directory.join("keep"), b"")
                .map_err(|error| CloudError::io("mark a template", &error))?;
        }
        command.arg("qemu-system-x86_64").args(self.arguments());
        command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/");
        let status = timeout(Duration::from_secs(10), command.status()).await;
        match status {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => return Err(CloudError::new(ErrorKind::Unavailable, "start QEMU", status.to_string())),
            Ok(Err(error)) => return Err(CloudError::io("start QEMU", &error)),
            Err(_) => return Err(CloudError::new(ErrorKind::Timeout, "start QEMU", "no answer in time").ambiguous()),
        }
        let until = Instant::now() + Duration::from_secs(10);
        while pid(self.directory).is_none() || !self.directory.join("qmp.sock").exists() {
            if Instant::now() > until {
                let said = std::fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
                let message =
                    if said.trim().is_empty() { "it did not start".to_owned() } else { said.trim().to_owned() };
                return Err(CloudError::new(ErrorKind::Unavailable, "start QEMU", message).ambiguous());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let vcpus = usize::try_from(self.size.min_vcpus()).unwrap_or(1).max(2).min(cores);
        let cpu = if self.accel == "kvm" { "host" } else { self.emulated_cpu };
        let name = self.directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut arguments: Vec<String> = [
            "-name",
            &name,
            "-machine",
            "q35,vmport=off,usb=off",
            "-accel",
            self.accel,
            "-cpu",
            cpu,
            "-smp",
            &vcpus.to_string(),
            "-m",
            &self.size.min_memory_mib().to_string(),
            "-display",
            "none",
            "-vga",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-kernel",
            &self.image_dir.join("vmlinuz").display().to_string(),
            "-initrd",
            &self.image_dir.join("initrd").display().to_string(),
            "-append",
            "root=/dev/vda rw console=ttyS0 quiet loglevel=4 systemd.show_status=0 net.ifnames=0 mitigations=off",
            "-drive",
            &format!("file={},if=virtio,cache=unsafe,discard=unmap", at("disk.qcow2")),
            "-drive",
            &format!("file={},if=virtio,format=raw,readonly=on", self.seed.display()),
            "-nic",
            &format!("user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{}-:{INGRESS_PORT}", self.port),
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-serial-pci",
            "-chardev",
            &format!("socket,id=identity,path={},server=on,wait=off", at("identity.sock")),
            "-device",
            "virtserialport,chardev=identity,name=stagely.identity",
            "-chardev",
            &format!("file,id=console,path={},append=on", at("console.log")),
            "-serial",
            "chardev:console",
            "-qmp",
            &format!("unix:{},server=on,wait=off", at("qmp.sock")),
            "-pidfile",
            &at("pid"),
            "-rtc",
            "base=utc,clock=host",
        ]
        .map(str::to_owned)
        .into();
        if let Some(memory) = &self.memory {
            arguments.extend(["-incoming".to_owned(), format!("exec:cat {}", super::qmp::quoted(memory))]);
        }
        arguments
    }
}

/// The process of a machine directory, if it runs. The pid file alone is not trusted: the number may be another
/// process's by now, so the command line must name the directory.
pub(super) fn pid(directory: &Path) -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(directory.join("pid")).ok()?.trim().parse().ok()?;
    is_for(pid, directory).then_some(pid)
}

/// Whether a process's arguments name the directory's pid file. One that has ended and was not waited for has none.
fn is_for(process: i32, directory: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let wanted = directory.join("pid").display().to_string();
    line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
}

/// Ends every process that was started for a machine directory and waits until they are gone: also one that has written no
/// pid file yet, because whoever started it was killed, and the wrapper.
pub(super) async fn end(directory: &Path) -> Result<()> {
    let io = |error: std::io::Error| CloudError::io("look for a machine's processes", &error);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = processes(directory).map_err(io)?;
        if processes.is_empty() {
            return Ok(());
        }
        for process in processes {
            // It may end in between: what counts is the look after.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        if Instant::now() > until {
            return Err(CloudError::new(ErrorKind::Timeout, "end QEMU", "the process does not end").ambiguous());
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// All that runs for the directory.
fn processes(directory: &Path) -> std::io::Result<Vec<rustix::process::Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        let process = number.filter(|number| is_for(*number, directory));
        found.extend(process.and_then(rustix::process::Pid::from_raw));
    }
    Ok(found)
}

/// A loopback port that is free now.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| CloudError::io("find a free port", &error))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| CloudError::io("find a free port", &error))
}

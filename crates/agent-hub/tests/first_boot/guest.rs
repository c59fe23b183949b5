//! One virtual machine, watched by its console, on which journald says everything.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// What the kernel is told. The journal goes to the console too; else the boot is as the image has it.
const KERNEL: &str = "root=/dev/vda rw console=ttyS0 mitigations=off systemd.journald.forward_to_console=1 \
                      systemd.journald.max_level_console=info";

pub struct Guest {
    process: Child,
    directory: PathBuf,
    begun: Instant,
}

impl Guest {
    /// Boots a copy of `disk` with cloud-init's seed at `seed`, a URL. It ends when this is dropped.
    pub fn boot(directory: &Path, image: &Path, disk: &Path, seed: &str, accel: &str) -> Self {
        std::fs::create_dir(directory).unwrap();
        let copy = directory.join("disk.qcow2");
        let mut overlay = std::process::Command::new("qemu-img");
        overlay.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(disk).arg(&copy);
        assert!(overlay.status().unwrap().success());
        let (cpu, at) = (if accel == "kvm" { "host" } else { "max,avx=off,avx2=off" }, |name: &str| {
            image.join(name).display().to_string()
        });
        let process = Command::new("qemu-system-x86_64")
            .args(["-machine", "q35,vmport=off,usb=off", "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "1536"])
            .args(["-display", "none", "-vga", "none", "-nodefaults", "-no-user-config", "-append", KERNEL])
            .args(["-kernel", &at("vmlinuz"), "-initrd", &at("initrd")])
            .args(["-drive", &format!("file={},if=virtio,cache=unsafe,discard=unmap", copy.display())])
            .args(["-smbios", &format!("type=1,serial=ds=nocloud;s={seed}")])
            .args(["-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci"])
            .args(["-serial", &format!("file:{}", directory.join("console.log").display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, directory: directory.to_owned(), begun: Instant::now() }
    }

    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits until its console has these words.
    pub async fn says(&mut self, words: &str, within: Duration) {
        let until = Instant::now() + within;
        while !self.console().contains(words) {
            assert!(self.runs() && Instant::now() < until, "it does not say {words:?}: {}", self.tail());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until it ends by itself.
    pub async fn ends(&mut self, within: Duration) {
        let ended = tokio::time::timeout(within, self.process.wait()).await;
        assert!(ended.is_ok_and(|status| status.unwrap().success()), "it does not end: {}", self.tail());
    }

    /// Pulls its plug.
    pub async fn end(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// The console has all of these, each for the first time after the one before.
    pub fn said_in_order(&self, words: &[&str]) {
        let console = self.console();
        let places: Vec<_> = words.iter().map(|words| (console.find(words), words)).collect();
        assert!(places.iter().all(|(place, _)| place.is_some()) && places.is_sorted(), "{places:?}: {}", self.tail());
    }

    pub fn never_said(&self, words: &[&str]) {
        let console = self.console();
        let said: Vec<_> = words.iter().filter(|words| console.contains(**words)).collect();
        assert!(said.is_empty(), "it said {said:?}: {}", self.tail());
    }

    /// The last lines of the console, for a person.
    pub fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<_> = console.lines().collect();
        format!("{}\n{}", self.directory.display(), lines[lines.len().saturating_sub(60)..].join("\n"))
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("console.log")).unwrap_or_default()).into_owned()
    }
}

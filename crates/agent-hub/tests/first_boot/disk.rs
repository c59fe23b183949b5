//! What is on the disk of a machine that has ended.

use std::path::{Path, PathBuf};

use tokio::process::Command;

pub struct Disk {
    raw: PathBuf,
}

impl Disk {
    /// Reads a copy of `disk`, made in `scratch`.
    pub async fn open(disk: &Path, scratch: &Path) -> Self {
        let raw = tempfile::NamedTempFile::new_in(scratch).unwrap().into_temp_path().keep().unwrap();
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-q", "-O", "raw"]).arg(disk).arg(&raw);
        assert!(convert.status().await.unwrap().success());
        Self { raw }
    }

    pub async fn has(&self, path: &str) -> bool {
        self.ask(&format!("stat {path}")).await.contains("Inode:")
    }

    /// The names in a directory; none when there is none.
    pub async fn names(&self, directory: &str) -> Vec<String> {
        let listing = self.ask(&format!("ls -p {directory}")).await;
        let names = listing.lines().filter_map(|line| line.split('/').nth(5));
        names.filter(|name| ![".", ".."].contains(name)).map(str::to_owned).collect()
    }

    pub async fn text(&self, path: &str) -> String {
        assert!(self.has(path).await, "there is no {path}");
        self.ask(&format!("cat {path}")).await
    }

    async fn ask(&self, request: &str) -> String {
        let output = Command::new("debugfs").args(["-R", request]).arg(&self.raw).output().await.unwrap();
        assert!(output.status.success(), "debugfs -R {request:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.raw);
    }
}

//! What is left of virtual machines in a state directory.

use std::path::Path;

/// Directories of machines, and processes that run from below `state`.
pub fn left(state: &Path) -> Vec<String> {
    let machines = state.join("qemu/machines");
    let mut left: Vec<String> = std::fs::read_dir(&machines)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().display().to_string())).collect())
        .unwrap_or_default();
    let prefix = machines.display().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with("qemu-system") && line.contains(&prefix) {
            left.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    left
}

//! What is left of virtual machines in a state directory.

use std::path::Path;

/// Directories of machines, and processes that run from below `state`.
pub fn left(state: &Path) -> Vec<String> {
    let machines = state.join("qemu/machines");
    let mut left: Vec<String> = std::fs::read_dir(&machines)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().display().to_string())).collect())
        .unwrap_or_default();
    left.extend(processes(&machines).iter().map(|pid| format!("process {pid}")));
    left
}

/// Ends the machines that a demonstration which was cut off has left, and removes what they kept.
pub fn clear(state: &Path) {
    for pid in processes(&state.join("qemu")) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may end by itself in between.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for directory in ["machines", "trash", "locks"] {
        let _ = std::fs::remove_dir_all(state.join("qemu").join(directory));
    }
}

/// Virtual machines whose files are below `directory`.
fn processes(directory: &Path) -> Vec<i32> {
    let prefix = directory.display().to_string();
    let ours = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.starts_with("qemu-system") && line.contains(&prefix)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(ours).filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

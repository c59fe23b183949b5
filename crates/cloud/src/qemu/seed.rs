//! The seed disk: cloud-init's `NoCloud` source, with the agent's program beside it.

use std::io::Write;
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::{Value, json};

use crate::request::AgentConfig;
use crate::user_data::{AGENT_UNIT, NO_METADATA, UNENROLLED, deadline};
use crate::{CloudError, ErrorKind, Result};

/// What a machine is to do at its first boot.
pub(super) enum Boot<'b> {
    /// Become a template: start the agent without an identity.
    Template,
    /// Be this machine at once.
    Machine(&'b AgentConfig),
}

/// Writes a FAT disk labelled `CIDATA` (cloud-init's name for it) to `path`.
pub(super) fn write(path: &Path, name: &str, boot: &Boot<'_>, agent: &Path) -> Result<()> {
    let doing = "make a seed disk";
    let program = std::fs::read(agent).map_err(|error| {
        CloudError::new(ErrorKind::Invalid, doing, format!("the agent's program {}: {error}", agent.display()))
    })?;
    let disk = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path);
    let disk = disk.map_err(|error| CloudError::io(doing, &error))?;
    let room = u64::try_from(program.len()).unwrap_or(0) + 4 * 1024 * 1024;
    disk.set_len(room.max(16 * 1024 * 1024).next_multiple_of(1 << 20))
        .map_err(|error| CloudError::io(doing, &error))?;
    let options = FormatVolumeOptions::new().volume_label(*b"CIDATA     ").fat_type(FatType::Fat16);
    fatfs::format_volume(&disk, options).map_err(|error| CloudError::io(doing, &error))?;
    let system = FileSystem::new(&disk, FsOptions::new()).map_err(|error| CloudError::io(doing, &error))?;
    let user_data = format!("#cloud-config\n{}", user_data(boot));
    let meta_data = json!({"instance-id": name, "local-hostname": name}).to_string();
    let files: [(&str, &[u8]); 3] =
        [("user-data", user_data.as_bytes()), ("meta-data", meta_data.as_bytes()), ("stagely-agent", &program)];
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name).map_err(|error| CloudError::io(doing, &error))?;
        file.write_all(content).map_err(|error| CloudError::io(doing, &error))?;
    }
    Ok(())
}

/// JSON, which is YAML: whatever the values hold, they stay values.
fn user_data(boot: &Boot<'_>) -> Value {
    let mut files = vec![json!({
        "path": "/etc/systemd/system/stagely-agent.service",
        "content": AGENT_UNIT,
    })];
    let mut first = Vec::new();
    if let Boot::Machine(config) = boot {
        files.push(json!({
            "path": "/etc/stagely/agent.json",
            "permissions": "0600",
            "content": serde_json::to_string(&config.file()).unwrap_or_default(),
        }));
        // Before anything else: without an enrolment the machine ends itself.
        first.push(json!(["sh", "-c", deadline(UNENROLLED)]));
    }
    first.push(json!(NO_METADATA));
    json!({
        "bootcmd": first,
        "write_files": files,
        "runcmd": [
            ["mkdir", "-p", "/run/stagely/seed"],
            ["mount", "-o", "ro", "/dev/vdb", "/run/stagely/seed"],
            ["install", "-m", "0755", "/run/stagely/seed/stagely-agent", "/usr/local/bin/stagely-agent"],
            ["umount", "/run/stagely/seed"],
            ["rm", "-rf", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/user-data.txt.i",
             "/run/cloud-init/instance-data-sensitive.json", "/var/lib/cloud/seed"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "--no-block", "stagely-agent.service"],
        ],
    })
}

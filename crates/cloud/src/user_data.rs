//! The first boot of a machine at a cloud: cloud-init user data that fits every provider's limit.
//!
//! The image is plain Debian 13 or one that was baked from it. The deadline that ends a machine nobody enrolled is armed
//! before anything else; what lacks is installed; the agent comes by URL, unless the image has it, and is started only when
//! its hash is the one that we gave. A machine that bakes gets no identity: it ends itself once its disk is whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::request::{Bake, CreateRequest};
use crate::{CloudError, ErrorKind, Result};

/// When a machine that nobody enrolled ends itself.
pub(crate) const UNENROLLED: Duration = Duration::from_secs(600);
/// When a machine that bakes ends itself, whatever has become of it. From outside a failed bake then looks like one that
/// went well, so this must be later than anybody still makes an image of it.
pub const BAKE_DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// The agent's service.
pub(crate) const AGENT_UNIT: &str = "[Unit]
Description=Stagely agent
After=docker.service network-online.target
Wants=docker.service network-online.target

[Service]
ExecStart=/usr/local/bin/stagely-agent --wait-for-identity
Restart=always
RestartSec=1
StandardOutput=journal+console
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
";

/// Runs after cloud-init, which writes files to its very end.
const GENERALISE_UNIT: &str = "[Unit]
After=cloud-final.service
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/sbin/stagely-generalise
StandardOutput=journal+console
";

/// What makes the machine unreachable for its containers' requests to the provider's metadata, which knows the user data.
pub(crate) const NO_METADATA: [&str; 5] = ["ip", "route", "replace", "blackhole", "169.254.169.254/32"];

const INSTALL: &str = include_str!("user_data/install.sh");
const BAKE: &str = include_str!("user_data/bake.sh");
const GENERALISE: &str = include_str!("user_data/generalise.sh");

/// `$1` is the URL of the agent's program, `$2` its SHA-256. A machine without it is of no use.
const START: &str = "if sh /usr/local/sbin/stagely-install \"$1\" \"$2\"; then
  systemctl daemon-reload
  systemctl enable --now --no-block stagely-agent.service
else
  systemctl poweroff
fi
";

/// Ends a machine that nobody enrolled `after` its boot. `systemctl` speaks to the init process itself; `systemd-run`
/// would wait for the message bus, which starts only after this stage of the boot.
pub(crate) fn deadline(after: Duration) -> String {
    let secs = after.as_secs();
    format!(
        "mkdir -p /run/systemd/system
cat > /run/systemd/system/stagely-deadline.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c '[ -e /run/stagely/enrolled ] || systemctl poweroff'
UNIT
cat > /run/systemd/system/stagely-deadline.timer <<'UNIT'
[Unit]
DefaultDependencies=no
[Timer]
OnActiveSec={secs}
AccuracySec=1s
UNIT
systemctl daemon-reload
systemctl start --no-block stagely-deadline.timer
"
    )
}

/// The user data of a machine: `#cloud-config` and JSON, which is YAML, so that whatever a value holds stays a value.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it is longer than `limit` bytes, or what is to be pulled is no image; nothing was sent then.
pub(crate) fn render(request: &CreateRequest, limit: usize) -> Result<String> {
    let after = if request.bake.is_some() { BAKE_DEADLINE } else { UNENROLLED };
    render_with_deadline(request, limit, after)
}

/// The same with another deadline: a test cannot wait that long.
pub(crate) fn render_with_deadline(request: &CreateRequest, limit: usize, after: Duration) -> Result<String> {
    let (mut files, commands) = match &request.bake {
        None => machine(request)?,
        Some(bake) => baker(request, bake)?,
    };
    files.extend([
        json!({"path": "/etc/systemd/system/stagely-agent.service", "content": AGENT_UNIT}),
        script("stagely-install", INSTALL),
    ]);
    let document = json!({
        "bootcmd": [["sh", "-c", deadline(after)], NO_METADATA],
        "write_files": files,
        "runcmd": commands,
    });
    let text = format!("#cloud-config\n{document}\n");
    if text.len() > limit {
        return Err(refused(format!("{} bytes, and the provider takes {limit}", text.len())));
    }
    Ok(text)
}

/// Files and commands of a machine that works: its identity, and its agent.
fn machine(request: &CreateRequest) -> Result<(Vec<Value>, Value)> {
    let config = serde_json::to_string(&request.config.file()).map_err(|error| refused(error.to_string()))?;
    let files = vec![json!({"path": "/etc/stagely/agent.json", "permissions": "0600", "content": config})];
    // One without an agent installs nothing: what is on it is only for who looks at it.
    let install = match request.agent.is_nothing() {
        true => json!(["true"]),
        false => json!(["sh", "-c", START, "stagely", request.agent.url, request.agent.sha256]),
    };
    let commands = json!([
        install,
        // The token is worthless once used, but nobody else needs to read it before.
        ["rm", "-rf", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/user-data.txt.i"],
    ]);
    Ok((files, commands))
}

/// Files and commands of a machine that an image is made of. Nothing here says who it is.
fn baker(request: &CreateRequest, bake: &Bake) -> Result<(Vec<Value>, Value)> {
    if let Some(image) = bake.base_images.iter().find(|image| !is_image(image)) {
        return Err(refused(format!("{image:?} is no image")));
    }
    if request.agent.is_nothing() {
        // An image of the machine as it is, for who asks whether images can be made at all.
        return Ok((Vec::new(), json!([["systemctl", "--no-block", "poweroff"]])));
    }
    let files = vec![
        script("stagely-bake", BAKE),
        script("stagely-generalise", GENERALISE),
        json!({"path": "/etc/systemd/system/stagely-generalise.service", "content": GENERALISE_UNIT}),
    ];
    let mut bake_it = vec!["sh", "/usr/local/sbin/stagely-bake", &request.agent.url, &request.agent.sha256];
    bake_it.extend(bake.base_images.iter().map(String::as_str));
    Ok((files, json!([["systemctl", "daemon-reload"], bake_it])))
}

fn script(name: &str, content: &str) -> Value {
    json!({"path": format!("/usr/local/sbin/{name}"), "permissions": "0700", "content": content})
}

/// Whether it looks like an image's name, which is one word for Docker and no option.
fn is_image(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    name.len() <= 255 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain)
}

fn refused(message: String) -> CloudError {
    CloudError::new(ErrorKind::Invalid, "write a machine's user data", message)
}

#[cfg(test)]
mod tests;

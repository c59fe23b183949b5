//! The first boot of a machine at a cloud: cloud-init user data that fits every provider's limit.
//!
//! The image is plain Debian 13 or one of ours. The deadline that ends a machine nobody enrolled is armed before anything
//! else; the agent comes by URL and is started only when its hash is the one that we gave.

use serde_json::{Value, json};

use crate::request::CreateRequest;
use crate::{CloudError, ErrorKind, Result};

/// Ends a machine that nobody enrolled in ten minutes. `systemctl` speaks to the init process itself; `systemd-run`
/// would wait for the message bus, which starts only after this stage of the boot.
pub(crate) const DEADLINE: &str = "mkdir -p /run/systemd/system
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
OnActiveSec=600
AccuracySec=1s
UNIT
systemctl daemon-reload
systemctl start --no-block stagely-deadline.timer
";

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

/// What makes the machine unreachable for its containers' requests to the provider's metadata, which knows the user data.
pub(crate) const NO_METADATA: [&str; 5] = ["ip", "route", "replace", "blackhole", "169.254.169.254/32"];

/// Docker where the image lacks it, then the agent. `$1` is its URL, `$2` its SHA-256: words of ours, not of a user.
const INSTALL: &str = "set -eu
if ! command -v docker >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install --yes --no-install-recommends docker.io docker-cli docker-compose docker-buildx git ca-certificates curl
fi
partial=/usr/local/bin/stagely-agent.partial
for try in 1 2 3 4 5 6 7 8 9 10; do
  if curl --fail --silent --show-error --location --max-time 120 --output \"$partial\" \"$1\" \\
    && echo \"$2  $partial\" | sha256sum --check --status; then
    chmod 755 \"$partial\"
    mv \"$partial\" /usr/local/bin/stagely-agent
    systemctl daemon-reload
    systemctl enable --now --no-block stagely-agent.service
    exit 0
  fi
  sleep 3
done
echo 'stagely: the agent could not be installed' >/dev/console
systemctl poweroff
";

/// The user data of a machine: `#cloud-config` and JSON, which is YAML, so that whatever a value holds stays a value.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it is longer than `limit` bytes; nothing was sent then.
pub(crate) fn render(request: &CreateRequest, limit: usize) -> Result<String> {
    let doing = "write a machine's user data";
    let config = serde_json::to_string(&request.config.file())
        .map_err(|error| CloudError::new(ErrorKind::Invalid, doing, error.to_string()))?;
    let mut document: Value = json!({
        "bootcmd": [["sh", "-c", DEADLINE], NO_METADATA],
        "write_files": [
            {"path": "/etc/systemd/system/stagely-agent.service", "content": AGENT_UNIT},
            {"path": "/etc/stagely/agent.json", "permissions": "0600", "content": config},
            {"path": "/usr/local/sbin/stagely-install", "permissions": "0700", "content": INSTALL},
        ],
        "runcmd": [
            ["sh", "/usr/local/sbin/stagely-install", request.agent.url, request.agent.sha256],
            // The token is worthless once used, but nobody else needs to read it before.
            ["rm", "-rf", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/user-data.txt.i"],
        ],
    });
    if request.agent.is_nothing() {
        // Neither Docker nor an agent; what is on it is only for who looks at it.
        document["runcmd"][0] = json!(["true"]);
    }
    let text = format!("#cloud-config\n{document}\n");
    if text.len() > limit {
        let message = format!("{} bytes, and the provider takes {limit}", text.len());
        return Err(CloudError::new(ErrorKind::Invalid, doing, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::InstallationId;

    use super::render;
    use crate::ErrorKind;
    use crate::contract::request;

    #[test]
    fn the_deadline_is_armed_first_and_the_agent_is_pinned() {
        let mut wanted = request(InstallationId::generate(), &SystemClock);
        wanted.agent.url = "https://x/$(reboot)'\"agent".to_owned();
        wanted.agent.sha256 = "0".repeat(64);
        let text = render(&wanted, 16 * 1024).unwrap();
        let document: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert!(document["bootcmd"][0][2].as_str().unwrap().contains("stagely-deadline.timer"));
        assert_eq!(document["runcmd"][0][2], wanted.agent.url);
        assert_eq!(document["runcmd"][0][3], wanted.agent.sha256);
        assert!(text.len() < 8 * 1024, "{} bytes", text.len());
    }

    #[test]
    fn a_machine_without_an_agent_installs_nothing_and_has_its_deadline() {
        let text = render(&request(InstallationId::generate(), &SystemClock), 16 * 1024).unwrap();
        let document: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert!(document["bootcmd"][0][2].as_str().unwrap().contains("stagely-deadline.timer"));
        let runs = document["runcmd"].as_array().unwrap();
        assert!(runs.iter().all(|run| !run.to_string().contains("stagely-install")), "{runs:?}");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_sent() {
        let mut wanted = request(InstallationId::generate(), &SystemClock);
        wanted.config.ca_pem = "x".repeat(20_000);
        let error = render(&wanted, 16 * 1024).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(!error.to_string().contains("contract-token"));
    }
}

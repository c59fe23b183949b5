//! What the engine says of a container or an image, as far as it matters here.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Deserialize;

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// The full id.
    pub id: String,
    /// With a leading slash.
    pub name: String,
    /// What it does.
    pub state: State,
    /// How often the engine started it again.
    #[serde(default)]
    pub restart_count: u32,
    /// What it was made from.
    pub config: Config,
    /// How it is run.
    #[serde(default)]
    pub host_config: HostConfig,
    /// Where it is reachable.
    #[serde(default)]
    pub network_settings: NetworkSettings,
}

/// `State`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// created, running, paused, restarting, removing, exited or dead.
    pub status: String,
    /// Of the last end.
    #[serde(default)]
    pub exit_code: i32,
    /// The first process, as the machine counts.
    #[serde(default)]
    pub pid: i32,
    /// Why it could not be started.
    #[serde(default)]
    pub error: String,
    /// Whether the kernel ended it for want of memory.
    #[serde(default, rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Absent without a health check.
    #[serde(default)]
    pub health: Option<Health>,
}

/// `State.Health`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// starting, healthy, unhealthy or none.
    pub status: String,
    /// The last results, oldest first.
    #[serde(default)]
    pub log: Option<Vec<Probe>>,
}

/// One result of a health check.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// 0 is healthy.
    #[serde(default)]
    pub exit_code: i32,
    /// What the check printed.
    #[serde(default)]
    pub output: String,
}

/// `Config`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// As named in the compose file.
    #[serde(default)]
    pub image: String,
    /// Compose's among them.
    #[serde(default)]
    pub labels: Option<HashMap<String, String>>,
    /// Whether its output is one raw stream.
    #[serde(default)]
    pub tty: bool,
}

/// `HostConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// `host`, `container:<id>`, or a network.
    #[serde(default)]
    pub network_mode: String,
    /// Whether the engine starts it again.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
}

/// `HostConfig.RestartPolicy`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Empty, no, always, unless-stopped or on-failure.
    #[serde(default)]
    pub name: String,
}

/// `NetworkSettings`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By network name.
    #[serde(default)]
    pub networks: Option<HashMap<String, Endpoint>>,
}

/// One network's address.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Endpoint {
    /// Empty when not connected.
    #[serde(default, rename = "IPAddress")]
    pub ip_address: String,
    /// Empty without IPv6.
    #[serde(default, rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// `name@sha256:…` for each registry that has it.
    #[serde(default)]
    pub repo_digests: Option<Vec<String>>,
}

impl Container {
    /// The compose service it belongs to; empty for none.
    #[must_use]
    pub fn service(&self) -> &str {
        self.config
            .labels
            .as_ref()
            .and_then(|labels| labels.get("com.docker.compose.service"))
            .map_or("", String::as_str)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.status == "running"
    }

    /// Whether the engine leaves it alone once it has ended.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        matches!(self.host_config.restart_policy.name.as_str(), "" | "no" | "on-failure")
    }

    /// healthy, unhealthy, starting, or empty without a health check.
    #[must_use]
    pub fn health(&self) -> &str {
        match &self.state.health {
            Some(health) if health.status != "none" => &health.status,
            _ => "",
        }
    }

    /// Where its ports are, of its own: `None` while it has no address, or shares another's network.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        if self.host_config.network_mode == "host" {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        let networks = self.network_settings.networks.as_ref()?;
        let mut names: Vec<_> = networks.iter().collect();
        names.sort_by(|a, b| a.0.cmp(b.0));
        names.iter().flat_map(|(_, end)| [&end.ip_address, &end.global_ipv6_address]).find_map(|text| text.parse().ok())
    }

    /// The container whose network it shares.
    #[must_use]
    pub fn shares_network_of(&self) -> Option<&str> {
        self.host_config.network_mode.strip_prefix("container:")
    }
}

impl Image {
    /// The digest under which `reference`'s repository has it.
    #[must_use]
    pub fn digest_in(&self, reference: &str) -> Option<&str> {
        let repository = repository(reference);
        self.repo_digests.as_ref()?.iter().find_map(|entry| {
            let (name, digest) = entry.split_once('@')?;
            (name == repository).then_some(digest)
        })
    }
}

/// `reference` without tag and digest. The last colon after the last slash starts the tag.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or_default();
    let path = name.rfind('/').map_or(0, |at| at + 1);
    match name[path..].rfind(':') {
        Some(at) => &name[..path + at],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::{Container, Image, repository};

    #[test]
    fn a_container_is_read_from_the_engines_json() {
        let json = serde_json::json!({
            "Id": "abc", "Name": "/p-web-1", "RestartCount": 2,
            "State": {"Status": "running", "ExitCode": 0, "Pid": 7, "Health": {"Status": "starting", "Log": null}},
            "Config": {"Image": "web", "Labels": {"com.docker.compose.service": "web"}},
            "HostConfig": {"NetworkMode": "p_default", "RestartPolicy": {"Name": "always"}},
            "NetworkSettings": {"Networks": {"p_default": {"IPAddress": "172.18.0.2"}}}
        });
        let container: Container = serde_json::from_value(json).unwrap();
        assert_eq!(container.service(), "web");
        assert_eq!(container.health(), "starting");
        assert_eq!(container.address(), Some([172, 18, 0, 2].into()));
        assert!(container.is_running() && !container.is_one_shot());
    }

    #[test]
    fn a_digest_is_taken_from_the_right_registry() {
        let image = Image {
            repo_digests: Some(vec![
                "localhost:5001/team/web@sha256:bb".to_owned(),
                "localhost:5000/team/web@sha256:aa".to_owned(),
            ]),
        };
        assert_eq!(image.digest_in("localhost:5000/team/web:pr-1"), Some("sha256:aa"));
        assert_eq!(image.digest_in("localhost:5000/team/api:pr-1"), None);
        assert_eq!(repository("localhost:5000/web"), "localhost:5000/web");
    }
}

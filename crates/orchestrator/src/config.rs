//! The table `[orchestrator]`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use stagely_cloud::account::Apis;
use stagely_domain::machine::Arch;
use stagely_domain::secret::Secret;
use stagely_forge::github::Auth;

/// What the orchestrator is told.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The git host.
    pub github: GitHub,
    /// Where machines download the agent: `{arch}` is replaced.
    pub agent_url: String,
    /// The same programs, to know their checksums.
    pub agent_binaries: AgentBinaries,
    /// The `qemu` provider.
    pub qemu: Qemu,
    /// Where the clouds' APIs are, when not where their providers have them.
    #[serde(default)]
    pub clouds: Apis,
    /// `host:port` of the registry, as machines reach it.
    pub registry_host: String,
    /// The CA of the registry, in PEM; sent to machines.
    pub registry_ca_file: Option<PathBuf>,
    /// A pull-through cache for Docker Hub, as machines reach it.
    #[serde(default)]
    pub mirror_url: String,
    /// Where the public edge answers, for the proof request: `ip:port`.
    pub edge_address: std::net::SocketAddr,
    /// Connections to the database.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// What every key in Redis starts with.
    #[serde(default = "default_prefix")]
    pub redis_prefix: String,
    /// Hours from a machine's creation to the end that is written on it at its provider, for whoever clears up an account
    /// whose control plane is gone. A running control plane does not go by it.
    #[serde(default = "default_lifetime_hours")]
    pub machine_lifetime_hours: i64,
}

/// Where the agent's static programs are.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentBinaries {
    /// For x86-64; it is put on the seed disks of `qemu`, too.
    pub amd64: PathBuf,
    /// For AArch64. Without it no such machines are made.
    pub arm64: Option<PathBuf>,
}

impl AgentBinaries {
    /// The program for such machines, or what must be done so that there is one.
    pub fn of(&self, arch: Arch) -> Result<&Path, String> {
        let path = match arch {
            Arch::Amd64 => Some(&*self.amd64),
            Arch::Arm64 => self.arm64.as_deref(),
        };
        path.ok_or_else(|| {
            let setting = format!("`agent_binaries.{arch}` in `[orchestrator]` and `[api]`");
            format!("there is no agent for {arch} machines: whoever runs Stagely must set {setting}")
        })
    }
}

/// How we are known to GitHub: tokens, or an App.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHub {
    /// `https://api.github.com`, or an Enterprise's.
    #[serde(default = "default_api_url")]
    pub api_url: String,
    /// What clone URLs start with, as machines reach it.
    #[serde(default = "default_git_url")]
    pub git_url: String,
    /// A token that reads pull requests and writes comments, checks and deployments.
    pub token: Option<Secret>,
    /// A token that reads the repositories and no more; machines get it.
    pub clone_token: Option<Secret>,
    /// An App's id.
    pub app_id: Option<String>,
    /// The App's RSA key, a PEM file.
    pub app_key_file: Option<PathBuf>,
}

impl GitHub {
    /// The credential.
    ///
    /// # Errors
    /// Names the setting that is missing or wrong.
    pub fn auth(&self) -> anyhow::Result<Auth> {
        match (&self.app_id, &self.app_key_file, &self.token, &self.clone_token) {
            (Some(app_id), Some(file), _, _) => {
                let key = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Ok(Auth::App { app_id: app_id.clone(), private_key: Secret::new(key) })
            }
            (None, None, Some(token), Some(clone_token)) if token == clone_token => bail!(
                "[orchestrator.github] `clone_token` is the same as `token`: machines get it, so it must be one that \
                 reads and no more"
            ),
            (None, None, Some(token), Some(clone_token)) => {
                Ok(Auth::Token { token: token.clone(), clone_token: clone_token.clone() })
            }
            (None, None, Some(_), None) => bail!(
                "[orchestrator.github] needs `clone_token` beside `token`: what machines clone with, which may read \
                 the repositories' contents and no more, since the author of a pull request is root on its machine"
            ),
            _ => bail!("[orchestrator.github] needs `token` and `clone_token`, or `app_id` and `app_key_file`"),
        }
    }
}

/// The `qemu` provider.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// Machines, templates, locks; default below the common state directory.
    pub state_dir: Option<PathBuf>,
    /// `disk.qcow2`, `vmlinuz`, `initrd`.
    pub image_dir: PathBuf,
    /// Whether machines are copies of a template that is booted once.
    #[serde(default = "yes")]
    pub templates: bool,
}

const fn yes() -> bool {
    true
}

const fn default_connections() -> u32 {
    20
}

const fn default_lifetime_hours() -> i64 {
    24 * 30
}

fn default_prefix() -> String {
    "stagely:".to_owned()
}

fn default_api_url() -> String {
    "https://api.github.com".to_owned()
}

fn default_git_url() -> String {
    "https://github.com".to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use stagely_domain::machine::Arch;
    use stagely_forge::github::Auth;

    use super::{AgentBinaries, Config, GitHub};

    #[test]
    fn a_setting_that_is_not_known_any_more_is_refused_by_its_name() {
        let config = json!({
            "github": {"token": "t"},
            "agent_url": "https://stagely.test/{arch}",
            "agent_binaries": {"amd64": "/agent"},
            "qemu": {"image_dir": "/image"},
            "registry_host": "registry.test:5000",
            "edge_address": "127.0.0.1:8443",
        });
        assert!(serde_json::from_value::<Config>(config.clone()).is_ok());
        let mut older = config;
        older["public_url"] = json!("https://stagely.test");
        let told = serde_json::from_value::<Config>(older).err().unwrap().to_string();
        assert!(told.contains("unknown field `public_url`"), "{told}");
    }

    #[test]
    fn machines_have_a_token_of_their_own_or_the_setting_is_named() {
        let auth = |value| serde_json::from_value::<GitHub>(value).unwrap().auth();
        let both = auth(json!({"token": "writes", "clone_token": "reads"})).unwrap();
        assert!(matches!(both, Auth::Token { clone_token, .. } if clone_token.reveal() == "reads"));
        let refused = |value| format!("{:#}", auth(value).err().unwrap());
        for (told, wanted) in [
            (refused(json!({"token": "writes"})), "needs `clone_token`"),
            (refused(json!({"token": "writes", "clone_token": "writes"})), "`clone_token` is the same as `token`"),
            (refused(json!({"clone_token": "reads"})), "needs `token` and `clone_token`, or `app_id`"),
            (refused(json!({"app_id": "1"})), "or `app_id` and `app_key_file`"),
        ] {
            assert!(told.contains(wanted) && !told.contains("writes"), "{told}");
        }
    }

    #[test]
    fn each_processor_has_its_own_program_or_the_setting_that_is_missing_is_named() {
        let read = |value| serde_json::from_value::<AgentBinaries>(value).unwrap();
        let both = read(json!({"amd64": "/agent/amd64", "arm64": "/agent/arm64"}));
        assert_eq!(both.of(Arch::Amd64), Ok(Path::new("/agent/amd64")));
        assert_eq!(both.of(Arch::Arm64), Ok(Path::new("/agent/arm64")));
        let one = read(json!({"amd64": "/agent/amd64"}));
        assert_eq!(one.of(Arch::Amd64), Ok(Path::new("/agent/amd64")));
        let told = one.of(Arch::Arm64).unwrap_err();
        assert!(told.contains("no agent for arm64 machines") && told.contains("`agent_binaries.arm64`"), "{told}");
    }
}

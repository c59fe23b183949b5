//! Access to the image registry: the login for the Docker client, the authority's certificate and the
//! pull-through mirror for the engine.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stagely_domain::failure::Code;
use stagely_domain::secret::Secret;
use stagely_proto::agent::RegistryAccess;
use tracing::info;

use crate::config::Paths;
use crate::fault::{Fault, Stop};
use crate::files;

/// Where the Docker client's configuration with the login is; on a tmpfs.
#[must_use]
pub fn client_directory(paths: &Paths) -> PathBuf {
    paths.run.join("docker")
}

/// The login as the engine takes it (`X-Registry-Auth`): JSON in the URL's Base64.
#[must_use]
pub fn login(access: &RegistryAccess) -> Secret {
    let login = json!({"username": access.username, "password": access.password, "serveraddress": access.host});
    Secret::new(URL_SAFE.encode(login.to_string()))
}

/// Makes pulls and pushes work: ensures login, certificate and mirror.
///
/// # Errors
/// If files cannot be written, or names would leave their directory.
pub fn ensure(paths: &Paths, access: Option<&RegistryAccess>) -> Result<(), Stop> {
    let Some(access) = access.filter(|access| !access.host.is_empty()) else {
        return write_login(paths, &json!({})).map_err(|error| failed(&error.to_string()));
    };
    let mut auths = json!({});
    if !access.password.is_empty() {
        let auth = STANDARD.encode(format!("{}:{}", access.username, access.password));
        auths[&access.host] = json!({ "auth": auth });
    }
    let all = || -> std::io::Result<bool> {
        write_login(paths, &json!({ "auths": auths }))?;
        if !access.ca_pem.is_empty() {
            trust(&paths.docker_etc, &access.host, &access.ca_pem)?;
            if let Some(host) = https_host(&access.mirror_url) {
                trust(&paths.docker_etc, host, &access.ca_pem)?;
            }
        }
        set_mirror(&paths.docker_etc.join("daemon.json"), &access.mirror_url)
    };
    let changed = all().map_err(|error| failed(&error.to_string()))?;
    if changed {
        reload(&paths.docker_pid);
    }
    Ok(())
}

fn failed(message: &str) -> Stop {
    Fault::new(Code::RegistryFailed, "pull", format!("the registry could not be set up on the machine: {message}"))
        .into()
}

fn write_login(paths: &Paths, login: &Value) -> std::io::Result<()> {
    let directory = client_directory(paths);
    files::ensure_private_dir(&directory)?;
    files::write_private(&directory.join("config.json"), login.to_string().as_bytes())
}

fn trust(docker_etc: &Path, host: &str, ca_pem: &str) -> std::io::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    if host.is_empty() || host.starts_with('.') || !host.chars().all(plain) {
        return Err(std::io::Error::other("the registry's name is no host name"));
    }
    let path = docker_etc.join("certs.d").join(host).join("ca.crt");
    if files::find(&path)?.as_deref() != Some(ca_pem) {
        files::write_public(&path, ca_pem.as_bytes())?;
    }
    Ok(())
}

/// Sets the mirror and leaves all other settings alone. Answers whether anything changed.
fn set_mirror(path: &Path, mirror: &str) -> std::io::Result<bool> {
    let text = files::find(path)?.unwrap_or_default();
    let before: Value = if text.trim().is_empty() { json!({}) } else { serde_json::from_str(&text)? };
    let mut after = before.clone();
    if let Some(settings) = after.as_object_mut() {
        if mirror.is_empty() {
            settings.remove("registry-mirrors");
        } else {
            settings.insert("registry-mirrors".to_owned(), json!([mirror]));
        }
    }
    if after == before {
        return Ok(false);
    }
    files::write_public(path, serde_json::to_string_pretty(&after)?.as_bytes())?;
    Ok(true)
}

/// Tells the engine to read its settings again; one that is not running reads them when it starts.
fn reload(pid_file: &Path) {
    let pid = files::find(pid_file).ok().flatten().and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && kill_process(pid, Signal::HUP).is_ok()
    {
        info!("docker reads its settings again");
    }
}

fn https_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    Some(rest.split('/').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use stagely_proto::agent::RegistryAccess;

    use super::{client_directory, ensure};
    use crate::config::Paths;
    use crate::files;

    #[test]
    fn login_certificate_and_mirror_are_where_docker_looks() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        files::write_public(&paths.docker_etc.join("daemon.json"), br#"{"debug": true}"#).unwrap();
        let mut access = RegistryAccess {
            host: "registry.test:5000".to_owned(),
            username: "machine".to_owned(),
            password: "secret".to_owned(),
            ca_pem: "PEM".to_owned(),
            mirror_url: "https://mirror.test:5001".to_owned(),
        };
        ensure(&paths, Some(&access)).unwrap();
        let read = |path: &std::path::Path| files::find(path).unwrap().unwrap();
        let login = client_directory(&paths).join("config.json");
        assert!(read(&login).contains("bWFjaGluZTpzZWNyZXQ="));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&login).unwrap().permissions().mode() & 0o777, 0o600);
        for host in ["registry.test:5000", "mirror.test:5001"] {
            let path = paths.docker_etc.join("certs.d").join(host).join("ca.crt");
            assert_eq!(read(&path), "PEM");
        }
        let daemon: serde_json::Value = serde_json::from_str(&read(&paths.docker_etc.join("daemon.json"))).unwrap();
        assert_eq!(daemon, serde_json::json!({"debug": true, "registry-mirrors": ["https://mirror.test:5001"]}));
        access.host = "../../evil".to_owned();
        assert!(ensure(&paths, Some(&access)).is_err());
    }
}

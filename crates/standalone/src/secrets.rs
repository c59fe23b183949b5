//! Secrets that development may do without: made once and kept in the state directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use ring::rand::{SecureRandom, SystemRandom};
use stagely_domain::secret::Secret;
use stagely_runtime::Settings;
use stagely_runtime::config::Environment;

/// Fills in what was not given. In production nothing is made up: `config::load` has refused already.
pub fn complete(mut settings: Settings) -> anyhow::Result<Settings> {
    if settings.common.environment == Environment::Production {
        return Ok(settings);
    }
    let directory = settings.common.state_dir.join("secrets");
    if settings.common.encryption_key.is_none() && settings.common.encryption_keys.is_none() {
        settings.common.encryption_key = Some(kept(&directory, "encryption-key")?);
    }
    if settings.common.service_token.is_none() {
        settings.common.service_token = Some(kept(&directory, "service-token")?);
    }
    Ok(settings)
}

/// 32 random bytes in hexadecimal, the same every time.
fn kept(directory: &Path, name: &str) -> anyhow::Result<Secret> {
    let path = directory.join(name);
    let told = || format!("keep {}", path.display());
    if !path.exists() {
        fs::create_dir_all(directory).with_context(told)?;
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no randomness"))?;
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(mut file) => file.write_all(hex::encode(bytes).as_bytes()).with_context(told)?,
            // Another process was quicker; its secret counts.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(told),
        }
    }
    Ok(Secret::new(fs::read_to_string(&path).with_context(told)?.trim()))
}

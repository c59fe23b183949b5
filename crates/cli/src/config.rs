//! Where the server is and who we are: command line and environment first, then the user's file.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use stagely_domain::secret::Secret;

use crate::ClientError;

/// A server and the right to speak with it.
pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) token: Secret,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Option<String>,
    token: Option<Secret>,
}

/// Puts the two together.
pub(crate) fn access(
    url: Option<String>,
    token: Option<String>,
    file: Option<PathBuf>,
    home: Option<&Path>,
) -> Result<Access, ClientError> {
    let given = file.is_some();
    let path = file.or_else(|| home.map(|home| home.join(".config/stagely/config.toml")));
    let stored = match path {
        Some(path) if given || path.is_file() => read(&path)?,
        _ => File::default(),
    };
    let url = url.or(stored.url).filter(|url| !url.is_empty()).ok_or_else(|| {
        ClientError::Setup(
            "no server is known: give --url, set STAGELY_URL, or write `url = \"https://…\"` to \
             ~/.config/stagely/config.toml"
                .to_owned(),
        )
    })?;
    let token = token.map(Secret::new).or(stored.token).filter(|token| !token.is_empty()).ok_or_else(|| {
        ClientError::Setup(
            "no token is known: give --token, set STAGELY_TOKEN, or write `token = \"stg_…\"` to \
             ~/.config/stagely/config.toml; `stagelyd admin token` makes one"
                .to_owned(),
        )
    })?;
    Ok(Access { url: url.trim_end_matches('/').to_owned(), token })
}

fn read(path: &Path) -> Result<File, ClientError> {
    let read = if path.is_file() {
        Figment::from(Toml::file_exact(path)).extract()
    } else {
        Err("no such file".to_owned().into())
    };
    read.map_err(|error| ClientError::Setup(format!("{}: {error}; it may hold `url` and `token`", path.display())))
}

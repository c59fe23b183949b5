//! The agent programs, as machines download them. They are read once at start, so that the bytes and the
//! SHA-256 that goes with them cannot drift apart while a file is being replaced.

use std::path::Path;

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use stagely_domain::machine::Arch;

use crate::App;
use crate::config;
use crate::error::{ApiError, Result};
use crate::extract;

/// What is there to download.
#[derive(Default)]
pub struct AgentBinaries {
    amd64: Option<Binary>,
    arm64: Option<Binary>,
}

struct Binary {
    content: Bytes,
    sha256: String,
}

impl AgentBinaries {
    /// Reads the configured files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub async fn read(config: &config::AgentBinaries) -> anyhow::Result<Self> {
        Ok(Self { amd64: read(config.amd64.as_deref()).await?, arm64: read(config.arm64.as_deref()).await? })
    }

    fn get(&self, arch: Arch) -> Result<&Binary> {
        let binary = match arch {
            Arch::Amd64 => &self.amd64,
            Arch::Arm64 => &self.arm64,
        };
        binary.as_ref().ok_or(ApiError::NotFound("agent program"))
    }
}

async fn read(path: Option<&Path>) -> anyhow::Result<Option<Binary>> {
    let Some(path) = path else { return Ok(None) };
    let content = tokio::fs::read(path).await.with_context(|| format!("read the agent program {}", path.display()))?;
    let sha256 = hex::encode(digest(&SHA256, &content));
    Ok(Some(Binary { content: content.into(), sha256 }))
}

/// `GET /agent/v1/download/{file}`: `amd64`, or `amd64.sha256` in the form that `sha256sum -c` reads.
pub async fn download(
    State(app): State<App>,
    extract::Path(file): extract::Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let (name, checksum) = file.strip_suffix(".sha256").map_or((file.as_str(), false), |name| (name, true));
    let arch = match name {
        "amd64" => Arch::Amd64,
        "arm64" => Arch::Arm64,
        _ => return Err(ApiError::NotFound("agent program")),
    };
    let binary = app.agents.get(arch)?;
    if checksum {
        return Ok(format!("{}  stagely-agent-{arch}\n", binary.sha256).into_response());
    }
    let etag = format!("\"{}\"", binary.sha256);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let sent = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ETAG, etag),
        (header::HeaderName::from_static("x-stagely-sha256"), binary.sha256.clone()),
    ];
    Ok((sent, binary.content.clone()).into_response())
}

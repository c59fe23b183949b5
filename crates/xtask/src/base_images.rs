//! `debian:13-slim`, made of Debian's packages where Docker Hub cannot be reached, and put into the store of the
//! registry that stands in for it. Made once and kept; made anew when the recipe or the mirror changes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, StatusCode, Url};
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::registry;

/// The repository, as Docker Hub calls it.
const REPOSITORY: &str = "library/debian";

/// The names of the one image in it.
const TAGS: [&str; 2] = ["13-slim", "trixie-slim"];

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// How long a step of the making may take: a slow mirror needs minutes.
const STEP: Duration = Duration::from_secs(900);

/// An image's three parts, as a registry takes them.
pub struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// An image of this machine's architecture with one layer: a tar file compressed with gzip, and the digest
    /// of what it was before.
    #[must_use]
    pub fn of_layer(layer: Vec<u8>, diff_id: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["bash"],
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "deploy/base-images/debian.sh"}],
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIG, &config),
            "layers": [part(LAYER, &layer)],
        });
        Self { layer, config, manifest: manifest.to_string().into_bytes() }
    }

    /// Puts the image into the store of a registry that does not run, unless it is there. `scratch` takes files
    /// of the registry that does it.
    ///
    /// # Errors
    /// When the registry cannot be started or refuses.
    pub async fn put(&self, store: &Path, scratch: &Path) -> anyhow::Result<()> {
        let wanted = sha256(&self.manifest);
        if TAGS.iter().all(|tag| registry::find_digest(store, REPOSITORY, tag).as_ref() == Some(&wanted)) {
            return Ok(());
        }
        let (running, address) = registry::start_for_filling(store, scratch).await?;
        let pushed = push(&format!("http://{address}"), self).await;
        running.stop().await;
        pushed
    }
}

/// Makes sure that `store`, the directory of a registry that does not run yet, has the base images. `cache` keeps
/// what was made, `workspace` is the repository's root.
///
/// # Errors
/// When a program is missing or fails; the message says which, and what to install.
pub async fn ensure(workspace: &Path, cache: &Path, store: &Path) -> anyhow::Result<()> {
    let directory = ensure_made(workspace, cache).await?;
    let layer = std::fs::read(directory.join("layer.tar.gz")).context("read the base image's layer")?;
    let diff_id = std::fs::read_to_string(directory.join("diff-id")).context("read the base image's digest")?;
    Image::of_layer(layer, &diff_id).put(store, cache).await
}

/// Makes the image unless it is in the cache; answers its directory.
async fn ensure_made(workspace: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let recipe = workspace.join("deploy/base-images/debian.sh");
    let script = std::fs::read(&recipe).with_context(|| format!("read {}", recipe.display()))?;
    let mirror = debian_mirror().await?;
    let key = sha256(&[script.as_slice(), mirror.as_bytes(), std::env::consts::ARCH.as_bytes()].join(&b'\0'));
    let directory = cache.join(format!("debian-13-slim-{}", &key["sha256:".len()..][..16]));
    if directory.is_dir() {
        return Ok(directory);
    }
    let partial = directory.with_extension("partial");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    let tar = partial.join("layer.tar");
    run(Command::new(&recipe).arg(&mirror).arg(&tar), "needs root, and apt-get install mmdebstrap").await?;
    let diff_id = sha256(&std::fs::read(&tar).context("read the base image's files")?);
    run(Command::new("gzip").args(["-6", "--no-name"]).arg(&tar), "gzip is part of Debian").await?;
    std::fs::write(partial.join("diff-id"), diff_id).context("keep the base image's digest")?;
    std::fs::rename(&partial, &directory).with_context(|| format!("keep {}", directory.display()))?;
    Ok(directory)
}

/// The Debian mirror of this machine's own apt: it is what can be reached from here.
///
/// # Errors
/// When apt names none.
pub async fn debian_mirror() -> anyhow::Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .output()
        .await
        .context("ask apt for its mirror")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mirror = text.lines().map(|line| line.trim_end_matches('/')).find(|line| line.ends_with("/debian"));
    mirror.map(str::to_owned).context("apt names no Debian mirror: add one to /etc/apt/sources.list")
}

async fn run(command: &mut Command, hint: &str) -> anyhow::Result<()> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(STEP, output).await.with_context(|| format!("{program} hangs"))?;
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} ({hint}): {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Puts an image into a registry that asks for no credential (the distribution specification, "Push").
async fn push(base: &str, image: &Image) -> anyhow::Result<()> {
    // An error means that the process has chosen its provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(60)).build().context("set up the registry client")?;
    for bytes in [&image.layer, &image.config] {
        push_blob(&client, base, bytes).await?;
    }
    for tag in TAGS {
        let url = format!("{base}/v2/{REPOSITORY}/manifests/{tag}");
        let request = client.put(url).header(CONTENT_TYPE, MANIFEST).body(image.manifest.clone());
        let answer = request.send().await.with_context(|| format!("push {REPOSITORY}:{tag}"))?;
        expect(StatusCode::CREATED, answer).await.with_context(|| format!("push {REPOSITORY}:{tag}"))?;
    }
    Ok(())
}

async fn push_blob(client: &Client, base: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let doing = "push a layer of a base image";
    let digest = sha256(bytes);
    let found = client.head(format!("{base}/v2/{REPOSITORY}/blobs/{digest}")).send().await.context(doing)?;
    if found.status() == StatusCode::OK {
        return Ok(());
    }
    let opened = client.post(format!("{base}/v2/{REPOSITORY}/blobs/uploads/")).send().await.context(doing)?;
    let opened = expect(StatusCode::ACCEPTED, opened).await.context(doing)?;
    let location =
        opened.headers().get(LOCATION).and_then(|value| value.to_str().ok()).context("no place to upload to")?;
    let mut url = Url::parse(base)?.join(location).context("the place to upload to")?;
    url.query_pairs_mut().append_pair("digest", &digest);
    let answer = client.put(url).body(bytes.to_vec()).send().await.context(doing)?;
    expect(StatusCode::CREATED, answer).await.context(doing).map(drop)
}

async fn expect(wanted: StatusCode, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status == wanted {
        return Ok(answer);
    }
    bail!("the registry answered {status}: {}", answer.text().await.unwrap_or_default())
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

//! `debian:13-slim` and `busybox:1`, made of Debian's packages where Docker Hub cannot be reached, and put into the
//! store of the registry that stands in for it. Made once and kept; made anew when the recipe or the mirror changes.

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

/// What an image is called, and how its files come to be.
pub struct Base {
    /// As Docker Hub calls it.
    repository: &'static str,
    tags: &'static [&'static str],
    /// The script's name, below `deploy/base-images`.
    recipe: &'static str,
    shell: &'static str,
}

/// `debian:13-slim`, which is also `debian:trixie-slim`.
pub const DEBIAN: Base =
    Base { repository: "library/debian", tags: &["13-slim", "trixie-slim"], recipe: "debian.sh", shell: "bash" };

/// `busybox:1`: one static program of 2 MB.
pub const BUSYBOX: Base = Base { repository: "library/busybox", tags: &["1"], recipe: "busybox.sh", shell: "sh" };

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// How long a step of the making may take: a slow mirror needs minutes.
const STEP: Duration = Duration::from_secs(900);

/// An image's three parts, as a registry takes them.
pub struct Image {
    base: &'static Base,
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// An image of this machine's architecture with one layer: a tar file compressed with gzip, and the digest
    /// of what it was before.
    #[must_use]
    pub fn of_layer(base: &'static Base, layer: Vec<u8>, diff_id: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": [base.shell],
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": format!("deploy/base-images/{}", base.recipe)}],
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIG, &config),
            "layers": [part(LAYER, &layer)],
        });
        Self { base, layer, config, manifest: manifest.to_string().into_bytes() }
    }

    /// Puts the image into the store of a registry that does not run, unless it is there. `scratch` takes files
    /// of the registry that does it.
    ///
    /// # Errors
    /// When the registry cannot be started or refuses.
    pub async fn put(&self, store: &Path, scratch: &Path) -> anyhow::Result<()> {
        let wanted = sha256(&self.manifest);
        let Base { repository, tags, .. } = self.base;
        if tags.iter().all(|tag| registry::find_digest(store, repository, tag).as_ref() == Some(&wanted)) {
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
    for base in [&DEBIAN, &BUSYBOX] {
        let directory = ensure_made(base, workspace, cache).await?;
        let layer = std::fs::read(directory.join("layer.tar.gz")).context("read a base image's layer")?;
        let diff_id = std::fs::read_to_string(directory.join("diff-id")).context("read a base image's digest")?;
        Image::of_layer(base, layer, &diff_id).put(store, cache).await?;
    }
    Ok(())
}

/// Makes the image unless it is in the cache; answers its directory.
async fn ensure_made(base: &Base, workspace: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let recipe = workspace.join("deploy/base-images").join(base.recipe);
    let script = std::fs::read(&recipe).with_context(|| format!("read {}", recipe.display()))?;
    let mirror = debian_mirror().await?;
    let key = sha256(&[script.as_slice(), mirror.as_bytes(), std::env::consts::ARCH.as_bytes()].join(&b'\0'));
    let name = base.repository.replace('/', "-");
    let directory = cache.join(format!("{name}-{}", &key["sha256:".len()..][..16]));
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
async fn push(registry: &str, image: &Image) -> anyhow::Result<()> {
    // An error means that the process has chosen its provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(60)).build().context("set up the registry client")?;
    let Base { repository: name, tags, .. } = image.base;
    let repository = format!("{registry}/v2/{name}");
    for bytes in [&image.layer, &image.config] {
        push_blob(&client, &repository, bytes).await?;
    }
    for tag in *tags {
        let request = client.put(format!("{repository}/manifests/{tag}"));
        let request = request.header(CONTENT_TYPE, MANIFEST).body(image.manifest.clone());
        let answer = request.send().await.with_context(|| format!("push {name}:{tag}"))?;
        expect(StatusCode::CREATED, answer).await.with_context(|| format!("push {name}:{tag}"))?;
    }
    Ok(())
}

/// `repository` is its address at the registry.
async fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let doing = "push a layer of a base image";
    let digest = sha256(bytes);
    let found = client.head(format!("{repository}/blobs/{digest}")).send().await.context(doing)?;
    if found.status() == StatusCode::OK {
        return Ok(());
    }
    let opened = client.post(format!("{repository}/blobs/uploads/")).send().await.context(doing)?;
    let opened = expect(StatusCode::ACCEPTED, opened).await.context(doing)?;
    let location =
        opened.headers().get(LOCATION).and_then(|value| value.to_str().ok()).context("no place to upload to")?;
    let mut url = Url::parse(repository)?.join(location).context("the place to upload to")?;
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

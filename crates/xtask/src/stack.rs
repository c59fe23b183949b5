//! The whole stack on loopback: Postgres, Redis, registries, a git host, and the control plane.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Client;
use serde_json::{Value, json};
use stagely_cloud::qemu::{self, Qemu};
use stagely_domain::clock::SystemClock;
use stagely_domain::machine::Size;
use stagely_domain::secret::Secret;
use stagely_forge::testing::{CLONE_TOKEN, GitHost, TOKEN};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::registry::{Access, Registry, Running, Tls, free_address};

use crate::artifacts::Beside;
use crate::control_plane::{ControlPlane, Mode};
use crate::services::Services;
use crate::{artifacts, progress, scratch, workspace};

/// The name by which machines reach this host's loopback (QEMU's user network).
const HOST: &str = "10.0.2.2";
const WEBHOOK_SECRET: &str = "the webhook secret of a demonstration";

/// Everything that runs.
pub struct Stack {
    pub host: GitHost,
    pub api: String,
    pub edge: SocketAddr,
    pub token: Secret,
    pub state: PathBuf,
    pub images: PathBuf,
    pub services: Services,
    machines: Qemu,
    registries: Vec<Running>,
    control_plane: Mutex<ControlPlane>,
    shutdown: CancellationToken,
    client: Client,
}

impl Stack {
    /// Builds what is missing and starts everything. Machine templates are kept from one time to the next.
    pub async fn start(mode: Mode, beside: Beside) -> anyhow::Result<Self> {
        let (image, agent) = (artifacts::image().await?, artifacts::agent().await?);
        let stagelyd = artifacts::stagelyd(beside).await?;
        let services = Services::start().await?;
        let state = scratch().join("state");
        let run = scratch().join("run");
        let _ = std::fs::remove_dir_all(&run);
        std::fs::create_dir_all(&run).with_context(|| format!("make {}", run.display()))?;
        std::fs::create_dir_all(&state).with_context(|| format!("make {}", state.display()))?;
        crate::machine::clear(&state);
        // The database is a new one, and so are the secrets that open what is in it.
        let _ = std::fs::remove_dir_all(state.join("secrets"));

        let (base_store, images) = (scratch().join("base-images"), run.join("images"));
        xtask::base_images::ensure(&workspace(), &scratch().join("cache"), &base_store).await?;

        let mut free = Vec::new();
        for _ in 0..18 {
            free.push(free_address().await?);
        }
        let (api, hub, edge) = (free[0], free[1], free[2]);
        let (registry, own_registry, mirror) = (free[3], free[4], free[5]);
        let shutdown = CancellationToken::new();
        let webhook = Some((format!("http://{api}/webhooks/github"), Secret::new(WEBHOOK_SECRET)));
        let host = GitHost::start(0, webhook, shutdown.clone()).await;

        let at_host = |address: SocketAddr| format!("{HOST}:{}", address.port());
        let tls = state.join("tls");
        let mut config = json!({
            "common": {
                "database_url": services.postgres_url,
                "redis_url": services.redis_url,
                "state_dir": state,
                "preview_domain": "preview.localhost",
                "preview_url": {"scheme": "http", "port": edge.port()},
            },
            "api": {
                "listen": api,
                "public_url": format!("http://{}", at_host(api)),
                "github_webhook_secrets": [WEBHOOK_SECRET],
                "agent_binaries": {"amd64": agent},
                "registry": {"host": at_host(registry)},
            },
            "agent_hub": {
                "listen": hub,
                "public_url": format!("https://{}", at_host(hub)),
                "server_names": [HOST, "127.0.0.1", "localhost"],
                "heartbeat_secs": 10,
                "lease_secs": 60,
            },
            "orchestrator": {
                "github": {
                    "api_url": host.api_url(),
                    "git_url": host.git_url(HOST),
                    "token": TOKEN,
                    "clone_token": CLONE_TOKEN,
                },
                "agent_url": format!("http://{}/agent/v1/download/{{arch}}", at_host(api)),
                "agent_binaries": {"amd64": agent},
                "qemu": {"image_dir": image},
                "registry_host": at_host(registry),
                "registry_ca_file": tls.join("ca.pem"),
                "mirror_url": format!("https://{}", at_host(mirror)),
                "edge_address": edge,
            },
            "builder_scheduler": {
                "registry_host": at_host(registry),
                "registry_api_url": format!("https://{own_registry}"),
                "registry_ca_file": tls.join("ca.pem"),
                "mirror_url": format!("https://{}", at_host(mirror)),
            },
            "edge_proxy": {
                "listen": edge,
                "client_cert_file": tls.join("edge.pem"),
                "client_key_file": tls.join("edge.key"),
                "ca_file": tls.join("ca.pem"),
            },
        });
        for (index, peer) in PEERS.iter().enumerate() {
            let (grpc, admin) = (free[6 + index * 2], free[7 + index * 2]);
            config["ports"][peer] =
                json!({"grpc_listen": grpc, "admin_listen": admin, "grpc_url": format!("http://{grpc}")});
        }
        let file = run.join("stagely.toml");
        std::fs::write(&file, toml(&config)).with_context(|| format!("write {}", file.display()))?;

        ControlPlane::command(&stagelyd, &file, &["migrate", "up"]).await?;
        let names = ["admin", "certificates", "--registry-name", HOST, "--registry-name", "127.0.0.1"];
        ControlPlane::command(&stagelyd, &file, &names).await?;
        let pair = Tls { certificate: tls.join("registry.pem"), key: tls.join("registry.key") };
        let access = |realm: String| Access::Images { realm, root_bundle: tls.join("registry-tokens.pem") };
        let start = async |name: &str, listen, store: &Path, access| {
            let log = run.join(format!("{name}.log"));
            Registry { listen, store: store.to_owned(), log, tls: pair.clone(), access }.start(&workspace()).await
        };
        // Machines and the control plane reach the token endpoint under different names: one registry each, one store.
        let registries = vec![
            start("registry", registry, &images, access(format!("http://{}/registry/token", at_host(api)))).await?,
            start("own-registry", own_registry, &images, access(format!("http://{api}/registry/token"))).await?,
            start("mirror", mirror, &base_store, Access::BaseImages).await?,
        ];

        let control_plane = ControlPlane::start(&stagelyd, &file, &state, mode).await?;
        let token = ControlPlane::command(&stagelyd, &file, &["admin", "token", "--team", "demo"]).await?;
        progress(format!("the control plane is up (logs: {})", run.display()));
        let qemu =
            qemu::Config { state_dir: state.join("qemu"), image_dir: image, agent_binary: agent, templates: true };
        let machines = Qemu::new(qemu, Arc::new(SystemClock))?;
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self {
            host,
            api: format!("http://{api}"),
            edge,
            token: Secret::new(token.trim()),
            state,
            images,
            machines,
            services,
            registries,
            control_plane: Mutex::new(control_plane),
            shutdown,
            client,
        })
    }

    /// Ends the control plane and starts it the other way.
    pub async fn switch(&self, mode: Mode) -> anyhow::Result<()> {
        self.control_plane.lock().await.switch(mode).await
    }

    /// Ends the control plane for good.
    pub async fn abandon(&self) {
        self.control_plane.lock().await.stop().await;
    }

    /// SIGKILL for one service of six; a new process takes its place.
    pub async fn kill(&self, service: &'static str) -> anyhow::Result<()> {
        self.control_plane.lock().await.kill(service).await
    }

    /// Waits until the templates of this image and agent are made, so that what follows is what users see day by day.
    pub async fn warm(&self) -> anyhow::Result<()> {
        let (begun, until) = (Instant::now(), Instant::now() + Duration::from_secs(600));
        while ![Size::Small, Size::Medium].into_iter().all(|size| self.machines.is_prepared(size)) {
            if Instant::now() > until {
                bail!("no machine template after ten minutes: see .stagely/run/stagelyd.log");
            }
            sleep(Duration::from_millis(200)).await;
        }
        if begun.elapsed() > Duration::from_secs(1) {
            progress(format!("machine templates: {:.1} s, once", begun.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    /// A call of the REST API; fails unless it succeeds.
    pub async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request =
            self.client.request(method, format!("{}/api/v1{path}", self.api)).bearer_auth(self.token.reveal());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("call {path}"))?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{path} answered {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The public URL of a preview's host.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.edge.port())
    }

    /// A visit of a preview through the edge.
    pub async fn visit(&self, host: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let url = format!("http://{}{path}", self.edge);
        let answer = self.client.get(url).header("host", host).send().await.context("visit the preview")?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// A form sent to a preview through the edge.
    pub async fn submit(&self, host: &str, path: &str, form: &str) -> anyhow::Result<u16> {
        let url = format!("http://{}{path}", self.edge);
        let request =
            self.client.post(url).header("host", host).header("content-type", "application/x-www-form-urlencoded");
        Ok(request.body(form.to_owned()).send().await.context("send a form to the preview")?.status().as_u16())
    }

    /// Ends everything that was started.
    pub async fn stop(mut self) {
        self.control_plane.get_mut().stop().await;
        for registry in self.registries {
            registry.stop().await;
        }
        self.shutdown.cancel();
        self.services.stop().await;
    }
}

const PEERS: [&str; 6] = ["agent_hub", "orchestrator", "builder_scheduler", "edge_proxy", "reaper", "api"];

/// Tables of plain values as TOML; strings are written as JSON writes them, which TOML reads.
fn toml(config: &Value) -> String {
    fn table(out: &mut String, path: &str, value: &Value) {
        let Value::Object(entries) = value else { return };
        if !path.is_empty() {
            out.push_str(&format!("\n[{path}]\n"));
        }
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_object()) {
            out.push_str(&format!("{key} = {value}\n"));
        }
        for (key, value) in entries.iter().filter(|(_, value)| value.is_object()) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            table(out, &path, value);
        }
    }
    let mut out = String::new();
    table(&mut out, "", config);
    out
}

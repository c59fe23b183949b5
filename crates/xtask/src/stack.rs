//! The whole stack on loopback: Postgres, Redis, two registries, a git host, and `stagelyd up`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Client;
use serde_json::{Value, json};
use stagely_cloud::qemu::{self, Qemu};
use stagely_domain::clock::SystemClock;
use stagely_domain::machine::Size;
use stagely_domain::secret::Secret;
use stagely_forge::testing::{GitHost, TOKEN};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::registry::{Access, Registry, Running, Tls, free_address};

use crate::services::Services;
use crate::{artifacts, say, scratch, workspace};

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
    machines: Qemu,
    services: Services,
    registries: Vec<Running>,
    control_plane: Child,
    shutdown: CancellationToken,
    client: Client,
}

impl Stack {
    /// Builds what is missing and starts everything. Machine templates are kept from one time to the next.
    pub async fn start() -> anyhow::Result<Self> {
        let (image, agent) = (artifacts::image().await?, artifacts::agent().await?);
        let stagelyd = artifacts::stagelyd().await?;
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
            },
            "orchestrator": {
                "github": {"api_url": host.api_url(), "git_url": host.git_url(HOST), "token": TOKEN},
                "agent_url": format!("http://{}/agent/v1/download/{{arch}}", at_host(api)),
                "agent_binary": agent,
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
            "edge_proxy": {"listen": edge},
        });
        for (index, peer) in PEERS.iter().enumerate() {
            let (grpc, admin) = (free[6 + index * 2], free[7 + index * 2]);
            config["ports"][peer] =
                json!({"grpc_listen": grpc, "admin_listen": admin, "grpc_url": format!("http://{grpc}")});
        }
        let file = run.join("stagely.toml");
        std::fs::write(&file, toml(&config)).with_context(|| format!("write {}", file.display()))?;

        command(&stagelyd, &file, &["migrate", "up"]).await?;
        command(&stagelyd, &file, &["admin", "certificates", "--registry-name", HOST, "--registry-name", "127.0.0.1"])
            .await?;
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

        let log = std::fs::File::create(run.join("stagelyd.log")).context("make a log")?;
        let control_plane = Command::new(&stagelyd)
            .arg("up")
            .env("STAGELY_CONFIG", &file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start stagelyd")?;
        let qemu = qemu::Config {
            state_dir: state.join("qemu"),
            image_dir: image,
            agent_binary: agent,
            templates: true,
        };
        let machines = Qemu::new(qemu, Arc::new(SystemClock))?;
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        let mut stack = Self {
            host,
            api: format!("http://{api}"),
            edge,
            token: Secret::new(""),
            state,
            images,
            machines,
            services,
            registries,
            control_plane,
            shutdown,
            client,
        };
        stack.ready().await?;
        let token = command(&stagelyd, &file, &["admin", "token", "--team", "demo"]).await?;
        stack.token = Secret::new(token.trim());
        say(format!("the control plane is up (log: {})", run.join("stagelyd.log").display()));
        Ok(stack)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.control_plane.try_wait()? {
                bail!("stagelyd ended ({status}): see .stagely/run/stagelyd.log");
            }
            let asked = self.client.get(format!("{}/healthz", self.api)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("stagelyd is not ready after a minute: see .stagely/run/stagelyd.log");
            }
            sleep(Duration::from_millis(100)).await;
        }
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
            say(format!("machine templates: {:.1} s, once", begun.elapsed().as_secs_f64()));
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
        if let Some(pid) = self.control_plane.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(30), self.control_plane.wait()).await.is_err() {
            let _ = self.control_plane.kill().await;
        }
        for registry in self.registries {
            registry.stop().await;
        }
        self.shutdown.cancel();
        self.services.stop().await;
    }
}

const PEERS: [&str; 6] = ["agent_hub", "orchestrator", "builder_scheduler", "edge_proxy", "reaper", "api"];

/// Runs one command of `stagelyd` to its end; what it printed.
async fn command(stagelyd: &Path, config: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(stagelyd);
    command.args(arguments).env("STAGELY_CONFIG", config).stdin(Stdio::null());
    let output = command.output().await.context("run stagelyd")?;
    if !output.status.success() {
        bail!("stagelyd {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

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

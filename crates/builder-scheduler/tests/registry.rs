//! Tags, at the registry that Debian ships (which deletes by digest only).

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chrono::{DateTime, Utc};
use reqwest::Client;
use stagely_builder_scheduler::Config;
use stagely_builder_scheduler::registry::RegistryClient;
use stagely_domain::build::State;
use stagely_domain::id::ProjectId;
use stagely_domain::secret::Secret;
use stagely_runtime::registry_credential::Minter;
use tempfile::TempDir;

use crate::stack::{Stack, wait_for};

const PROGRAM: &str = "/usr/bin/docker-registry";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Registry {
    running: Child,
    client: RegistryClient,
    http: Client,
    base: String,
    _directory: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

impl Registry {
    /// One without anything in it.
    async fn start(port: u16) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: install the Debian package docker-registry");
        let base = format!("http://127.0.0.1:{port}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  inmemory: {{}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(PROGRAM);
        let running = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let client = RegistryClient::new(&base, "", Minter::new(&Secret::new("shared"))).unwrap();
        let registry = Self { running, client, http: Client::new(), base, _directory: directory };
        wait_for("the registry", || async { registry.get("").await == 200 }).await;
        registry
    }

    async fn get(&self, path: &str) -> u16 {
        let request = self.http.get(format!("{}/v2/{path}", self.base)).header("accept", INDEX);
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    }

    async fn push(&self, repository: &str, tag: &str) {
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.base);
        let body = format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[]}}");
        let answer = self.http.put(url).header("content-type", INDEX).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    async fn tags(&self, project: ProjectId, repository: &str) -> Vec<String> {
        self.client.list_tags(project, repository, now()).await.unwrap()
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_tag_is_deleted_and_another_of_the_same_image_stays() {
    stagely_runtime::install_crypto();
    let registry = Registry::start(free_port()).await;
    let project = ProjectId::generate();
    let repository = format!("{}/backend", project.label());
    for tag in ["gone-1", "kept-1"] {
        registry.push(&repository, tag).await;
    }
    registry.client.delete_tag(project, &repository, "gone-1", now()).await.unwrap();
    assert_eq!(registry.tags(project, &repository).await, ["kept-1"]);
    assert_eq!(registry.get(&format!("{repository}/manifests/kept-1")).await, 200);
}

#[tokio::test]
async fn every_tag_of_a_preview_that_is_gone_goes_however_many_and_late_and_whatever_failed_before() {
    let port = free_port();
    let registry_api_url = Some(format!("http://127.0.0.1:{port}"));
    let stack = Stack::start(Config { registry_api_url, ..Config::default() }).await;
    let job = stack.ask("backend").await;
    stack.machine_of(job).await;
    stack.db.execute("UPDATE workflow_runs SET state = 'cancelled', finished_at = now()").await;
    stack.db.execute("UPDATE environments SET desired = 'absent', state = 'destroyed', gone_at = now()").await;
    stack.wake().await;
    stack.state(job, State::Cancelled).await;
    let rest = "SELECT count(*) FROM work WHERE kind = 'fleet' AND run_after = 'infinity'";
    wait_for("a look that reaches no registry", || async { stack.db.text(rest).await == "1" }).await;

    let registry = Registry::start(port).await;
    let repository = format!("{}/backend", stack.project.label());
    registry.push(&repository, "another-1").await;
    for number in 0..60 {
        registry.push(&repository, &format!("abc-{number}")).await;
    }
    let cleaned = || async {
        stack.wake().await;
        registry.tags(stack.project, &repository).await == ["another-1"]
    };
    wait_for("the tags to go", cleaned).await;
    // A builder that was not called off in time.
    registry.push(&repository, "abc-late").await;
    wait_for("the late one to go", cleaned).await;
}

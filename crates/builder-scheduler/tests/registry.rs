//! Tags, at the registry that Debian ships (which deletes by digest only).

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chrono::DateTime;
use stagely_builder_scheduler::registry::RegistryClient;
use stagely_domain::id::ProjectId;
use stagely_domain::secret::Secret;
use stagely_runtime::registry_credential::Minter;

use crate::stack::wait_for;

const PROGRAM: &str = "/usr/bin/docker-registry";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_tag_is_deleted_and_another_of_the_same_image_stays() {
    assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: install the Debian package docker-registry");
    stagely_runtime::install_crypto();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.yml");
    let text = format!(
        "version: 0.1\nstorage:\n  inmemory: {{}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(PROGRAM);
    let running = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _running = Running(running);
    let http = reqwest::Client::new();
    wait_for("the registry", || async { http.get(format!("{base}/v2/")).send().await.is_ok() }).await;

    let project = ProjectId::generate();
    let repository = format!("{}/backend", project.label());
    for tag in ["gone-1", "kept-1"] {
        let url = format!("{base}/v2/{repository}/manifests/{tag}");
        let body = format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[]}}");
        let answer = http.put(url).header("content-type", INDEX).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    let client = RegistryClient::new(&base, "", Minter::new(&Secret::new("shared"))).unwrap();
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    client.delete_tag(project, &repository, "gone-1", now).await.unwrap();
    assert_eq!(client.list_tags(project, &repository, now).await.unwrap(), ["kept-1"]);
    let kept =
        http.get(format!("{base}/v2/{repository}/manifests/kept-1")).header("accept", INDEX).send().await.unwrap();
    assert_eq!(kept.status(), 200);
}

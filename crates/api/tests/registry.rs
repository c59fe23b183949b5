//! Registry tokens against the real registry.

use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use stagely_api::registry::SigningKey;
use stagely_domain::clock::ManualClock;
use stagely_domain::id::ProjectId;
use stagely_domain::secret::Secret;
use stagely_runtime::registry_credential::{Access, Claims, Minter};
use stagely_store::seal::KeyRing;

use crate::support::{KEY, SERVICE_TOKEN, Stand, Wish, read};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A `docker-registry` 2.8 that trusts the API's tokens; ended when dropped.
struct Registry {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    async fn start(stand: &Stand) -> Self {
        let keys = KeyRing::single(&Secret::new(KEY)).unwrap();
        let key = SigningKey::ensure(&stand.db.store(), &keys, now()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(file("bundle.pem"), key.root_bundle_pem()).unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": file("data") }, "delete": { "enabled": true } },
            "http": { "addr": format!("127.0.0.1:{port}") },
            "auth": { "token": {
                "realm": format!("{}/registry/token", stand.url), "service": "stagely-registry", "issuer": "stagely",
                "rootcertbundle": file("bundle.pem"),
            } },
        });
        std::fs::write(file("config.yml"), config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &file("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { child, url: format!("http://127.0.0.1:{port}"), _directory: directory };
        let up = async {
            while stand.http.get(format!("{}/v2/", registry.url)).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("the registry listens");
        registry
    }
}

#[expect(clippy::disallowed_methods, reason = "the registry under test reads the real clock")]
fn now() -> chrono::DateTime<Utc> {
    Utc::now()
}

fn credential(project: ProjectId, access: Access, expires_at: chrono::DateTime<Utc>) -> String {
    let claims = Claims { project, holder: "mch_test".to_owned(), access, expires_at };
    Minter::new(&Secret::new(SERVICE_TOKEN)).mint(&claims).reveal().to_owned()
}

impl Stand {
    async fn registry_token(&self, password: &str, scope: &str) -> (u16, String) {
        let request = self
            .http
            .get(format!("{}/registry/token?service=stagely-registry&scope={scope}", self.url))
            .basic_auth("anyone", Some(password));
        let (status, answer) = read(request.send().await.unwrap()).await;
        (status, answer["token"].as_str().unwrap_or_default().to_owned())
    }

    /// Pushes a one-layer image; returns the status of the first refused request, or 201.
    async fn push(&self, registry: &Registry, repository: &str, token: &str) -> u16 {
        let mut digests = Vec::new();
        for blob in [b"{}".as_slice(), b"layer"] {
            let sha = format!("sha256:{}", hex::encode(digest(&SHA256, blob)));
            let begin = self.http.post(format!("{}/v2/{repository}/blobs/uploads/", registry.url)).bearer_auth(token);
            let begun = begin.send().await.unwrap();
            if begun.status() != 202 {
                return begun.status().as_u16();
            }
            let place = begun.headers()["location"].to_str().unwrap().to_owned();
            let upload = self.http.put(format!("{place}&digest={sha}")).bearer_auth(token).body(blob.to_vec());
            assert_eq!(upload.send().await.unwrap().status(), 201);
            digests.push((sha, blob.len()));
        }
        let part =
            |media: &str, (sha, size): &(String, usize)| json!({ "mediaType": media, "digest": sha, "size": size });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part("application/vnd.docker.container.image.v1+json", &digests[0]),
            "layers": [part("application/vnd.docker.image.rootfs.diff.tar.gzip", &digests[1])],
        });
        let put = self.http.put(format!("{}/v2/{repository}/manifests/one", registry.url)).bearer_auth(token);
        put.header("content-type", MANIFEST).body(manifest.to_string()).send().await.unwrap().status().as_u16()
    }

    async fn pull(&self, registry: &Registry, repository: &str, token: &str) -> u16 {
        let get = self.http.get(format!("{}/v2/{repository}/manifests/one", registry.url)).bearer_auth(token);
        get.header("accept", MANIFEST).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn a_projects_credential_pushes_and_pulls_its_own_images_at_a_real_registry_and_no_others() {
    let stand = Stand::start().await;
    let registry = Registry::start(&stand).await;
    let (own, other) = (ProjectId::generate(), ProjectId::generate());
    let (mine, theirs) = (format!("{}/web", own.label()), format!("{}/web", other.label()));
    let soon = now() + TimeDelta::hours(1);
    let (builder, preview) = (credential(own, Access::Push, soon), credential(own, Access::Pull, soon));
    let stranger = credential(other, Access::Push, soon);

    let both = |name: &str| format!("repository:{name}:pull,push");
    let (status, push) = stand.registry_token(&builder, &both(&mine)).await;
    assert_eq!(status, 200);
    assert_eq!(stand.push(&registry, &mine, &push).await, 201);
    assert_eq!(stand.pull(&registry, &mine, &push).await, 200);

    let (_, pull) = stand.registry_token(&preview, &both(&mine)).await;
    assert_eq!(stand.pull(&registry, &mine, &pull).await, 200);
    assert_eq!(stand.push(&registry, &mine, &pull).await, 401, "a preview only pulls");

    // Another project's credential gets a token, but one that is good for nothing here.
    let (_, foreign) = stand.registry_token(&stranger, &both(&mine)).await;
    assert_eq!(stand.pull(&registry, &mine, &foreign).await, 401);
    assert_eq!(stand.push(&registry, &mine, &foreign).await, 401);
    assert_eq!(stand.push(&registry, &theirs, &push).await, 401, "a token is for the repository it names");

    for token in [&push, &pull] {
        let catalog = stand.http.get(format!("{}/v2/_catalog", registry.url)).bearer_auth(token);
        assert_eq!(catalog.send().await.unwrap().status(), 401);
    }
    let (_, catalog) = stand.registry_token(&builder, "registry:catalog:*").await;
    let listed = stand.http.get(format!("{}/v2/_catalog", registry.url)).bearer_auth(catalog);
    assert_eq!(listed.send().await.unwrap().status(), 401);
    assert_eq!(stand.pull(&registry, &mine, "").await, 401);
    let tampered = tamper(&pull, &other.label(), &own.label());
    assert_eq!(stand.pull(&registry, &theirs, &tampered).await, 401);
    drop(registry);
    stand.stop().await;
}

/// The same token with its claims changed and its signature kept.
fn tamper(token: &str, new: &str, old: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.replace(old, new)), parts[2])
}

#[tokio::test]
async fn a_token_from_two_hours_ago_is_refused_by_the_registry() {
    let past = Arc::new(ManualClock::at(now() - TimeDelta::hours(2)));
    let stand = Stand::start_with(Wish { clock: Some(past), ..Wish::default() }).await;
    let registry = Registry::start(&stand).await;
    let project = ProjectId::generate();
    let repository = format!("{}/web", project.label());
    let credential = credential(project, Access::Push, now() + TimeDelta::hours(1));
    let (status, token) = stand.registry_token(&credential, &format!("repository:{repository}:pull,push")).await;
    assert_eq!(status, 200);
    assert_eq!(stand.push(&registry, &repository, &token).await, 401);
    drop(registry);
    stand.stop().await;
}

#[tokio::test]
async fn the_endpoint_refuses_what_is_not_a_valid_credential() {
    let stand = Stand::start().await;
    let project = ProjectId::generate();
    let soon = now() + TimeDelta::hours(1);
    let expired = credential(project, Access::Push, now() - TimeDelta::seconds(1));
    let foreign = Minter::new(&Secret::new("another installation")).mint(&Claims {
        project,
        holder: String::new(),
        access: Access::Push,
        expires_at: soon,
    });
    for password in ["", "guess", "stgr_a.b", expired.as_str(), foreign.reveal()] {
        assert_eq!(stand.registry_token(password, "").await.0, 401, "{password}");
    }
    let bare = stand.http.get(format!("{}/registry/token", stand.url)).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert_eq!(bare.headers()["www-authenticate"], "Basic realm=\"stagely registry\"");
    let good = credential(project, Access::Push, soon);
    let wrong = stand.http.get(format!("{}/registry/token?service=else", stand.url)).basic_auth("a", Some(&good));
    assert_eq!(wrong.send().await.unwrap().status(), 400);
    stand.stop().await;
}

#[tokio::test]
async fn clients_that_ask_with_a_form_get_the_same_token() {
    let stand = Stand::start().await;
    let project = ProjectId::generate();
    let soon = now() + TimeDelta::hours(1);
    let good = credential(project, Access::Pull, soon);
    let repository = format!("{}/web", project.label());
    let form = |kind: &str, password: &str| {
        let body = format!(
            "grant_type={kind}&service=stagely-registry&client_id=t&scope=repository%3A{repository}%3Apull&username=a&password={password}"
        );
        let request = stand.http.post(format!("{}/registry/token", stand.url));
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send()
    };
    let (status, answer) = read(form("password", &good).await.unwrap()).await;
    assert_eq!(status, 200);
    let claims = answer["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["access"], json!([{ "type": "repository", "name": repository, "actions": ["pull"] }]));
    assert_eq!((claims["aud"].as_str(), claims["iss"].as_str()), (Some("stagely-registry"), Some("stagely")));
    assert_eq!(form("refresh_token", &good).await.unwrap().status(), 400);
    assert_eq!(form("password", "guess").await.unwrap().status(), 401);
    stand.stop().await;
}

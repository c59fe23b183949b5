//! Base images go in before the registry serves, and nothing goes in or out after that but by the rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reqwest::header::ACCEPT;
use reqwest::{Certificate, Client, StatusCode};
use xtask::base_images::{self, DEBIAN, Image};
use xtask::registry::{Access, Registry, Tls, free_address, repositories_and_tags};

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A directory with a certificate for 127.0.0.1, and a client that trusts it.
struct Place {
    directory: tempfile::TempDir,
    client: Client,
}

impl Place {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(directory.path().join("tls.pem"), certified.cert.pem()).unwrap();
        std::fs::write(directory.path().join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
        let trusted = Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
        let client = Client::builder().add_root_certificate(trusted).build().unwrap();
        Self { directory, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn registry(&self, access: Access) -> Registry {
        Registry {
            listen: free_address().await.unwrap(),
            store: self.path("store"),
            log: self.path("log"),
            tls: Tls { certificate: self.path("tls.pem"), key: self.path("tls.key") },
            access,
        }
    }
}

#[tokio::test]
async fn machines_read_base_images_and_cannot_replace_them() {
    let place = Place::new();
    let registry = place.registry(Access::BaseImages).await;
    assert!(repositories_and_tags(&registry.store).unwrap().is_empty());
    let image = Image::of_layer(&DEBIAN, b"not looked into".to_vec(), "sha256:0");
    for _ in 0..2 {
        image.put(&registry.store, &place.path("scratch")).await.unwrap();
    }
    let found = repositories_and_tags(&registry.store).unwrap();
    let tags = BTreeSet::from(["13-slim".to_owned(), "trixie-slim".to_owned()]);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("library/debian".to_owned(), tags)]);

    let running = registry.start(workspace()).await.unwrap();
    let url = format!("https://{}/v2/library/debian", registry.listen);
    let manifest = place.client.get(format!("{url}/manifests/13-slim"));
    let manifest = manifest.header(ACCEPT, "application/vnd.oci.image.manifest.v1+json").send().await.unwrap();
    assert_eq!(manifest.status(), StatusCode::OK);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes().await.unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let layer = place.client.get(format!("{url}/blobs/{layer}")).send().await.unwrap();
    assert_eq!(layer.bytes().await.unwrap(), "not looked into");
    let upload = place.client.post(format!("{url}/blobs/uploads/")).send().await.unwrap();
    assert_eq!(upload.status(), StatusCode::METHOD_NOT_ALLOWED);
    let delete = place.client.delete(format!("{url}/manifests/13-slim")).send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::METHOD_NOT_ALLOWED);
    running.stop().await;
}

#[tokio::test]
async fn the_registry_for_builds_asks_for_a_token_of_ours() {
    let place = Place::new();
    let realm = "https://stagely.test/registry/token".to_owned();
    let registry = place.registry(Access::Images { realm: realm.clone(), root_bundle: place.path("tls.pem") }).await;
    let running = registry.start(workspace()).await.unwrap();
    let answer = place.client.get(format!("https://{}/v2/", registry.listen)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(&format!("realm=\"{realm}\"")) && challenge.contains("service=\"stagely-registry\""));
    running.stop().await;
    registry.collect_garbage(workspace()).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_cannot_start_says_why() {
    let place = Place::new();
    let mut registry = place.registry(Access::BaseImages).await;
    registry.tls.key = place.path("missing.key");
    let told = format!("{:#}", registry.start(workspace()).await.unwrap_err());
    assert!(told.contains("missing.key"), "{told}");
}

#[tokio::test]
#[ignore = "needs root and a Debian mirror: cargo xtask test e2e"]
async fn base_images_are_made_once_and_kept() {
    let place = Place::new();
    for _ in 0..2 {
        base_images::ensure(workspace(), &place.path("cache"), &place.path("store")).await.unwrap();
    }
    let made: Vec<_> = std::fs::read_dir(place.path("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let layers: Vec<_> = made.iter().map(|path| path.join("layer.tar.gz")).filter(|path| path.is_file()).collect();
    let mut sizes: Vec<_> = layers.iter().map(|layer| std::fs::metadata(layer).unwrap().len()).collect();
    sizes.sort_unstable();
    let &[busybox, debian] = sizes.as_slice() else { panic!("{made:?}") };
    assert!(busybox < 2_000_000 && debian < 40_000_000, "{sizes:?} bytes");
}

//! What others wrote about the provider, against our double and our provider: its client for Python, and a checker of
//! requests and answers that reads its OpenAPI document. Both are set up by `cargo xtask contract`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::Cloud;
use stagely_cloud::contract;
use stagely_cloud::hetzner::Hetzner;
use stagely_domain::clock::SystemClock;
use stagely_domain::id::InstallationId;
use tokio::net::TcpListener;
use tokio::process::Child;

use super::double::{Double, READ_ONLY, TOKEN};
use super::{config, provider};

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn setting(name: &str) -> PathBuf {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask contract`")).into()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hetzner").join(name)
}

fn python(arguments: &[&str]) -> std::process::Output {
    Command::new(setting("STAGELY_TEST_PYTHON")).args(arguments).output().unwrap()
}

fn succeeded(output: &std::process::Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn the_providers_own_client_gets_along_with_the_double() {
    let double = Double::start().await;
    let (url, file) = (double.url(), script("independent.py"));
    let driven = tokio::task::spawn_blocking(move || python(&[file.to_str().unwrap(), &url, TOKEN, READ_ONLY]));
    succeeded(&tokio::time::timeout(Duration::from_secs(120), driven).await.unwrap().unwrap());
}

#[tokio::test]
#[ignore = "needs python and node: cargo xtask contract"]
async fn requests_and_answers_are_as_the_openapi_document_says() {
    let document = setting("STAGELY_SPECS_DIR").join("hetzner-v1.json");
    assert!(document.is_file(), "{} is not there: no request was checked", document.display());
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed.json");
    let (from, to) = (document.to_str().unwrap().to_owned(), closed.to_str().unwrap().to_owned());
    succeeded(&python(&[script("spec.py").to_str().unwrap(), &from, &to]));
    let double = Double::start().await;
    let log = directory.path().join("log");
    let (_prism, url) = prism(&closed, &double.url(), &log).await;
    let cloud = provider(&url, TOKEN);
    contract::run(&cloud, &SystemClock).await;
    everything_else(&double, &cloud, &url).await;
    // An answer that is wrong can be survived; here it is an error all the same.
    let log = std::fs::read_to_string(log).unwrap();
    let wrong: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains("violation")).collect();
    assert!(wrong.is_empty() && log.contains("Request received"), "{wrong:#?}");
}

/// The calls that the contract does not make.
async fn everything_else(double: &Double, cloud: &dyn Cloud, url: &str) {
    cloud.check_access().await.unwrap();
    let installation = InstallationId::generate();
    let request = contract::offered(cloud, installation, &SystemClock).await;
    let created = cloud.create(&request).await.unwrap();
    double.world().knobs.deaf = true;
    contract::put_to_sleep(cloud, &created.id).await;
    cloud.wake(&created.id).await.unwrap();
    let mut moved = config(url, TOKEN);
    moved.ingress_from.clear();
    Hetzner::new(moved, Arc::new(SystemClock)).unwrap().create(&request).await.unwrap();
    assert!(cloud.list_residue(installation).await.unwrap().complete);
    contract::delete(cloud, &created.id).await;
    for residue in cloud.list_residue(installation).await.unwrap().items {
        cloud.delete_residue(&residue).await.unwrap();
    }
    assert_eq!(cloud.list_residue(installation).await.unwrap().items, []);
}

/// A checking proxy before `upstream`; it answers with an error of its own whenever a request or an answer is not as the
/// document says. It ends when dropped.
async fn prism(document: &Path, upstream: &str, log: &Path) -> (Child, String) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = tokio::process::Command::new(setting("STAGELY_TEST_PRISM"));
    command.args(["proxy", "--errors", "--host", "127.0.0.1", "--port", &port.to_string()]).arg(document).arg(upstream);
    let child = command.stdout(std::fs::File::create(log).unwrap()).kill_on_drop(true).spawn().unwrap();
    let listens = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), listens).await.expect("prism does not start");
    (child, format!("http://127.0.0.1:{port}"))
}

//! An account at a double of a provider, without any server of ours.

#[expect(dead_code, reason = "most of what it can do is for the provider's own tests")]
#[path = "../../cloud/tests/hetzner/double/mod.rs"]
pub mod hetzner;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use chrono::TimeDelta;
use hetzner::Double;
use stagely_cloud::account::{self, Apis};
use stagely_cloud::contract::offered;
use stagely_cloud::{Cloud, CreateRequest};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::{ImageId, InstallationId, MachineId};
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::stand::stagely;

/// A double with a client.
struct Account {
    double: Double,
    cloud: Arc<dyn Cloud>,
    installation: InstallationId,
}

impl Account {
    async fn start() -> Self {
        let double = Double::start().await;
        let settings = Settings { ingress_from: vec!["198.51.100.7/32".to_owned()], ..Settings::default() };
        let given = [("token".to_owned(), Secret::new(hetzner::TOKEN))].into();
        let credentials = Credentials::new(Provider::Hetzner, given).unwrap();
        let apis = Apis { hetzner: Some(format!("{}/v1", double.url())), ..Apis::default() };
        let cloud = account::open(Provider::Hetzner, &settings, &credentials, &apis, Arc::new(SystemClock)).unwrap();
        Self { double, cloud, installation: InstallationId::generate() }
    }

    /// A machine whose end is so many hours from now.
    async fn machine(&self, installation: InstallationId, hours: i64) -> MachineId {
        let request = offered(&*self.cloud, installation, &SystemClock).await;
        let request = CreateRequest { expires_at: SystemClock.now() + TimeDelta::hours(hours), ..request };
        self.cloud.create(&request).await.unwrap();
        request.machine
    }

    async fn left(&self, installation: InstallationId) -> Vec<MachineId> {
        self.cloud.list(installation).await.unwrap().vms.iter().map(|vm| vm.machine).collect()
    }

    fn sweep(&self, token: &str, arguments: &[&str]) -> (i32, String, String) {
        let installation = self.installation.to_string();
        let begin = ["--installation", &installation];
        let arguments: Vec<&str> = begin.into_iter().chain(arguments.iter().copied()).collect();
        self.sweep_any(token, &arguments)
    }

    fn sweep_any(&self, token: &str, arguments: &[&str]) -> (i32, String, String) {
        let endpoint = format!("{}/v1", self.double.url());
        let arguments: Vec<&str> =
            ["cloud", "sweep", "--account", "hetzner"].into_iter().chain(arguments.iter().copied()).collect();
        stagely(&arguments, &[("HCLOUD_TOKEN", token), ("HCLOUD_ENDPOINT", &endpoint)])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_swept_with_nothing_but_its_credential() {
    let account = Account::start().await;
    let ended = account.machine(account.installation, -1).await;
    let wanted = account.machine(account.installation, 1).await;
    account.machine(InstallationId::generate(), -1).await;

    let (code, out, err) = account.sweep(hetzner::TOKEN, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let line = |machine: MachineId| out.lines().find(|line| line.contains(&machine.to_string())).unwrap().to_owned();
    assert!(line(ended).starts_with("goes\t") && line(wanted).starts_with("stays\t"), "{out}");
    assert!(out.ends_with("2 machines, 1 other things\n"), "{out}");
    assert_eq!(account.left(account.installation).await.len(), 2, "nothing is removed without --delete");

    let (code, out, err) = account.sweep(hetzner::TOKEN, &["--delete"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(account.left(account.installation).await, [wanted]);

    let (code, out, _) = account.sweep(hetzner::TOKEN, &["--delete", "--all"]);
    assert_eq!(code, 0, "{out}");
    let bill = account.double.world().accounts[0].bill();
    assert_eq!(bill.machines, 1, "another installation's machine stays");
    assert!(account.cloud.list_residue(account.installation).await.unwrap().items.is_empty(), "nor does a firewall");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_few_go_only_when_their_number_is_said() {
    let account = Account::start().await;
    for _ in 0..6 {
        account.machine(account.installation, -1).await;
    }
    account.machine(account.installation, 1).await;
    let (code, out, err) = account.sweep(hetzner::TOKEN, &["--delete"]);
    assert!(code == 2 && err.contains("6 things would go") && err.contains("say --max 6"), "{code} {err}");
    assert!(out.contains("7 machines") && !out.contains("removed"), "{out}");
    let (code, _, err) = account.sweep(hetzner::TOKEN, &["--delete", "--max", "5"]);
    assert!(code == 2 && err.contains("--max allows 5"), "{code} {err}");
    assert_eq!(account.left(account.installation).await.len(), 7);
    let (code, out, err) = account.sweep(hetzner::TOKEN, &["--delete", "--max", "6"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(account.left(account.installation).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_no_installation_is_told_those_that_there_are() {
    let account = Account::start().await;
    let (code, out, _) = account.sweep_any(hetzner::TOKEN, &[]);
    assert_eq!((code, out.as_str()), (0, "no installation has machines there\n"));
    let other = InstallationId::generate();
    for installation in [account.installation, account.installation, other] {
        account.machine(installation, 1).await;
    }
    let (code, out, err) = account.sweep_any(hetzner::TOKEN, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for line in [format!("{}\t2 machines", account.installation), format!("{other}\t1 machines")] {
        assert!(out.lines().any(|found| found == line), "{line} in {out}");
    }
    let (code, _, err) = account.sweep_any(hetzner::TOKEN, &["--delete"]);
    assert!(code != 0 && err.contains("--installation"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_time_than_the_providers_nothing_is_removed() {
    let answer = || async {
        let kinds = ["servers", "images", "volumes", "primary_ips", "floating_ips", "ssh_keys", "firewalls"];
        let empty: serde_json::Map<String, serde_json::Value> =
            kinds.map(|kind| (kind.to_owned(), serde_json::json!([]))).into_iter().collect();
        ([("date", "Tue, 01 Jan 2019 00:00:00 GMT")], axum::Json(empty))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    let installation = InstallationId::generate().to_string();
    let sweep = |more: &[&str]| {
        let begin = ["cloud", "sweep", "--account", "hetzner", "--installation", &installation, "--delete"];
        let arguments: Vec<&str> = begin.into_iter().chain(more.iter().copied()).collect();
        stagely(&arguments, &[("HCLOUD_TOKEN", "token"), ("HCLOUD_ENDPOINT", &endpoint)])
    };
    let (code, _, err) = sweep(&[]);
    assert!(code == 2 && err.contains("the clock of this host is") && err.contains("ahead of"), "{code} {err}");
    let (code, out, err) = sweep(&["--all"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}: no end counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_machines_boot_goes_only_with_everything() {
    let account = Account::start().await;
    let (image, installation) = (ImageId::generate().to_string(), account.installation.to_string());
    let labels = serde_json::json!({ "stagely-installation": installation, "stagely-image": image });
    account.double.world().accounts[0].plant("images", 7, labels);
    account.machine(account.installation, -1).await;

    let (code, out, err) = account.sweep(hetzner::TOKEN, &["--delete"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let line = out.lines().find(|line| line.contains(&image)).unwrap();
    assert!(line.starts_with("stays\t") && line.contains("images/7"), "{out}");
    assert_eq!(account.left(account.installation).await, []);
    assert_eq!(account.double.world().accounts[0].bill().snapshots, 1);

    let (code, out, _) = account.sweep(hetzner::TOKEN, &["--delete", "--all"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(account.double.world().accounts[0].bill().snapshots, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_without_a_credential_or_with_a_wrong_one_says_what_to_do() {
    let account = Account::start().await;
    let (code, _, err) = account.sweep("wrong", &[]);
    assert!(code == 3 && !err.contains("wrong"), "{code} {err}");
    let installation = account.installation.to_string();
    let (code, _, err) = stagely(&["cloud", "sweep", "--account", "hetzner", "--installation", &installation], &[]);
    assert!(code == 2 && err.contains("HCLOUD_TOKEN"), "{code} {err}");
    let (code, _, err) = stagely(&["cloud", "sweep", "--account", "aws", "--installation", &installation], &[]);
    assert!(code == 2 && err.contains("AWS_REGION"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_aws_that_run_out_go_with_their_token() {
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&tokens);
    let refuse = move |headers: HeaderMap| async move {
        let token = headers.get("x-amz-security-token").and_then(|value| value.to_str().ok()).unwrap_or_default();
        seen.lock().unwrap().push(token.to_owned());
        let body = "<Response><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors></Response>";
        (StatusCode::UNAUTHORIZED, body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await.unwrap() });
    let installation = InstallationId::generate().to_string();
    for (token, sent) in [("session-99", "session-99"), ("", "")] {
        let (code, _, err) = stagely(
            &["cloud", "sweep", "--account", "aws", "--region", "eu-central-1", "--installation", &installation],
            &[
                ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", "s3cret"),
                ("AWS_SESSION_TOKEN", token),
                ("AWS_ENDPOINT_URL", &endpoint),
            ],
        );
        assert!(code == 3 && !err.contains("session-99"), "{code} {err}");
        assert_eq!(std::mem::take(&mut *tokens.lock().unwrap()), [sent]);
    }
}

#[test]
fn what_an_account_must_be_allowed_is_printed() {
    let (code, out, _) = stagely(&["cloud", "permissions", "aws"], &[]);
    let policy: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && policy["Statement"].is_array());
    let (_, out, _) = stagely(&["cloud", "permissions", "digitalocean"], &[]);
    assert!(out.lines().any(|scope| scope == "droplet:create"), "{out}");
    let (_, out, _) = stagely(&["cloud", "permissions", "hetzner"], &[]);
    assert!(out.contains("Read & Write"), "{out}");
}

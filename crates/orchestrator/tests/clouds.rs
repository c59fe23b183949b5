//! One story on every cloud: an account as a person adds it, its sealed credentials, and a double of the provider's API.

#[expect(dead_code, reason = "most of what it can do is for the provider's own tests")]
#[path = "../../cloud/tests/digitalocean/double/mod.rs"]
mod digitalocean;
#[expect(dead_code, reason = "most of what it can do is for the provider's own tests")]
#[path = "../../cloud/tests/hetzner/double/mod.rs"]
mod hetzner;
#[path = "../../cloud/tests/aws/moto.rs"]
mod moto;

use std::sync::Arc;

use serde_json::{Value, json};
use stagely_cloud::aws::{self, Aws};
use stagely_cloud::digitalocean::DigitalOcean;
use stagely_cloud::hetzner::Hetzner;
use stagely_cloud::{Cloud, VmState};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{CloudAccountId, TeamId};
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;
use stagely_store::environments::Power;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use stagely_store::testing::TestDb;

use crate::stack::Stack;

/// Half of each byte of the key that seals credentials, in hexadecimal.
pub const KEY: &str = "ab";

/// Another than that of the orchestrator, which is in no list of the provider.
const EDGE: &str = "198.51.100.7/32";

/// An account at a double.
pub struct Account {
    kind: Provider,
    settings: Settings,
    credentials: Value,
    /// Where the provider's API is.
    pub apis: Value,
    /// A client that only looks.
    pub cloud: Arc<dyn Cloud>,
}

impl Account {
    /// Stores it as the API does.
    pub async fn insert(&self, db: &TestDb, team: TeamId) -> CloudAccountId {
        let given = serde_json::from_value(self.credentials.clone()).unwrap();
        let text = Credentials::new(self.kind, given).unwrap().to_text();
        self.settings.check(self.kind).unwrap();
        let id = CloudAccountId::generate();
        let ring = KeyRing::single(&Secret::new(KEY.repeat(32))).unwrap();
        let sealed = ring.seal(&CloudAccount::place(id, team), text.reveal().as_bytes()).unwrap();
        let account = CloudAccount {
            id,
            team,
            name: "cloud".to_owned(),
            kind: self.kind,
            settings: self.settings.clone(),
            credentials_sealed: Some(sealed),
        };
        let tx = db.store().begin().await.unwrap();
        tx.insert_cloud_account(&account).await.unwrap();
        tx.commit().await.unwrap();
        id
    }
}

fn settings() -> Settings {
    Settings { ingress_from: vec![EDGE.to_owned()], ..Settings::default() }
}

/// A pull request is opened, pushed to, sleeps, is visited and closed; on the way everything is as on any other cloud.
async fn story(account: Account) {
    let cloud = Arc::clone(&account.cloud);
    let stack = Stack::start_in(account).await;
    stack.open().await;
    stack.live().await;
    let first = stack.world.machines().await;
    stack.push().await;
    stack.live().await;
    assert_eq!(stack.world.machines().await, first);
    stack.power(Power::Asleep).await;
    stack.says("Preview: Asleep").await;
    let asleep = cloud.find(first[0]).await.unwrap();
    assert!(!asleep.is_empty() && asleep.iter().all(|vm| vm.state == VmState::Hibernated), "{asleep:?}");
    stack.power(Power::Awake).await;
    stack.wait("a preview that is awake", async || stack.is_served().await).await;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    let installation = stack.world.db.store().ensure_installation().await.unwrap();
    let residues = cloud.list_residue(installation).await.unwrap();
    // The firewall is the installation's, and stays.
    assert!(residues.complete && residues.items.iter().all(|residue| residue.machine.is_none()), "{residues:?}");
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_lives_and_ends_on_hetzner() {
    let double = hetzner::Double::start().await;
    let api_url = format!("{}/v1", double.url());
    let config = stagely_cloud::hetzner::Config {
        api_url: api_url.clone(),
        token: Secret::new(hetzner::TOKEN),
        locations: Vec::new(),
        image: stagely_cloud::hetzner::IMAGE.to_owned(),
        ingress_from: vec![EDGE.to_owned()],
        timing: stagely_cloud::hetzner::Timing::default(),
    };
    story(Account {
        kind: Provider::Hetzner,
        settings: settings(),
        credentials: json!({"token": hetzner::TOKEN}),
        apis: json!({"hetzner": api_url}),
        cloud: Arc::new(Hetzner::new(config, Arc::new(SystemClock)).unwrap()),
    })
    .await;
}

#[tokio::test]
async fn a_pull_request_lives_and_ends_on_digitalocean() {
    let double = digitalocean::Double::start().await;
    let api_url = format!("{}/v2", double.url());
    let config = stagely_cloud::digitalocean::Config {
        api_url: api_url.clone(),
        token: Secret::new(digitalocean::TOKEN),
        locations: Vec::new(),
        image: stagely_cloud::digitalocean::IMAGE.to_owned(),
        ingress_from: vec![EDGE.to_owned()],
        ssh_keys: Vec::new(),
        per_minute: stagely_cloud::digitalocean::PER_MINUTE,
        timing: stagely_cloud::digitalocean::Timing::default(),
    };
    story(Account {
        kind: Provider::Digitalocean,
        settings: settings(),
        credentials: json!({"token": digitalocean::TOKEN}),
        apis: json!({"digitalocean": api_url}),
        cloud: Arc::new(DigitalOcean::new(config, Arc::new(SystemClock)).unwrap()),
    })
    .await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_pull_request_lives_and_ends_on_aws() {
    let endpoint = moto::url().await.to_owned();
    let (region, key, secret) = ("eu-central-1", "AKIAIOSFODNN7EXAMPLE", "a-secret-access-key");
    // The only images that moto knows.
    let image = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{machine}";
    let config = aws::Config {
        region: region.to_owned(),
        endpoint: Some(endpoint.clone()),
        keys: aws::Keys { access_key_id: key.to_owned(), secret_access_key: Secret::new(secret), session_token: None },
        role: None,
        locations: Vec::new(),
        subnets: Vec::new(),
        image: image.to_owned(),
        disk_gib: aws::DISK_GIB,
        ingress_from: vec![EDGE.to_owned()],
        timing: aws::Timing::default(),
        limits: aws::Limits::Published,
    };
    story(Account {
        kind: Provider::Aws,
        settings: Settings { region: Some(region.to_owned()), image: Some(image.to_owned()), ..settings() },
        credentials: json!({"access_key_id": key, "secret_access_key": secret}),
        apis: json!({"aws": endpoint}),
        cloud: Arc::new(Aws::new(config, Arc::new(SystemClock)).unwrap()),
    })
    .await;
}

//! One story on every cloud: an account as a person adds it, its sealed credentials, and a double of the provider's API.

#[expect(dead_code, reason = "most of what it can do is for the provider's own tests")]
#[path = "../../cloud/tests/digitalocean/double/mod.rs"]
mod digitalocean;
#[expect(dead_code, reason = "most of what it can do is for the provider's own tests")]
#[path = "../../cloud/tests/hetzner/double/mod.rs"]
pub mod hetzner;
#[path = "../../cloud/tests/aws/moto.rs"]
mod moto;

use std::sync::Arc;

use serde_json::{Value, json};
use stagely_cloud::{Cloud, VmState, account};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{CloudAccountId, TeamId};
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;
use stagely_store::Power;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use stagely_store::testing::TestDb;

use crate::double::ONE_ASLEEP;
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
}

impl Account {
    pub fn at_hetzner(double: &hetzner::Double) -> Self {
        Self {
            kind: Provider::Hetzner,
            settings: settings(),
            credentials: json!({"token": hetzner::TOKEN}),
            apis: json!({"hetzner": format!("{}/v1", double.url())}),
        }
    }

    /// A client of one's own that only looks.
    pub fn open(&self) -> Arc<dyn Cloud> {
        let apis = serde_json::from_value(self.apis.clone()).unwrap();
        account::open(self.kind, &self.settings, &self.credentials(), &apis, Arc::new(SystemClock)).unwrap()
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(self.kind, serde_json::from_value(self.credentials.clone()).unwrap()).unwrap()
    }

    /// Stores it as the API does.
    pub async fn insert(&self, db: &TestDb, team: TeamId) -> CloudAccountId {
        let text = self.credentials().to_text();
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
            generation: 1,
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
/// `costs_as_asleep` looks at the provider's bill while it sleeps.
async fn story(account: Account, costs_as_asleep: impl Fn()) {
    let cloud = account.open();
    let stack = Stack::start_in(account).await;
    stack.open_until_live().await;
    let first = stack.world.machines().await;
    stack.push().await;
    stack.wait_until_live().await;
    assert_eq!(stack.world.machines().await, first);
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    let asleep = cloud.find(first[0]).await.unwrap();
    assert!(!asleep.is_empty() && asleep.iter().all(|vm| vm.state == VmState::Hibernated), "{asleep:?}");
    costs_as_asleep();
    stack.power(Power::Awake).await;
    stack.wait("a preview that is awake", async || stack.is_served().await).await;
    stack.wait_until_live().await;
    stack.close_until_gone().await;
    let installation = stack.world.db.store().ensure_installation().await.unwrap();
    let residues = cloud.list_residue(installation).await.unwrap();
    // The firewall is the installation's, and stays.
    assert!(residues.complete && residues.items.iter().all(|residue| residue.machine.is_none()), "{residues:?}");
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_lives_and_ends_on_hetzner() {
    let double = hetzner::Double::start().await;
    story(Account::at_hetzner(&double), || assert_eq!(double.world().accounts[0].bill(), ONE_ASLEEP)).await;
}

#[tokio::test]
async fn a_preview_for_which_there_is_no_room_wakes_when_there_is_some() {
    let double = hetzner::Double::start().await;
    let stack = Stack::start_in(Account::at_hetzner(&double)).await;
    stack.open_until_live().await;
    let place: (&'static str, &'static str) = {
        let world = double.world();
        let server = world.accounts[0].machines.values().next().unwrap();
        (server.kind.clone().leak(), server.location.clone().leak())
    };
    stack.power(Power::Asleep).await;
    stack.wait_for_comment("Preview: Asleep").await;
    double.world().knobs.full.insert(place);
    stack.power(Power::Awake).await;
    let tries = || double.world().requests.iter().filter(|request| *request == "POST /v1/servers").count();
    // Once it was made. What fails is not tried more often than twenty times.
    stack.wait("many tries", async || tries() > 1 + 25).await;
    double.world().knobs.full.clear();
    stack.wait("a preview that is awake", async || stack.is_served().await).await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_pull_request_lives_and_ends_on_digitalocean() {
    let double = digitalocean::Double::start().await;
    let account = Account {
        kind: Provider::Digitalocean,
        settings: settings(),
        credentials: json!({"token": digitalocean::TOKEN}),
        apis: json!({"digitalocean": format!("{}/v2", double.url())}),
    };
    story(account, || assert_eq!(double.world().accounts[0].bill(), ONE_ASLEEP)).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_pull_request_lives_and_ends_on_aws() {
    // The only images that moto knows.
    let image = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{machine}";
    let region = Some("eu-central-1".to_owned());
    let account = Account {
        kind: Provider::Aws,
        settings: Settings { region, image: Some(image.to_owned()), ..settings() },
        credentials: json!({"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "a-secret-access-key"}),
        apis: json!({"aws": moto::url().await}),
    };
    // One that is stopped is shown as what it is.
    story(account, || {}).await;
}

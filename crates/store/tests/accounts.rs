//! Accounts that are changed and deleted while others use them.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_store::accounts::Uses;
use stagely_store::images::NewImage;
use stagely_store::machines::NewMachine;
use stagely_store::testing::TestDb;
use stagely_store::{Outcome, Scope, StoreError};

const ALL: Scope = Scope::system("look at accounts in a test");

struct World {
    db: TestDb,
    team: TeamId,
    account: CloudAccountId,
    project: ProjectId,
}

async fn world() -> World {
    let db = TestDb::new().await;
    let team = db.team("acme").await;
    let account = db.qemu_account(team).await;
    let project = db.project(team, "acme/shop", Some(account)).await;
    World { db, team, account, project }
}

impl World {
    async fn wish_for_a_machine(&self) -> Outcome {
        let new = NewMachine {
            id: MachineId::generate(),
            team: self.team,
            project: Some(self.project),
            environment: None,
            account: self.account,
            role: Role::Builder,
            size: Size::Small,
            arch: Arch::Amd64,
            locations: vec!["nbg1".to_owned()],
            lifetime: TimeDelta::hours(1),
        };
        let tx = self.db.store().begin().await.unwrap();
        let outcome = tx.insert_machine(&new).await.unwrap();
        tx.commit().await.unwrap();
        outcome
    }

    async fn delete(&self) -> Outcome {
        let tx = self.db.store().begin().await.unwrap();
        let outcome = tx.delete_cloud_account(&ALL, self.account).await.unwrap();
        tx.commit().await.unwrap();
        outcome
    }

    async fn uses(&self) -> Uses {
        self.db.store().begin().await.unwrap().cloud_account_uses(self.account).await.unwrap()
    }
}

#[tokio::test]
async fn an_account_in_use_is_not_deleted_and_one_that_is_deleted_loses_its_credentials() {
    let world = world().await;
    let db = &world.db;
    db.execute("UPDATE cloud_providers SET credentials_sealed = '\\x01'").await;
    assert_eq!(world.wish_for_a_machine().await, Outcome::Written);
    assert!(db.store().find_cloud_account(&ALL, world.account).await.unwrap().is_some());
    assert_eq!(world.uses().await, Uses { machines: 1, projects: vec!["acme/shop".to_owned()], ..Uses::default() });
    assert_eq!(world.delete().await, Outcome::Stale);
    db.execute("UPDATE projects SET deleted_at = now()").await;
    assert_eq!(world.delete().await, Outcome::Stale);
    db.execute("UPDATE machines SET gone_at = now()").await;
    assert_eq!(world.delete().await, Outcome::Written);
    assert!(db.store().list_cloud_accounts(&ALL).await.unwrap().is_empty());
    assert!(db.store().find_cloud_account(&ALL, world.account).await.unwrap().is_none());
    assert!(!db.store().has_cloud_account(world.account).await.unwrap());
    // What still names it can still read its name.
    let left = db.store().get_cloud_account(&ALL, world.account).await.unwrap();
    assert_eq!((left.name.as_str(), left.credentials_sealed), ("metal", None));
    assert_eq!(world.wish_for_a_machine().await, Outcome::Stale, "nobody would make it, and nobody remove it");
    world.db.drop_database().await;
}

#[tokio::test]
async fn an_account_with_an_image_at_its_provider_is_not_deleted() {
    let world = world().await;
    let (id, team, account) = (ImageId::generate(), world.team, world.account);
    let tx = world.db.store().begin().await.unwrap();
    let new = NewImage { id, team, account, arch: Arch::Amd64, base_images: Vec::new() };
    assert_eq!(tx.insert_image(&new).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    world.db.execute("UPDATE projects SET deleted_at = now()").await;
    assert_eq!(world.uses().await, Uses { images: 1, ..Uses::default() });
    assert_eq!(world.delete().await, Outcome::Stale);
    world.db.execute("UPDATE images SET state = 'failed', deleted_at = now()").await;
    assert_eq!(world.uses().await, Uses::default(), "a row that says why it failed holds nothing up");
    assert_eq!(world.delete().await, Outcome::Written);
    world.db.drop_database().await;
}

#[tokio::test]
async fn an_account_has_something_where_a_machine_or_an_image_may_be() {
    let world = world().await;
    let db = &world.db;
    let places = async || db.store().begin().await.unwrap().list_account_places(world.account).await.unwrap();
    let at = |place: &str| Some(place.to_owned());
    assert_eq!(world.wish_for_a_machine().await, Outcome::Written);
    assert_eq!(places().await, [], "nobody asked for it yet");
    db.execute("UPDATE machines SET state = 'creating'").await;
    assert_eq!(places().await, [None], "it may be anywhere");
    db.execute("UPDATE machines SET offering = '{\"location\": \"eu-west-1b\"}', provider_id = 'i-1'").await;
    assert_eq!(places().await, [at("eu-west-1b")]);
    db.execute("UPDATE machines SET provider_id = 'eu-north-1/i-1'").await;
    assert_eq!(places().await, [at("eu-north-1")], "it was found elsewhere");
    db.execute("UPDATE machines SET state = 'gone', gone_at = now()").await;
    assert_eq!(places().await, []);
    let (id, team, account) = (ImageId::generate(), world.team, world.account);
    let tx = db.store().begin().await.unwrap();
    let new = NewImage { id, team, account, arch: Arch::Amd64, base_images: Vec::new() };
    assert_eq!(tx.insert_image(&new).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    assert_eq!((places().await, world.uses().await.captured), (vec![], 0), "it has no machine yet");
    db.execute("UPDATE images SET machine_id = (SELECT id FROM machines), state = 'failed'").await;
    assert_eq!((places().await, world.uses().await.captured), (vec![at("eu-north-1")], 1));
    db.execute("UPDATE images SET state = 'ready', reference = 'ami-1', locations = '[\"eu-south-1\"]'").await;
    assert_eq!(places().await, [at("eu-north-1"), at("eu-south-1")]);
    let listed = db.store().list_account_images(world.account).await.unwrap();
    assert_eq!(listed.iter().map(|image| image.id).collect::<Vec<_>>(), [id]);
    db.execute("UPDATE images SET deleted_at = now()").await;
    assert_eq!((places().await, world.uses().await.captured), (vec![], 0));
    assert!(db.store().list_account_images(world.account).await.unwrap().is_empty());
    world.db.drop_database().await;
}

#[tokio::test]
async fn of_two_changes_of_what_was_read_once_one_is_refused() {
    let world = world().await;
    let store = world.db.store();
    let read = store.get_cloud_account(&ALL, world.account).await.unwrap();
    let change = async |name: &str| {
        let tx = store.begin().await.unwrap();
        let changed = stagely_store::tenants::CloudAccount { name: name.to_owned(), ..read.clone() };
        let outcome = tx.change_cloud_account(&changed).await;
        tx.commit().await.unwrap();
        outcome
    };
    assert_eq!(change("attic").await.unwrap(), Outcome::Written);
    assert_eq!(change("cellar").await.unwrap(), Outcome::Stale);
    let after = store.get_cloud_account(&ALL, world.account).await.unwrap();
    assert_eq!((after.name.as_str(), after.generation), ("attic", 2));
    world.db.qemu_account(world.team).await;
    let tx = store.begin().await.unwrap();
    let taken = stagely_store::tenants::CloudAccount { name: "metal".to_owned(), ..after };
    assert!(matches!(tx.change_cloud_account(&taken).await, Err(StoreError::Exists(_))));
    drop(tx);
    world.db.drop_database().await;
}

/// A create is begun by credentials that are the account's until the create is on record.
#[tokio::test]
async fn who_holds_an_account_keeps_it_from_being_changed_and_a_changed_one_is_not_held() {
    let world = world().await;
    let store = world.db.store();
    let holder = store.begin().await.unwrap();
    assert_eq!(holder.hold_cloud_account(world.account, 1).await.unwrap(), Outcome::Written);
    let read = store.get_cloud_account(&ALL, world.account).await.unwrap();
    let change = async {
        let tx = store.begin().await.unwrap();
        tx.lock_cloud_account(&ALL, world.account).await.unwrap();
        assert_eq!(tx.change_cloud_account(&read).await.unwrap(), Outcome::Written);
        tx.commit().await.unwrap();
    };
    let mut change = std::pin::pin!(change);
    assert!(tokio::time::timeout(Duration::from_millis(300), change.as_mut()).await.is_err(), "it waits");
    holder.commit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), change).await.unwrap();
    let late = store.begin().await.unwrap();
    assert_eq!(late.hold_cloud_account(world.account, 1).await.unwrap(), Outcome::Stale);
    assert_eq!(late.hold_cloud_account(world.account, 2).await.unwrap(), Outcome::Written);
    drop(late);
    world.db.drop_database().await;
}

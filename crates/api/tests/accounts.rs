//! Cloud accounts that are changed and deleted.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Stand, World, read};

struct Account {
    stand: Stand,
    world: World,
    path: String,
}

impl Account {
    /// One at Hetzner Cloud, whose token is `s3cret-one`.
    async fn start() -> Self {
        Self::add(json!({
            "name": "eu", "kind": "hetzner", "credentials": { "token": "s3cret-one" },
            "settings": { "locations": ["nbg1"], "ingress_from": ["203.0.113.7/32"] },
        }))
        .await
    }

    /// One at AWS with these regions.
    async fn in_regions(regions: &[&str]) -> Self {
        let credentials = json!({ "access_key_id": "AKIA", "secret_access_key": "s3cret-one" });
        let settings = in_regions(regions)["settings"].clone();
        Self::add(json!({ "name": "eu", "kind": "aws", "credentials": credentials, "settings": settings })).await
    }

    async fn add(account: Value) -> Self {
        let stand = Stand::start().await;
        let world = stand.world("own").await;
        let (status, made) = stand.post("/api/v1/cloud-accounts", &world.admin, account).await;
        assert_eq!((status, &made["generation"]), (201, &json!(1)), "{made}");
        let path = format!("/api/v1/cloud-accounts/{}", made["id"].as_str().unwrap());
        Self { stand, world, path }
    }

    async fn change(&self, body: Value) -> (u16, Value) {
        read(self.stand.request(Method::PATCH, &self.path, &self.world.admin).json(&body).send().await.unwrap()).await
    }

    async fn delete(&self) -> (u16, Value) {
        read(self.stand.request(Method::DELETE, &self.path, &self.world.admin).send().await.unwrap()).await
    }

    /// A hash of the credentials as they are stored.
    async fn sealed(&self) -> String {
        self.stand.db.text("SELECT md5(credentials_sealed) FROM cloud_providers WHERE name <> 'metal'").await
    }

    /// Gives it the machine of the world.
    async fn use_it(&self) {
        self.stand
            .db
            .execute("UPDATE machines SET account_id = (SELECT id FROM cloud_providers WHERE name = 'eu')")
            .await;
    }

    /// Gives it the golden image of the world, without the machine that it was made of.
    async fn keep_image(&self) {
        let sql = "UPDATE images SET machine_id = NULL, \
                   account_id = (SELECT id FROM cloud_providers WHERE name = 'eu')";
        self.stand.db.execute(sql).await;
    }

    /// Its machine is this one, in this place.
    async fn place_machine(&self, id: &str, place: &str) {
        let offering = json!({
            "name": "t3.small", "location": place, "arch": "amd64", "vcpus": 2, "memory_mib": 2048, "available": true,
        });
        let sql = format!("UPDATE machines SET provider_id = '{id}', offering = '{offering}'");
        self.stand.db.execute(&sql).await;
    }

    /// Changes the regions, which is refused in these words.
    async fn keeps_its_regions(&self, wanted: &[&str], words: &[&str]) {
        let (status, problem) = self.change(in_regions(wanted)).await;
        assert_eq!((status, &problem["code"]), (409, &json!("in_use")), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
        let (_, shown) = self.stand.get(&self.path, &self.world.viewer).await;
        assert_ne!(shown["settings"]["regions"], json!(wanted));
    }

    async fn takes_regions(&self, wanted: &[&str]) {
        let (status, after) = self.change(in_regions(wanted)).await;
        assert_eq!((status, &after["settings"]["regions"]), (200, &json!(wanted)), "{after}");
    }
}

/// A change to these regions.
fn in_regions(regions: &[&str]) -> Value {
    json!({ "settings": { "regions": regions, "ingress_from": ["203.0.113.7/32"] } })
}

#[tokio::test]
async fn an_account_is_changed_as_far_as_is_said_and_the_audit_log_holds_no_secret() {
    let account = Account::start().await;
    let before = account.sealed().await;
    let (status, after) = account.change(json!({ "name": "europe" })).await;
    assert_eq!((status, &after["name"], &after["generation"]), (200, &json!("europe"), &json!(2)), "{after}");
    assert_eq!((account.sealed().await, &after["settings"]["locations"]), (before.clone(), &json!(["nbg1"])));
    let settings = json!({ "locations": ["fsn1", "nbg1"], "ingress_from": ["203.0.113.7/32"] });
    let (status, after) =
        account.change(json!({ "settings": settings, "credentials": { "token": "s3cret-two" } })).await;
    assert_eq!((status, &after["settings"]["locations"]), (200, &json!(["fsn1", "nbg1"])), "{after}");
    assert_ne!(account.sealed().await, before);
    let audit = "SELECT string_agg(action || ' ' || detail::text, ' ' ORDER BY id) FROM audit_logs";
    let audit = account.stand.db.text(audit).await;
    assert!(
        audit.contains(r#"cloud_account.change {"name": "europe", "changed": ["settings", "credentials"]"#),
        "{audit}"
    );
    assert!(!format!("{audit}{after}").contains("s3cret"));
    // Nothing to change is no change.
    let (status, same) = account.change(json!({})).await;
    assert_eq!((status, &same["generation"]), (200, &json!(3)));
    account.stand.stop().await;
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let account = Account::start().await;
    let before = account.sealed().await;
    for (body, status, words) in [
        (json!({ "name": "No" }), 422, "`name`"),
        (json!({ "name": "metal" }), 409, "already"),
        (json!({ "kind": "aws" }), 422, "kind"),
        (json!({ "settings": {} }), 422, "`settings.ingress_from`"),
        (json!({ "credentials": {} }), 422, "`credentials.token` is missing"),
        (json!({ "credentials": { "token": "bad" } }), 422, "not valid"),
        (json!({ "name": "us", "credentials": { "token": "bad" } }), 422, "not valid"),
        (json!({ "name": "us", "generation": 7 }), 409, "read it again"),
    ] {
        let (answer, problem) = account.change(body.clone()).await;
        assert_eq!(answer, status, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{body}: {problem}");
    }
    let (_, shown) = account.stand.get(&account.path, &account.world.viewer).await;
    assert_eq!((&shown["name"], &shown["generation"]), (&json!("eu"), &json!(1)));
    assert_eq!(account.sealed().await, before);
    account.stand.stop().await;
}

#[tokio::test]
async fn changes_at_the_same_time_lose_none_that_was_accepted() {
    let account = Account::start().await;
    let changes = (0..8).map(|number| account.change(json!({ "name": format!("eu-{number}") })));
    let answers = futures::future::join_all(changes).await;
    let accepted = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(accepted >= 1 && answers.iter().all(|(status, _)| [200, 409].contains(status)), "{answers:?}");
    let (_, shown) = account.stand.get(&account.path, &account.world.viewer).await;
    assert_eq!(shown["generation"], json!(1 + accepted));
    account.stand.stop().await;
}

#[tokio::test]
async fn credentials_that_show_none_of_its_machines_are_refused_while_there_are_some() {
    let account = Account::start().await;
    account.use_it().await;
    let before = account.sealed().await;
    let strangers = json!({ "credentials": { "token": "of-strangers" } });
    let (status, problem) = account.change(strangers.clone()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("in_use")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("1 machines"), "{problem}");
    assert_eq!(account.sealed().await, before);
    // Those that show them are those of the same account.
    assert_eq!(account.change(json!({ "credentials": { "token": "renewed" } })).await.0, 200);
    let machines_due = "SELECT count(*) FROM work WHERE kind = 'machine' AND NOT parked AND run_after <= now()";
    assert_eq!(account.stand.db.text(machines_due).await, "1", "what waited for them goes on");
    // Settings leave the machines where they are, and a machine that nobody asked for yet is nowhere.
    let settings = json!({ "locations": ["fsn1"], "ingress_from": ["203.0.113.7/32"] });
    assert_eq!(account.change(json!({ "settings": settings })).await.0, 200);
    account.stand.db.execute("UPDATE machines SET state = 'intended'").await;
    assert_eq!(account.change(strangers.clone()).await.0, 200);
    account.stand.db.execute("UPDATE machines SET state = 'enrolled'").await;
    assert_eq!(account.change(strangers.clone()).await.0, 409);
    let abandoned = json!({ "credentials": { "token": "of-strangers" }, "abandon_machines": true });
    assert_eq!(account.change(abandoned).await.0, 200);
    account.stand.stop().await;
}

#[tokio::test]
async fn credentials_that_do_not_show_its_golden_images_are_refused_while_there_are_some() {
    let account = Account::start().await;
    account.keep_image().await;
    let strangers = json!({ "credentials": { "token": "of-strangers" } });
    let (status, problem) = account.change(strangers.clone()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("in_use")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("1 golden images"), "{problem}");
    // An image proves as much as a machine.
    assert_eq!(account.change(json!({ "credentials": { "token": "renewed" } })).await.0, 200);
    let abandoned = json!({ "credentials": { "token": "of-strangers" }, "abandon_machines": true });
    assert_eq!(account.change(abandoned).await.0, 200);
    // Of one that is not made of anything yet, the provider has nothing.
    account.stand.db.execute("UPDATE images SET state = 'baking', reference = NULL").await;
    assert_eq!(account.change(strangers).await.0, 200);
    account.stand.stop().await;
}

#[tokio::test]
async fn a_region_stays_as_long_as_a_machine_may_be_in_it() {
    let (first, second) = ("eu-central-1", "eu-west-1");
    let account = Account::in_regions(&[first, second]).await;
    account.use_it().await;
    account.place_machine("eu-west-1/i-1", "eu-west-1b").await;
    // Its credentials show the machine, and that says nothing of the region that is to go.
    account.keeps_its_regions(&[first], &["eu-west-1", "settings.locations", "abandon_machines"]).await;
    account.keeps_its_regions(&[first, "eu-north-1"], &["eu-west-1"]).await;
    account.takes_regions(&[first, second, "eu-north-1"]).await;
    account.takes_regions(&[first, second]).await;
    // Where it was found counts, and not as what it was asked for.
    account.place_machine("eu-west-1/i-1", "eu-central-1a").await;
    account.keeps_its_regions(&[first], &["eu-west-1"]).await;
    account.place_machine("i-1", "eu-central-1a").await;
    account.takes_regions(&[first]).await;
    account.takes_regions(&[first, second]).await;
    account.stand.db.execute("UPDATE machines SET provider_id = NULL, offering = NULL, state = 'creating'").await;
    account.keeps_its_regions(&[first], &["eu-west-1"]).await;
    let mut abandoned = in_regions(&[first]);
    abandoned["abandon_machines"] = json!(true);
    assert_eq!(account.change(abandoned).await.0, 200);
    account.stand.stop().await;
}

#[tokio::test]
async fn a_region_stays_as_long_as_a_golden_image_is_in_it() {
    let (first, second) = ("eu-central-1", "eu-west-1");
    let account = Account::in_regions(&[first, second]).await;
    account.keep_image().await;
    account.stand.db.execute("UPDATE images SET reference = 'eu-west-1/ami-1', locations = '[\"eu-west-1\"]'").await;
    account.keeps_its_regions(&[first], &["golden images", "eu-west-1"]).await;
    account.stand.db.execute("UPDATE images SET state = 'gone', deleted_at = now()").await;
    account.takes_regions(&[first]).await;
    account.stand.stop().await;
}

/// What is in the first region has no region in its id.
#[tokio::test]
async fn the_first_region_stays_the_first_as_long_as_anything_is_there() {
    let (first, second) = ("eu-central-1", "eu-west-1");
    let account = Account::in_regions(&[first, second]).await;
    account.use_it().await;
    account.place_machine("eu-west-1/i-1", "eu-west-1b").await;
    for turned in [vec![second, first], vec![second], vec!["eu-north-1", first, second]] {
        account.keeps_its_regions(&turned, &["1 machines", "leave eu-central-1 the first"]).await;
    }
    account.stand.db.execute("UPDATE machines SET gone_at = now()").await;
    account.keep_image().await;
    account.keeps_its_regions(&[second, first], &["1 golden images", "leave eu-central-1 the first"]).await;
    account.stand.db.execute("UPDATE images SET state = 'gone', deleted_at = now()").await;
    account.takes_regions(&[second, first]).await;
    // The only region is the first one.
    account.stand.db.execute("UPDATE machines SET gone_at = NULL").await;
    let only = |region: &str| json!({ "settings": { "region": region, "ingress_from": ["203.0.113.7/32"] } });
    assert_eq!(account.change(only(first)).await.0, 409);
    assert_eq!(account.change(only(second)).await.0, 200, "the machine is not in the region that goes");
    account.stand.stop().await;
}

#[tokio::test]
async fn an_account_in_use_says_by_what_and_a_deleted_one_keeps_no_credentials() {
    let account = Account::start().await;
    account.use_it().await;
    account
        .stand
        .db
        .execute("UPDATE projects SET cloud_provider_id = (SELECT id FROM cloud_providers WHERE name = 'eu')")
        .await;
    let (status, problem) = account.delete().await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 409 && detail.contains("1 machines") && detail.contains("own/shop"), "{problem}");
    account.stand.db.execute("UPDATE machines SET gone_at = now()").await;
    assert_eq!(account.delete().await.0, 409);
    account.stand.db.execute("UPDATE projects SET deleted_at = now()").await;
    assert_eq!(account.delete().await.0, 204);
    assert_eq!(account.delete().await.0, 404);
    assert_eq!(account.change(json!({ "name": "x" })).await.0, 404);
    let left = "SELECT count(*) FROM cloud_providers WHERE credentials_sealed IS NOT NULL";
    assert_eq!(account.stand.db.text(left).await, "0");
    account.stand.stop().await;
}

#[tokio::test]
async fn a_new_account_is_due_to_be_swept_at_once() {
    let account = Account::start().await;
    let due = "SELECT count(*) FROM work JOIN cloud_providers c ON c.id = key \
               WHERE work.kind = 'sweep' AND c.name = 'eu' AND NOT parked AND run_after <= now()";
    assert_eq!(account.stand.db.text(due).await, "1");
    account.stand.stop().await;
}

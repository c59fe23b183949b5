//! What a person, the git host or chance does to a preview.

use stagely_domain::id::{DeliveryId, EnvironmentId};
use stagely_store::work::kind;
use stagely_store::{NewDelivery, Received};
use stagely_store::{Outcome, Power};
use uuid::Uuid;

use super::Stack;
use crate::git_host::{self, REPO, host};
use crate::world::Hold;

impl Stack {
    pub async fn open(&self) {
        self.deliver("opened").await;
    }

    /// Opens the pull request, and waits until its preview is live.
    pub async fn open_until_live(&self) {
        self.open().await;
        self.wait_until_live().await;
    }

    pub async fn push(&self) -> DeliveryId {
        git_host::push(&self.branch).await;
        self.deliver("synchronize").await
    }

    /// Brings a commit of these files live; how many images were built for it.
    pub async fn built_for(&self, files: &[(&str, &[u8])]) -> usize {
        let before = self.world.inside().built;
        git_host::commit(&self.branch, files).await;
        self.deliver("synchronize").await;
        self.wait_until_live().await;
        self.world.inside().built - before
    }

    pub async fn close(&self) -> DeliveryId {
        host().close_silently(REPO, self.number);
        self.deliver("closed").await
    }

    /// Closes the pull request, and waits until nothing is left.
    pub async fn close_until_gone(&self) {
        self.close().await;
        self.wait_until_gone().await;
    }

    /// What a member asks for: the same commit again.
    pub async fn redeploy(&self) {
        let store = self.world.db.store();
        let env = store.find_environment(self.world.project, self.number).await.unwrap().unwrap();
        let tx = store.begin().await.unwrap();
        assert_eq!(tx.wish_commit(env.id, env.generation, &env.pr).await.unwrap(), Outcome::Written);
        tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What an idle preview is told, or one that is visited again.
    pub async fn power(&self, power: Power) {
        let tx = self.world.db.store().begin().await.unwrap();
        let id = self.world.db.text("SELECT id FROM environments WHERE gone_at IS NULL").await.parse().unwrap();
        assert_eq!(tx.wish_power(EnvironmentId::from_uuid(id), power).await.unwrap(), Outcome::Written);
        tx.wake(kind::ENVIRONMENT, id).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What the API does with a webhook.
    pub async fn deliver(&self, action: &str) -> DeliveryId {
        self.take_in(self.delivery(action)).await
    }

    /// A webhook about the pull request.
    pub fn delivery(&self, action: &str) -> NewDelivery {
        NewDelivery {
            source: "github",
            guid: Uuid::new_v4(),
            event: "pull_request".to_owned(),
            action: Some(action.to_owned()),
            repo: Some(REPO.to_owned()),
            pr_number: Some(self.number),
            body_sha256: [0; 32],
            body: Vec::new(),
            ignored: None,
        }
    }

    pub async fn take_in(&self, delivery: NewDelivery) -> DeliveryId {
        let tx = self.world.db.store().begin().await.unwrap();
        let Received::Stored(id) = tx.insert_delivery(delivery).await.unwrap() else { panic!("a new delivery") };
        tx.wake(kind::INBOX, id.uuid()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub fn hold(&self, hold: Hold) {
        self.world.inside().holds.insert(hold);
    }

    pub fn release(&self, hold: Hold) {
        self.world.inside().holds.remove(&hold);
    }

    /// The only machine is not there any more, and that is noticed.
    pub async fn lose_the_machine(&self) {
        let machine = self.only_machine();
        self.cloud.inner.power_off(machine);
        self.restart_and_wake(machine).await;
    }

    /// Another agent of the account has been connected for long.
    pub async fn a_neighbour_is_heard(&self) {
        let db = &self.world.db;
        db.execute(
            "INSERT INTO machines SELECT (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid(), \
             'role', 'builder', 'env_id', NULL, 'gone_at', now()))).* FROM machines m",
        )
        .await;
        db.execute(
            "INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline, connected_at, last_seen_at) \
             SELECT id, '', now(), now() - interval '11 minutes', now() FROM machines WHERE role = 'builder'",
        )
        .await;
    }

    /// As if the preview had been live for ten minutes longer.
    pub async fn backdate_live_by_ten_minutes(&self) {
        self.world.db.execute("UPDATE workflow_runs SET live_at = live_at - interval '10 minutes'").await;
    }
}

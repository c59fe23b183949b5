//! What the reaper decides on what it saw, and what happens before its decision is written.

use chrono::TimeDelta;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::{EnvironmentId, ProjectId, TeamId};
use stagely_store::environments::{Environment, NewEnvironment, PullRequest};
use stagely_store::testing::TestDb;
use stagely_store::{Outcome, Power, Presence, Result, Scope, Tx};

const ALL: Scope = Scope::system("look at a preview in a test");

struct Previews {
    db: TestDb,
    team: TeamId,
    project: ProjectId,
}

impl Previews {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let team = db.team("acme").await;
        let project = db.project(team, "acme/shop", None).await;
        Self { db, team, project }
    }

    async fn open(&self, number: i64) -> EnvironmentId {
        let pr = PullRequest {
            number,
            title: String::new(),
            branch: "change".to_owned(),
            author: "ada".to_owned(),
            url: String::new(),
            sha: "0".repeat(40),
        };
        let id = EnvironmentId::generate();
        let (team, project, hash) = (self.team, self.project, format!("hash{number}"));
        let new = NewEnvironment { id, team, project, pr, hash, ttl_secs: 3600 };
        self.write(async |tx| tx.insert_environment(&new).await).await;
        id
    }

    async fn see(&self, id: EnvironmentId) -> Environment {
        self.db.store().get_environment(&ALL, id).await.unwrap()
    }

    async fn write<T>(&self, change: impl AsyncFnOnce(&Tx) -> Result<T>) -> T {
        let tx = self.db.store().begin().await.unwrap();
        let changed = change(&tx).await.unwrap();
        tx.commit().await.unwrap();
        changed
    }

    /// The reaper finds it idle, as it was seen.
    async fn sleep(&self, seen: &Environment) -> Outcome {
        self.write(async |tx| tx.wish_idle_asleep(seen.id, seen.generation, seen.last_activity_at).await).await
    }

    /// The reaper finds its time over, as it was seen.
    async fn expire(&self, seen: &Environment) -> Outcome {
        let end = Some(seen.expires_at);
        self.write(async |tx| tx.wish_expired(seen.id, seen.generation, end, "its time is over").await).await
    }

    async fn pin(&self, id: EnvironmentId, pinned: bool) {
        self.write(async |tx| tx.pin_environment(id, pinned).await).await;
    }

    async fn push(&self, seen: &Environment) {
        let written = self.write(async |tx| tx.wish_commit(seen.id, seen.generation, &seen.pr).await).await;
        assert_eq!(written, Outcome::Written);
    }
}

#[tokio::test]
async fn a_visit_a_push_or_a_pin_in_between_keeps_an_idle_preview_awake() {
    let previews = Previews::new().await;
    let id = previews.open(1).await;

    let seen = previews.see(id).await;
    // The edge's clock may be ahead.
    let visit = SystemClock.now() + TimeDelta::hours(1);
    previews.write(async |tx| tx.touch_environment(id, visit).await).await;
    assert_eq!(previews.sleep(&seen).await, Outcome::Stale);

    let seen = previews.see(id).await;
    previews.push(&seen).await;
    assert_eq!(previews.sleep(&seen).await, Outcome::Stale);

    let seen = previews.see(id).await;
    previews.pin(id, true).await;
    assert_eq!(previews.sleep(&seen).await, Outcome::Stale);
    assert_eq!(previews.see(id).await.power, Power::Awake);

    previews.pin(id, false).await;
    assert_eq!(previews.sleep(&seen).await, Outcome::Written);
    assert_eq!(previews.see(id).await.power, Power::Asleep);
    assert_eq!(previews.sleep(&seen).await, Outcome::Stale, "it is asleep already");
    previews.db.drop_database().await;
}

#[tokio::test]
async fn a_renewal_a_push_or_a_pin_in_between_keeps_a_preview_whose_time_was_over() {
    let previews = Previews::new().await;
    let id = previews.open(1).await;

    let seen = previews.see(id).await;
    previews.write(async |tx| tx.renew_environment(id, TimeDelta::days(1), None).await).await;
    assert_eq!(previews.expire(&seen).await, Outcome::Stale);

    let seen = previews.see(id).await;
    previews.push(&seen).await;
    assert_eq!(previews.expire(&seen).await, Outcome::Stale);

    let seen = previews.see(id).await;
    previews.pin(id, true).await;
    assert_eq!(previews.expire(&seen).await, Outcome::Stale);
    assert_eq!(previews.see(id).await.desired, Presence::Present);

    previews.pin(id, false).await;
    assert_eq!(previews.expire(&seen).await, Outcome::Written);
    let gone = previews.see(id).await;
    assert_eq!((gone.desired, gone.generation), (Presence::Absent, seen.generation + 1));
    previews.db.drop_database().await;
}

#[tokio::test]
async fn a_pin_does_not_keep_a_preview_whose_project_is_gone_but_a_push_does() {
    let previews = Previews::new().await;
    let id = previews.open(1).await;
    previews.pin(id, true).await;
    let seen = previews.see(id).await;
    previews.push(&seen).await;
    let abandon = async |generation| {
        previews.write(async |tx| tx.wish_expired(id, generation, None, "the project was deleted").await).await
    };
    assert_eq!(abandon(seen.generation).await, Outcome::Stale);
    assert_eq!(abandon(seen.generation + 1).await, Outcome::Written);
    assert_eq!(previews.see(id).await.desired, Presence::Absent);
    previews.db.drop_database().await;
}

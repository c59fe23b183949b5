//! Webhooks, sent as GitHub sends them: signed, once, with ten seconds for the answer, and written down.

use std::time::Duration;

use serde_json::{Value, json};

use super::GitHost;
use super::state::Delivery;
use crate::webhook;

const PATIENCE: Duration = Duration::from_secs(10);

impl GitHost {
    /// Tells the webhook about a pull request. Like GitHub, it never tries again by itself.
    pub async fn deliver_pull_request(&self, repo: &str, number: i64, action: &str) {
        let pull = self.pull_json(repo, number, false).expect("a pull request");
        let mut body = self.envelope(repo, action);
        body["number"] = json!(number);
        body["pull_request"] = pull;
        self.deliver("pull_request", &body).await;
    }

    /// Sends an event with any body; returns the id of the attempt, or 0 where no webhook is set up.
    pub async fn deliver(&self, event: &str, body: &Value) -> u64 {
        let guid = uuid::Uuid::new_v4().to_string();
        let action = body["action"].as_str().map(str::to_owned);
        self.attempt(Delivery {
            id: 0,
            guid,
            event: event.to_owned(),
            action,
            status: 0,
            redelivery: false,
            at: self.0.clock.now(),
            body: body.to_string(),
        })
        .await
    }

    /// Delivers once more, as the button in GitHub's settings does: same event id, same body.
    pub async fn redeliver(&self, id: u64) {
        let known = self.state().deliveries.iter().find(|delivery| delivery.id == id).cloned().expect("a delivery");
        self.attempt(Delivery { redelivery: true, at: self.0.clock.now(), status: 0, ..known }).await;
    }

    /// The next deliveries get lost on their way.
    pub fn drop_deliveries(&self, times: u32) {
        self.state().lost = times;
    }

    /// What was delivered, and how it was answered (0: not at all).
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.state().deliveries.clone()
    }

    /// What every event of a repository says.
    pub(super) fn envelope(&self, repo: &str, action: &str) -> Value {
        let owner = repo.split('/').next().unwrap_or_default();
        let (id, installation) = {
            let mut state = self.state();
            (state.repo(repo).id, state.installations.get(owner).copied().unwrap_or_default())
        };
        json!({
            "action": action,
            "repository": self.answers().repository(repo, id),
            "installation": {"id": installation, "node_id": "MDIz"},
        })
    }

    async fn attempt(&self, mut delivery: Delivery) -> u64 {
        let Some((url, secret)) = &self.0.webhook else { return 0 };
        let is_lost = {
            let mut state = self.state();
            delivery.id = state.next_id();
            let is_lost = state.lost > 0;
            state.lost = state.lost.saturating_sub(1);
            is_lost
        };
        if !is_lost {
            let request = self
                .0
                .client
                .post(url)
                .timeout(PATIENCE)
                .header("content-type", "application/json")
                .header("user-agent", "GitHub-Hookshot/local")
                .header("x-github-event", &delivery.event)
                .header("x-github-delivery", &delivery.guid)
                .header("x-hub-signature-256", webhook::sign(secret, delivery.body.as_bytes()))
                .body(delivery.body.clone());
            delivery.status = request.send().await.map_or(0, |response| response.status().as_u16());
        }
        let id = delivery.id;
        self.state().deliveries.push(delivery);
        id
    }
}

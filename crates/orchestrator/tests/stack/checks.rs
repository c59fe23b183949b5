//! What a user can see of a preview, what is waited for and what is asserted.

use std::time::Duration;

use stagely_domain::id::{DeliveryId, MachineId};

use super::Stack;
use crate::edge;
use crate::git_host::{REPO, host};

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(15);

/// How much is not as it should be in the end.
const LEFT: &str = "(SELECT count(*) FROM pr_posts WHERE posted_seq < wanted_seq) \
    + (SELECT count(*) FROM inbox WHERE decision IS NULL) + (SELECT count(*) FROM machines WHERE gone_at IS NULL) \
    + (SELECT count(*) FROM environments WHERE gone_at IS NULL)";

impl Stack {
    /// Waits until it is live at the newest commit, for the reader of the comment and for visitors.
    pub async fn wait_until_live(&self) {
        let sha = self.sha();
        self.wait("a live preview", async || {
            let comment = self.comment();
            comment.contains("Preview: Live") && comment.contains(&sha[..12])
        })
        .await;
        let hostname = self.hostname().await;
        assert!(self.comment().contains(&format!("**https://{hostname}**")), "{}", self.comment());
        // One that woke is not proved: its route is on its way while the comment is posted.
        self.wait(&format!("{hostname} to be served"), async || self.is_served().await).await;
        assert_eq!(self.world.machines().await.len(), 1);
    }

    /// Waits until nothing is left, and checks that the pull request says so, if it ever said anything.
    pub async fn wait_until_gone(&self) {
        self.wait("an end", async || self.world.db.text(LEFT).await == "0").await;
        let comment = self.comment();
        assert!(comment.is_empty() || comment.contains("Preview: Removed"), "{comment}");
        assert_eq!(self.world.machines().await, []);
        assert!(self.cloud.peak() <= 1, "{} machines at the same time", self.cloud.peak());
        for wrong in [
            "environments WHERE state <> 'destroyed' OR desired <> 'absent'",
            "work WHERE parked",
            "workflow_runs WHERE finished_at IS NULL",
            "routes WHERE state <> 'gone'",
            "inbox WHERE decision NOT IN ('applied', 'ignored')",
        ] {
            assert_eq!(self.world.db.text(&format!("SELECT count(*) FROM {wrong}")).await, "0", "{wrong}");
        }
        assert!(!self.is_served().await);
        assert_eq!(host().violations(), Vec::<String>::new());
    }

    /// Waits until it is live again, on a second machine.
    pub async fn wait_until_replaced(&self) {
        let replacements = "SELECT count(*) FROM workflow_runs WHERE cause = 'machine_lost' AND live_at IS NOT NULL";
        self.wait("a replacement", async || self.world.db.text(replacements).await == "1").await;
        self.wait_until_live().await;
        assert_eq!(self.cloud.ever(), 2);
    }

    /// Waits until the webhook was looked at.
    pub async fn wait_until_decided(&self, id: DeliveryId) {
        let sql = format!("SELECT decision FROM inbox WHERE id = '{}'", id.uuid());
        self.wait("a decision", async || !self.world.db.text(&sql).await.is_empty()).await;
    }

    /// Waits until the comment contains the text.
    pub async fn wait_for_comment(&self, text: &str) {
        self.wait(text, async || self.comment().contains(text)).await;
    }

    /// Waits until the URL is asked for, and nothing is known yet.
    pub async fn wait_for_proof(&self) {
        let proofs = "SELECT count(*) FROM workflow_runs WHERE phases->'prove' IS NOT NULL AND finished_at IS NULL";
        self.wait("a proof", async || self.world.db.text(proofs).await == "1").await;
    }

    /// Waits for the call that is to wait; false when it goes live without such a call, which may then not come.
    pub async fn call_waits(&self) -> bool {
        tokio::select! {
            () = self.gate.waits() => true,
            () = self.wait_until_live() => {
                self.gate.go_on();
                false
            }
        }
    }

    /// Sweeps the account again and again until it is so.
    pub async fn sweep_until(&self, what: &str, is_so: impl Fn() -> bool) {
        self.wait(what, async || {
            self.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'sweep'").await;
            is_so()
        })
        .await;
    }

    /// What the pull request shows; the one comment, or nothing yet.
    pub fn comment(&self) -> String {
        let comments = host().comments(REPO, self.number);
        assert!(comments.len() <= 1, "more than one comment: {comments:?}");
        comments.into_iter().next().map(|comment| comment.body).unwrap_or_default()
    }

    /// Whether a visitor is brought to the only machine.
    pub async fn is_served(&self) -> bool {
        edge::is_served(&self.hostname().await, &self.cache, &*self.world.cloud).await
    }

    /// The one machine that there is at the cloud.
    pub fn only_machine(&self) -> MachineId {
        let [machine] = self.cloud.inner.machines()[..] else { panic!("one machine") };
        machine
    }

    /// The pull request's newest commit.
    pub fn sha(&self) -> String {
        let mut sha = String::new();
        host().change(REPO, self.number, |pull| sha.clone_from(&pull.sha));
        sha
    }

    pub async fn hostname(&self) -> String {
        let sql = "SELECT preview_hash FROM environments WHERE pr_number = ";
        let hash = self.world.db.text(&format!("{sql}{} ORDER BY id DESC LIMIT 1", self.number)).await;
        format!("{hash}.preview.localhost")
    }

    /// Waits until it is so; what stands where otherwise.
    pub async fn wait(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let poll = async {
            while !is_so().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(DEADLINE, poll).await.is_err() {
            panic!("waited in vain for {what}:\n{}", self.describe().await);
        }
    }

    async fn describe(&self) -> String {
        let mut text = format!("calls: {:?}\ncomment: {}\n", self.gate.calls(), self.comment());
        for (table, columns, rows) in [
            ("environments", "state, desired, generation, reason", "gone_at IS NULL"),
            ("workflow_runs", "generation, state, failure, phases", "finished_at IS NULL"),
            ("machines", "id, state, desired, failure, create_deadline", "gone_at IS NULL"),
            ("agent_connections", "machine_id, desired_generation, observed_generation, observed", "true"),
            ("build_jobs", "target, state", "finished_at IS NULL"),
            ("inbox", "action, decision, reason", "decision IS NULL"),
            ("pr_posts", "kind, wanted_seq, posted_seq, last_error", "posted_seq < wanted_seq"),
            (
                "work",
                "kind, key, run_after - now(), not_before, lease_owner, attempt, parked, last_error",
                "run_after < 'infinity'",
            ),
        ] {
            let sql = format!("SELECT string_agg(({columns})::text, E'\\n') FROM {table} WHERE {rows}");
            text.push_str(&format!("{table}:\n{}\n", self.world.db.text(&sql).await));
        }
        text
    }
}

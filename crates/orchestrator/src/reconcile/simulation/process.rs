//! One process of the orchestrator: what it remembers is gone when it dies.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use stagely_domain::id::CloudAccountId;
use stagely_reconcile::{Claim, Reconciler, Step, StepError};
use stagely_store::work::kind;
use tokio::time::{Instant, sleep_until};

use super::life::Life;
use super::rows::Connection;
use crate::clouds::Account;
use crate::reconcile::image::Images;
use crate::reconcile::ledger::Ledger;
use crate::reconcile::machine::Machines;
use crate::reconcile::sweep::{self, Findings, Sweeps};

/// More than any life has.
const MOST_ACTIVATIONS: u64 = 50_000;

pub struct Process<'l> {
    life: &'l Life,
    images: Images,
    machines: Machines,
    sweeps: Sweeps,
    pub removed: AtomicU64,
}

impl<'l> Process<'l> {
    pub fn start(life: &'l Life) -> Self {
        let cloud: Arc<dyn stagely_cloud::Cloud> = life.rows.cloud.clone();
        let account = Arc::new(Account::new(cloud, Vec::new()));
        let ledger: Arc<dyn Ledger> = Arc::new(Connection { rows: Arc::clone(&life.rows), account });
        Self {
            life,
            images: Images(Arc::clone(&ledger)),
            machines: Machines(Arc::clone(&ledger)),
            sweeps: Sweeps { context: ledger, memory: Arc::default() },
            removed: AtomicU64::new(0),
        }
    }

    /// Works until then.
    pub async fn run(&self, until: Instant) {
        let mut at_work = FuturesUnordered::new();
        loop {
            let claims = self.life.rows.inside().queue.claim();
            at_work.extend(claims.into_iter().map(|claim| async move { (claim, self.activate(&claim).await) }));
            let due = self.life.rows.inside().queue.next().unwrap_or(until).min(until);
            let mut waited = pin!(sleep_until(due));
            tokio::select! {
                biased;
                Some((claim, outcome)) = at_work.next() => self.life.finish(&claim, outcome),
                () = &mut waited => {}
                () = self.life.wished.notified() => {}
            }
            if Instant::now() >= until {
                break;
            }
        }
        while let Some((claim, outcome)) = at_work.next().await {
            self.life.finish(&claim, outcome);
        }
    }

    /// One sweep beside the queue.
    pub async fn sweep(&self) -> Result<Findings, StepError> {
        let account = CloudAccountId::from_uuid(self.life.account);
        let findings = self.sweeps.sweep(account).await.map_err(StepError::never_parks)?;
        self.removed.fetch_add(findings.removed.into(), Ordering::Relaxed);
        if !findings.complete || findings.paused {
            self.life.rows.inside().queue.trouble((kind::SWEEP, self.life.account), Instant::now());
        }
        Ok(findings)
    }

    async fn activate(&self, claim: &Claim) -> Result<Step, StepError> {
        let activations = self.life.activations.fetch_add(1, Ordering::Relaxed);
        assert!(activations < MOST_ACTIVATIONS, "it never comes to rest: {claim:?}");
        match claim.fence.kind {
            kind::SWEEP => self.sweep().await.map(|_| Step::Again(sweep::EVERY)),
            kind::IMAGE => self.images.reconcile(claim).await,
            _ => self.machines.reconcile(claim).await,
        }
    }
}

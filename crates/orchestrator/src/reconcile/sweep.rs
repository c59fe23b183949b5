//! The sweep: the cloud's list against the rows, so that what no row intends is found and removed. Key: an account.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::{DeleteProgress, Vm};
use stagely_domain::id::{CloudAccountId, MachineId};
use stagely_reconcile::{Claim, Failure, Reconciler, Step};
use stagely_store::StoreError;
use stagely_store::environments::Presence;
use stagely_store::machines::Machine;
use stagely_store::work::kind;
use tokio::sync::Mutex;

use crate::context::{Context, clouded, stored};

const EVERY: Duration = Duration::from_secs(60);
/// How long a machine without a row must have been seen, in two sweeps at least.
const ORPHAN_AGE: TimeDelta = TimeDelta::minutes(10);

pub struct Sweeps {
    pub context: Arc<Context>,
    /// When a machine without a row was first seen. Memory is enough: forgetting only waits longer.
    pub orphans: Arc<Mutex<HashMap<MachineId, DateTime<Utc>>>>,
}

/// What to do about one machine of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Its row's reconciler is told.
    Wake,
    /// No row: remembered, and removed by a later sweep.
    Mark,
    Remove,
}

fn judge(vm: &Vm, row: Option<&Machine>, marked: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Verdict {
    match (row, marked) {
        (Some(row), _) if row.desired == Presence::Present && row.gone_at.is_none() => Verdict::Keep,
        (Some(_), _) => Verdict::Wake,
        (None, None) => Verdict::Mark,
        (None, Some(first)) if now - first > ORPHAN_AGE && now - vm.created_at > ORPHAN_AGE => Verdict::Remove,
        (None, Some(_)) => Verdict::Mark,
    }
}

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Findings {
    pub seen: u32,
    pub removed: u32,
    pub orphans: u32,
    pub complete: bool,
}

#[async_trait]
impl Reconciler for Sweeps {
    const KIND: &'static str = kind::SWEEP;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, Failure> {
        self.sweep(CloudAccountId::from_uuid(claim.fence.key)).await.map_err(Failure::never_parks)?;
        Ok(Step::Again(EVERY))
    }
}

impl Sweeps {
    /// One sweep of one account.
    pub async fn sweep(&self, account: CloudAccountId) -> Result<Findings, Failure> {
        let doing = "sweep a cloud account";
        let context = &self.context;
        let cloud = Arc::clone(&context.clouds.of(account).await?.cloud);
        // The cloud first: a row is committed before its machine is made, so whatever is listed has its row by now.
        let listing = cloud.list(context.installation).await.map_err(clouded(doing))?;
        let rows = context.store.list_account_machines(account).await.map_err(stored(doing))?;
        let mut findings = Findings { complete: listing.complete, ..Findings::default() };
        findings.seen = u32::try_from(listing.vms.len()).unwrap_or(u32::MAX);
        let (now, mut marks) = (context.clock.now(), self.orphans.lock().await);
        let known: HashMap<MachineId, &Machine> = rows.iter().map(|row| (row.id, row)).collect();
        let limit = (listing.vms.len() / 5).max(5);
        let mut woken: HashSet<MachineId> = HashSet::new();
        for vm in &listing.vms {
            let mut row = known.get(&vm.machine).map(|row| (*row).clone());
            if row.is_none() {
                // It may be of another account, or gone by now: only no row at all makes an orphan.
                row = match context.store.get_machine(vm.machine).await {
                    Ok(row) => Some(row),
                    Err(StoreError::NotFound(_)) => None,
                    Err(error) => return Err(stored(doing)(error)),
                };
            }
            match judge(vm, row.as_ref(), marks.get(&vm.machine).copied(), now) {
                Verdict::Keep => {}
                Verdict::Wake => {
                    woken.insert(vm.machine);
                    // A row that is closed although its machine lives was closed too early; its machine goes here.
                    if row.is_some_and(|row| row.gone_at.is_some())
                        && cloud.delete(&vm.id).await.map_err(clouded(doing))? == DeleteProgress::Gone
                    {
                        findings.removed += 1;
                    }
                }
                Verdict::Mark => {
                    marks.entry(vm.machine).or_insert(now);
                    findings.orphans += 1;
                    tracing::warn!(machine.id = %vm.machine, "{} is at the cloud and has no row", vm.machine);
                }
                Verdict::Remove
                    if !listing.complete || usize::try_from(findings.removed).unwrap_or(usize::MAX) >= limit =>
                {
                    tracing::error!(machine.id = %vm.machine, "orphan {} is left: too many at once, or the list is partial", vm.machine);
                }
                Verdict::Remove => {
                    tracing::warn!(machine.id = %vm.machine, "removing orphan {}", vm.machine);
                    if cloud.delete(&vm.id).await.map_err(clouded(doing))? == DeleteProgress::Gone {
                        findings.removed += 1;
                        marks.remove(&vm.machine);
                    }
                }
            }
        }
        drop(marks);
        woken.extend(rows.iter().filter(|row| row.desired == Presence::Absent).map(|row| row.id));
        let tx = context.store.begin().await.map_err(stored(doing))?;
        for machine in woken {
            tx.wake(kind::MACHINE, machine.uuid()).await.map_err(stored(doing))?;
        }
        tx.commit().await.map_err(stored(doing))?;
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::{ORPHAN_AGE, Verdict, judge};
    use chrono::{DateTime, TimeDelta};
    use stagely_cloud::{ProviderId, Vm, VmState};
    use stagely_domain::id::{InstallationId, MachineId};

    #[test]
    fn a_machine_without_a_row_is_removed_only_when_seen_twice_and_old() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let vm = |age| Vm {
            id: ProviderId("x".into()),
            machine: MachineId::generate(),
            installation: InstallationId::generate(),
            environment: None,
            state: VmState::Running,
            address: None,
            expires_at: now,
            created_at: now - age,
        };
        let (young, old) = (TimeDelta::seconds(1), ORPHAN_AGE * 2);
        assert_eq!(judge(&vm(old), None, None, now), Verdict::Mark);
        assert_eq!(judge(&vm(old), None, Some(now - young), now), Verdict::Mark);
        assert_eq!(judge(&vm(young), None, Some(now - old), now), Verdict::Mark);
        assert_eq!(judge(&vm(old), None, Some(now - old), now), Verdict::Remove);
    }
}

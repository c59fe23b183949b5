//! The sweep: the cloud's list against the rows, so that what no row intends is found and removed; and a note of what
//! its machines have cost. Key: an account.

pub mod cost;
pub mod decide;
mod protect;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::{Cloud, CloudError, DeleteProgress, ProviderId, Residue, ResidueKind, Vm, VmState};
use stagely_domain::id::{CloudAccountId, ImageId, MachineId};
use stagely_domain::machine::State;
use stagely_reconcile::{Claim, Reconciler, Step, StepError};
use stagely_store::images::Image;
use stagely_store::machines::Machine;
use stagely_store::sweeps::Blind;
use stagely_store::work::kind;
use stagely_store::{Power, Presence, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::context::{cloud_error, store_error};
use crate::reconcile::ledger::Ledger;
use decide::{Before, Resource, RowStatus, Verdict, decide};

pub const EVERY: Duration = Duration::from_secs(60);
/// How often what machines left behind is looked for: it takes a request for each class of it.
const RESIDUE_EVERY: Duration = Duration::from_secs(600);
/// For how long nothing without a row is removed of an account after there were more orphans than may go at once, so that a
/// person can look.
const PAUSE: Duration = Duration::from_secs(3600);

/// When the sweep before lies further back, there may have been others, of a newer database than this one.
const GAP: TimeDelta = TimeDelta::minutes(3);
/// How far the clock of whoever made an id may be from that of whoever swept.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// What the list of machines is called, and that of what they left behind.
const MACHINES: &str = "machine";
const RESIDUES: &str = "left behind";

pub struct Sweeps {
    pub context: Arc<dyn Ledger>,
    pub memory: Arc<Mutex<Memory>>,
}

/// What sweeps remember of each other. Without it nothing without a row is removed for ten minutes, since nothing is marked.
#[derive(Default)]
pub struct Memory {
    /// When something was first seen that nothing wants.
    marks: HashMap<Mark, DateTime<Utc>>,
    /// When an account was last asked for what machines left behind.
    residue: HashMap<CloudAccountId, Instant>,
    /// When there were more orphans than may go at once.
    paused: HashMap<CloudAccountId, Instant>,
    protected: HashMap<CloudAccountId, protect::Protected>,
}

/// A resource in one of an account's lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Mark {
    account: CloudAccountId,
    list: &'static str,
    /// The provider's.
    id: String,
}

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Findings {
    pub seen: u32,
    pub removed: u32,
    pub orphans: u32,
    /// Made when the rows know of nothing, and left to a person.
    pub forgotten: u32,
    /// Whether what is left waits, since there was too much for once.
    pub paused: bool,
    pub complete: bool,
    /// For the limit on removals, which is one for both lists.
    judged: Before,
}

#[async_trait]
impl Reconciler for Sweeps {
    const KIND: &'static str = kind::SWEEP;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let account = CloudAccountId::from_uuid(claim.fence.key);
        // Nothing of it is left but its name, which what is gone still bears.
        let is_there = self.context.has_account(account).await;
        if !is_there.map_err(store_error("sweep a cloud account")).map_err(StepError::never_parks)? {
            return Ok(Step::Done);
        }
        // First, since it needs only the rows: what runs costs while its provider does not answer, too.
        self.context.note_costs(&claim.fence, account).await.map_err(StepError::never_parks)?;
        self.sweep(account).await.map_err(StepError::never_parks)?;
        Ok(Step::Again(EVERY))
    }
}

impl Sweeps {
    /// One sweep of one account.
    pub async fn sweep(&self, account: CloudAccountId) -> Result<Findings, StepError> {
        let doing = "sweep a cloud account";
        let context = &self.context;
        let opened = context.account(account).await.map_err(StepError::never_parks)?;
        let cloud = &*opened.cloud;
        let blind = context.note_sweep(account, GAP).await.map_err(store_error(doing))?;
        // The cloud first: a row is committed before its machine is made, so whatever is listed has its row by now.
        let listing = opened.list(context.installation()).await.map_err(cloud_error(doing))?;
        protect::protect(&self.memory, context.installation(), account, &opened).await;
        let rows = context.list_account_machines(account).await.map_err(store_error(doing))?;
        let known: HashMap<MachineId, &Machine> = rows.iter().map(|row| (row.id, row)).collect();
        let mut findings = Findings { complete: listing.complete, ..Findings::default() };
        findings.seen = u32::try_from(listing.vms.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for vm in &listing.vms {
            let row = match known.get(&vm.machine) {
                Some(row) if is_twin(row, vm, &listing.vms) => RowStatus::Twin,
                _ => self.row_status(&known, blind, vm.machine).await?,
            };
            let resource = Resource { row, hold: vm.hold, created_at: vm.created_at, marked_at: None };
            found.push((vm.id.0.clone(), resource));
        }
        let mut refused = None;
        for mark in self.judge(account, MACHINES, &found, listing.complete, &mut findings).await {
            let outcome = cloud.delete(&ProviderId(mark.id.clone())).await;
            refused = refused.or(self.note(&mark, outcome, &mut findings).await);
        }
        let residue = self.sweep_residue(account, cloud, &known, blind, &mut findings).await;
        let looked = residue.as_ref().is_ok_and(|looked| *looked);
        if findings.forgotten > 0 {
            tracing::error!(
                account.id = %account,
                "{} at the cloud were made while this database knows of nothing: if it was restored, they are of the newer one; remove them there by hand",
                findings.forgotten
            );
        } else if blind.is_some() && listing.complete && looked {
            context.forget_blind(account).await.map_err(store_error(doing))?;
        }
        let removing = rows.iter().filter(|row| row.desired == Presence::Absent).map(|row| row.id);
        let tx = context.begin().await.map_err(store_error(doing))?;
        for machine in removing.collect::<HashSet<_>>() {
            tx.wake(kind::MACHINE, machine.uuid()).await.map_err(store_error(doing))?;
        }
        tx.commit().await.map_err(store_error(doing))?;
        match refused {
            Some(error) => Err(cloud_error(doing)(error)),
            None => residue.map(|_| findings),
        }
    }

    /// Disks, snapshots, addresses and the like whose machine is gone, and images that nobody wants. What names neither is
    /// shared by all. Answers whether all of them were looked at now.
    async fn sweep_residue(
        &self,
        account: CloudAccountId,
        cloud: &dyn Cloud,
        known: &HashMap<MachineId, &Machine>,
        blind: Option<Blind>,
        findings: &mut Findings,
    ) -> Result<bool, StepError> {
        let doing = "sweep what machines left behind";
        let last = self.memory.lock().await.residue.get(&account).copied();
        if last.is_some_and(|last| last.elapsed() < RESIDUE_EVERY) {
            return Ok(false);
        }
        let residues = cloud.list_residue(self.context.installation()).await.map_err(cloud_error(doing))?;
        let residues = residues.with_whole_images_held();
        let (mut found, mut by_id) = (Vec::new(), HashMap::<String, &Residue>::new());
        for residue in &residues.items {
            let row = match (residue.image, residue.machine) {
                (Some(image), _) => self.image_row_status(blind, image, residue, &residues.items).await?,
                (None, Some(machine)) => self.row_status(known, blind, machine).await?,
                (None, None) => continue,
            };
            let resource = Resource { row, hold: residue.hold, created_at: residue.created_at, marked_at: None };
            found.push((residue.id.clone(), resource));
            by_id.insert(residue.id.clone(), residue);
        }
        let mut refused = None;
        for mark in self.judge(account, RESIDUES, &found, residues.complete, findings).await {
            let Some(residue) = by_id.get(&mark.id) else { continue };
            let outcome = cloud.delete_residue(residue).await;
            refused = refused.or(self.note(&mark, outcome, findings).await);
        }
        // What is marked is looked at again soon, what is clean after a while.
        if self.memory.lock().await.marks.keys().all(|mark| mark.account != account) {
            self.memory.lock().await.residue.insert(account, Instant::now());
        }
        match refused {
            Some(error) => Err(cloud_error(doing)(error)),
            None => Ok(residues.complete),
        }
    }

    /// What the rows say of a machine. Only no row at all makes an orphan: it may be of another account, or gone by now.
    async fn row_status(
        &self,
        known: &HashMap<MachineId, &Machine>,
        blind: Option<Blind>,
        machine: MachineId,
    ) -> Result<RowStatus, StepError> {
        if known.contains_key(&machine) {
            return Ok(RowStatus::Open);
        }
        match self.context.get_machine(machine).await {
            Ok(row) if row.gone_at.is_none() => Ok(RowStatus::Open),
            Ok(_) => Ok(RowStatus::Closed),
            Err(StoreError::NotFound(_)) if blind.is_some_and(|blind| is_of(blind, machine.uuid())) => {
                Ok(RowStatus::Forgotten)
            }
            Err(StoreError::NotFound(_)) => Ok(RowStatus::Unknown),
            Err(error) => Err(store_error("look for a machine's row")(error)),
        }
    }

    /// What the rows say of an image, or of a part of one. The machine that it was made of has nothing to say any more.
    async fn image_row_status(
        &self,
        blind: Option<Blind>,
        id: ImageId,
        residue: &Residue,
        listed: &[Residue],
    ) -> Result<RowStatus, StepError> {
        Ok(match self.context.find_image(id).await.map_err(store_error("look for an image's row"))? {
            Some(row) if row.deleted_at.is_some() => RowStatus::Closed,
            Some(row) if is_twin_image(&row, residue, listed) => RowStatus::Twin,
            Some(_) => RowStatus::Open,
            None if blind.is_some_and(|blind| is_of(blind, id.uuid())) => RowStatus::Forgotten,
            None => RowStatus::Unknown,
        })
    }

    /// What is to be removed now; the rest of what nothing wants is marked, and what a whole list lacks is not any more.
    async fn judge(
        &self,
        account: CloudAccountId,
        list: &'static str,
        found: &[(String, Resource)],
        whole: bool,
        findings: &mut Findings,
    ) -> Vec<Mark> {
        let (now, mut memory) = (self.context.now(), self.memory.lock().await);
        let mark = |id: &String| Mark { account, list, id: id.clone() };
        if whole {
            let shown: HashSet<&String> = found.iter().map(|(id, ..)| id).collect();
            memory.marks.retain(|of, _| of.account != account || of.list != list || shown.contains(&of.id));
        }
        let with_mark = |(id, resource): &(String, Resource)| {
            let marked_at = memory.marks.get(&mark(id)).copied();
            Resource { marked_at, ..*resource }
        };
        let resources: Vec<Resource> = found.iter().map(with_mark).collect();
        let pauses = memory.paused.get(&account).is_some_and(|since| since.elapsed() < PAUSE);
        let (verdicts, beyond) = decide(&resources, findings.judged, whole, pauses, now);
        findings.judged.shown += resources.len();
        if beyond > 0 {
            memory.paused.insert(account, Instant::now());
            tracing::error!(
                account.id = %account,
                "so many orphans at once need a person's look: {beyond} more are left for now, and what has no row for {} minutes; hold there by `stagely-hold` what must stay",
                PAUSE.as_secs() / 60
            );
        }
        findings.paused |= pauses || beyond > 0;
        let mut remove = Vec::new();
        for ((id, Resource { row, .. }), verdict) in found.iter().zip(verdicts) {
            match verdict {
                Verdict::Keep if *row == RowStatus::Forgotten => findings.forgotten += 1,
                Verdict::Keep => drop(memory.marks.remove(&mark(id))),
                Verdict::Mark => {
                    findings.orphans += 1;
                    memory.marks.entry(mark(id)).or_insert_with(|| {
                        tracing::warn!(account.id = %account, ?row, "{id} ({list}) is at the cloud and nothing wants it");
                        now
                    });
                }
                Verdict::Remove => {
                    tracing::warn!(account.id = %account, ?row, "removing {id} ({list})");
                    findings.judged.removals += 1;
                    remove.push(mark(id));
                }
            }
        }
        remove
    }

    /// What became of a removal. One that is refused keeps no other from its end: its error is only kept, and it does not
    /// count among those that may go at once.
    async fn note(
        &self,
        mark: &Mark,
        outcome: Result<DeleteProgress, CloudError>,
        findings: &mut Findings,
    ) -> Option<CloudError> {
        let Mark { account, id, .. } = mark;
        match outcome {
            Ok(DeleteProgress::Gone) => {
                findings.removed += 1;
                self.memory.lock().await.marks.remove(mark);
                None
            }
            Ok(DeleteProgress::InProgress) => None,
            Ok(DeleteProgress::Held) => {
                findings.judged.removals -= 1;
                tracing::info!(account.id = %account, "{id} is held at the provider since it was listed: it stays");
                None
            }
            Err(error) => {
                findings.judged.removals -= 1;
                tracing::warn!(account.id = %account, %error, "{id} was not removed");
                Some(error)
            }
        }
    }
}

/// Whether an id may have been made in this time (RFC 9562, section 5.7: it begins with the milliseconds since 1970).
fn is_of(blind: Blind, id: Uuid) -> bool {
    let Some((seconds, _)) = id.get_timestamp().map(|made| made.to_unix()) else { return true };
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    ((blind.from - SKEW).timestamp()..=(blind.until + SKEW).timestamp()).contains(&seconds)
}

/// Whether it is another image beside the one that its row means and that is there: an answer was lost and a look came too
/// early. Parts of an image are no images.
fn is_twin_image(row: &Image, residue: &Residue, listed: &[Residue]) -> bool {
    let Some(reference) = &row.reference else { return false };
    let is_meant = |other: &Residue| other.image == Some(row.id) && other.is_image(reference);
    residue.kind == ResidueKind::Image && !is_meant(residue) && listed.iter().any(is_meant)
}

/// Whether a machine is there beside the one that its row means and that runs: a provider without idempotent creates made both, since an
/// answer was lost and a look came too early. Both may have slept since: one that was not woken costs, most of all half-way
/// asleep. What sleeps, or is on its way there or back, may be shown under two ids, but not while its row has it awake.
fn is_twin(row: &Machine, vm: &Vm, listed: &[Vm]) -> bool {
    let meant = |other: &&Vm| other.machine == row.id && row.provider_id.as_ref() == Some(&other.id.0);
    let is_settled = row.desired == Presence::Present
        && row.power == Power::Awake
        && matches!(row.state, State::Booting | State::Enrolled);
    is_settled
        && matches!(vm.state, VmState::Running | VmState::Stopped | VmState::Hibernated)
        && listed.iter().find(meant).is_some_and(|meant| meant.id != vm.id && meant.state == VmState::Running)
}

#[cfg(test)]
mod tests;

//! The cloud and the git host as the orchestrator reaches them: through the gate.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stagely_cloud::testing::FakeCloud;
use stagely_cloud::{
    Capabilities, CaptureProgress, CaptureRequest, Catalogue, Cloud, CloudError, CreateRequest, Created,
    DeleteProgress, ErrorKind, Image, Listing, Offering, ProviderId, Residue, Residues, SleepProgress, Vm,
};
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};
use stagely_forge::{
    Check, CloneAccess, Deployment, Entry, FailedDelivery, Forge, ForgeError, GitHub, PullRequest, Repo,
};

use crate::gate::Gate;

/// A cloud that remembers every machine that it ever had.
pub struct GatedCloud {
    pub inner: Arc<FakeCloud>,
    pub gate: Arc<Gate>,
    seen: Mutex<(HashSet<MachineId>, usize)>,
    /// Why every creation is refused, if it is, and how many were.
    pub refuses: Mutex<(Option<ErrorKind>, usize)>,
    /// The processors that its machines have.
    arches: Mutex<Option<&'static [Arch]>>,
    /// Whether images are there, and yet no machine can be made with one.
    pub refuses_images: AtomicBool,
    /// The only place in which machines can boot what is made of them, if there is one.
    bakes_in: Mutex<Option<&'static str>>,
    /// The end of every machine's console.
    pub console: Mutex<Option<String>>,
}

impl GatedCloud {
    pub fn new(inner: Arc<FakeCloud>, gate: Arc<Gate>) -> Self {
        Self {
            inner,
            gate,
            seen: Mutex::default(),
            refuses: Mutex::default(),
            arches: Mutex::default(),
            refuses_images: AtomicBool::default(),
            bakes_in: Mutex::default(),
            console: Mutex::default(),
        }
    }

    /// Forgets what was.
    pub fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (HashSet::new(), 0);
    }

    /// It has no machines with other processors any more.
    pub fn has_only(&self, arches: &'static [Arch]) {
        *self.arches.lock().unwrap_or_else(PoisonError::into_inner) = Some(arches);
    }

    /// Images that are made from now on boot only there.
    pub fn bakes_in(&self, place: &'static str) {
        *self.bakes_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// How many machines there ever were.
    pub fn ever(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// The most that there were at the same time.
    pub fn peak(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    async fn pass<T>(
        &self,
        name: &'static str,
        effect: impl Future<Output = stagely_cloud::Result<T>>,
    ) -> stagely_cloud::Result<T> {
        let watched = async {
            let answer = effect.await;
            let alive = self.inner.machines();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.1 = seen.1.max(alive.len());
            seen.0.extend(alive);
            answer
        };
        let refusal = |after| match after {
            true => CloudError::new(ErrorKind::Timeout, name, "the answer was lost").ambiguous(),
            false => CloudError::new(ErrorKind::Unavailable, name, "told to fail"),
        };
        self.gate.pass(name, watched, refusal).await
    }
}

#[async_trait]
impl Cloud for GatedCloud {
    fn capabilities(&self) -> Capabilities {
        let all = self.inner.capabilities();
        let arches = self.arches.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(all.arches);
        Capabilities { arches, ..all }
    }
    async fn check_access(&self) -> stagely_cloud::Result<()> {
        self.inner.check_access().await
    }
    async fn prepare(&self, size: Size, arch: Arch) -> stagely_cloud::Result<()> {
        self.inner.prepare(size, arch).await
    }
    async fn catalogue(&self) -> stagely_cloud::Result<Vec<Offering>> {
        Ok(self.readable_catalogue().await?.offerings)
    }

    async fn readable_catalogue(&self) -> stagely_cloud::Result<Catalogue> {
        self.pass("cloud catalogue", self.inner.readable_catalogue()).await
    }
    async fn create(&self, request: &CreateRequest) -> stagely_cloud::Result<Created> {
        let refused = {
            let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
            refuses.1 += 1;
            refuses.0
        };
        if let Some(kind) = refused {
            return Err(CloudError::new(kind, "create a machine", "this account may have no machines"));
        }
        let is_there = |reference: &String| self.inner.residue().iter().any(|residue| residue.is_image(reference));
        let can_boot = !self.refuses_images.load(Ordering::Relaxed);
        if request.image.as_ref().is_some_and(|reference| !can_boot || !is_there(reference)) {
            return Err(CloudError::new(ErrorKind::Invalid, "create a machine", "it cannot boot this image"));
        }
        self.pass("cloud create", self.inner.create(request)).await
    }
    async fn find_removed(&self, machine: MachineId) -> stagely_cloud::Result<Vec<Vm>> {
        self.pass("cloud find", self.inner.find_removed(machine)).await
    }

    async fn find_to_remove(&self, machine: MachineId) -> stagely_cloud::Result<Vec<Vm>> {
        self.pass("cloud find", self.inner.find_to_remove(machine)).await
    }
    async fn find(&self, machine: MachineId) -> stagely_cloud::Result<Vec<Vm>> {
        self.pass("cloud find", self.inner.find(machine)).await
    }
    async fn list(&self, installation: InstallationId) -> stagely_cloud::Result<Listing> {
        self.pass("cloud list", self.inner.list(installation)).await
    }
    async fn delete(&self, id: &ProviderId) -> stagely_cloud::Result<DeleteProgress> {
        self.pass("cloud delete", self.inner.delete(id)).await
    }
    async fn hibernate(&self, id: &ProviderId) -> stagely_cloud::Result<SleepProgress> {
        self.pass("cloud hibernate", self.inner.hibernate(id)).await
    }
    async fn wake(&self, id: &ProviderId) -> stagely_cloud::Result<Vm> {
        self.pass("cloud wake", self.inner.wake(id)).await
    }
    async fn capture(&self, request: &CaptureRequest) -> stagely_cloud::Result<CaptureProgress> {
        let progress = self.pass("cloud capture", self.inner.capture(request)).await?;
        let place = *self.bakes_in.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match (progress, place) {
            (CaptureProgress::Ready(image), Some(place)) => {
                CaptureProgress::Ready(Image { locations: vec![place.to_owned()], ..image })
            }
            (progress, _) => progress,
        })
    }
    async fn list_residue(&self, installation: InstallationId) -> stagely_cloud::Result<Residues> {
        self.pass("cloud list_residue", self.inner.list_residue(installation)).await
    }
    async fn delete_residue(&self, residue: &Residue) -> stagely_cloud::Result<DeleteProgress> {
        self.pass("cloud delete_residue", self.inner.delete_residue(residue)).await
    }
    async fn console_tail(&self, _: &ProviderId) -> stagely_cloud::Result<Option<String>> {
        Ok(self.console.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The product's own client of the git host.
pub struct GatedForge {
    pub inner: GitHub,
    pub gate: Arc<Gate>,
}

impl GatedForge {
    async fn pass<T>(
        &self,
        name: &'static str,
        effect: impl Future<Output = stagely_forge::Result<T>>,
    ) -> stagely_forge::Result<T> {
        let refusal = |_| ForgeError {
            kind: stagely_forge::ErrorKind::Unavailable,
            doing: name,
            message: "told to fail".to_owned(),
        };
        self.gate.pass(name, effect, refusal).await
    }
}

#[async_trait]
impl Forge for GatedForge {
    async fn pull_request(&self, repo: &Repo, number: i64) -> stagely_forge::Result<Option<PullRequest>> {
        self.pass("git pull_request", self.inner.pull_request(repo, number)).await
    }
    async fn list_open_pull_requests(&self, repo: &Repo) -> stagely_forge::Result<Vec<PullRequest>> {
        self.pass("git list_open_pull_requests", self.inner.list_open_pull_requests(repo)).await
    }
    async fn file_at(&self, repo: &Repo, sha: &str, path: &str) -> stagely_forge::Result<Option<Vec<u8>>> {
        self.pass("git file_at", self.inner.file_at(repo, sha, path)).await
    }
    async fn entries_at(&self, repo: &Repo, sha: &str, paths: &[String]) -> stagely_forge::Result<Vec<Option<Entry>>> {
        self.pass("git entries_at", self.inner.entries_at(repo, sha, paths)).await
    }
    async fn changed_paths(&self, repo: &Repo, number: i64) -> stagely_forge::Result<Vec<String>> {
        self.pass("git changed_paths", self.inner.changed_paths(repo, number)).await
    }
    async fn ensure_comment(
        &self,
        repo: &Repo,
        number: i64,
        marker: &str,
        known: Option<&str>,
        body: &str,
    ) -> stagely_forge::Result<String> {
        self.pass("git ensure_comment", self.inner.ensure_comment(repo, number, marker, known, body)).await
    }
    async fn ensure_check(
        &self,
        repo: &Repo,
        sha: &str,
        known: Option<&str>,
        check: &Check,
    ) -> stagely_forge::Result<String> {
        self.pass("git ensure_check", self.inner.ensure_check(repo, sha, known, check)).await
    }
    async fn ensure_deployment(
        &self,
        repo: &Repo,
        sha: &str,
        known: Option<&str>,
        deployment: &Deployment,
    ) -> stagely_forge::Result<String> {
        self.pass("git ensure_deployment", self.inner.ensure_deployment(repo, sha, known, deployment)).await
    }
    async fn clone_access(&self, repo: &Repo) -> stagely_forge::Result<CloneAccess> {
        self.pass("git clone_access", self.inner.clone_access(repo)).await
    }
    async fn list_failed_deliveries(&self, since: DateTime<Utc>) -> stagely_forge::Result<Vec<FailedDelivery>> {
        self.pass("git list_failed_deliveries", self.inner.list_failed_deliveries(since)).await
    }
    async fn redeliver(&self, id: u64) -> stagely_forge::Result<()> {
        self.pass("git redeliver", self.inner.redeliver(id)).await
    }
}

//! Clouds in memory, for tests of everything above: one that can be told to fail, here, and in [`sim`] one that behaves
//! as real ones do.

mod chance;
mod doom;
pub mod sim;

pub use chance::Chance;
pub use doom::Doom;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};

use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Catalogue, Cloud, CloudError, CreateRequest, Created,
    DeleteProgress, ErrorKind, Image, Listing, Offering, ProviderId, Residue, ResidueKind, Residues, Result,
    SleepProgress, Vm, VmState, user_data,
};

/// What a machine of `request` boots with at AWS, Hetzner and DigitalOcean, or the same with another deadline.
///
/// # Errors
/// When it cannot be made of this request.
pub fn user_data(request: &CreateRequest, deadline: Option<Duration>) -> Result<String> {
    const LIMIT: usize = 16 * 1024;
    match deadline {
        None => crate::user_data::render(request, LIMIT),
        Some(after) => crate::user_data::render_with_deadline(request, LIMIT, after),
    }
}

/// QEMU's `-accel` on this host. `state_dir` keeps the answer, `image_dir` has a kernel to find it out with.
pub async fn acceleration(state_dir: &Path, image_dir: &Path) -> &'static str {
    crate::qemu::acceleration(state_dir, image_dir).await
}

/// What the next call does instead of only its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails and has no effect.
    Before(ErrorKind),
    /// Takes effect, and then the answer is lost.
    After,
}

/// The cloud.
pub struct FakeCloud {
    clock: Arc<dyn Clock>,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    vms: HashMap<MachineId, Vm>,
    faults: VecDeque<Fault>,
    creates: u32,
    incomplete: bool,
    offerings: Vec<Offering>,
    /// The place of which nothing can be read.
    unreadable: Option<String>,
    /// Names of types that there is no room for.
    full: Vec<String>,
    /// Of a type that was withdrawn, which the catalogue does not say yet.
    retired: Option<String>,
    created_as: HashMap<MachineId, Offering>,
    /// Every machine that it ever had, as it was made.
    ever: HashMap<MachineId, Vm>,
    residue: Vec<Residue>,
    /// Machines that were made to bake.
    bakes: HashSet<MachineId>,
    bakes_at_once: bool,
    booted: HashMap<MachineId, Option<String>>,
    images: u32,
    lacks_prices: bool,
    /// How often firewalls were looked after, and whether that fails.
    protected: (u32, bool),
}

impl FakeCloud {
    /// An empty cloud.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inside: Mutex::default() }
    }

    /// Makes the next call fail; several are taken in order.
    pub fn fail_next(&self, fault: Fault) {
        self.inside().faults.push_back(fault);
    }

    /// Makes every list partial, or whole again.
    pub fn set_incomplete(&self, incomplete: bool) {
        self.inside().incomplete = incomplete;
    }

    /// What it sells from now on.
    pub fn sell(&self, offerings: Vec<Offering>) {
        self.inside().offerings = offerings;
    }

    /// The place of which the catalogue cannot be read from now on, if any.
    pub fn cut_off(&self, place: Option<&str>) {
        self.inside().unreadable = place.map(str::to_owned);
    }

    /// Whether its prices cannot be read for now.
    pub fn hide_prices(&self, hidden: bool) {
        self.inside().lacks_prices = hidden;
    }

    /// How often firewalls were looked after.
    pub fn protected(&self) -> u32 {
        self.inside().protected.0
    }

    /// Whether looking after firewalls fails from now on.
    pub fn fail_to_protect(&self, fails: bool) {
        self.inside().protected.1 = fails;
    }

    /// The names of the types that there is no room for from now on.
    pub fn fill(&self, full: &[&str]) {
        self.inside().full = full.iter().map(|name| (*name).to_owned()).collect();
    }

    /// A type is withdrawn: the catalogue shows it until the next create as it was refused.
    pub fn retire(&self, name: &str) {
        self.inside().retired = Some(name.to_owned());
    }

    /// As what a machine was created.
    pub fn created_as(&self, machine: MachineId) -> Option<Offering> {
        self.inside().created_as.get(&machine).cloned()
    }

    /// A create call of before takes effect only now.
    pub fn land_late(&self, machine: MachineId) {
        let mut inside = self.inside();
        let vm = inside.ever.get(&machine).cloned();
        inside.vms.extend(vm.map(|vm| (machine, vm)));
    }

    /// A person says that a machine must stay, or may go.
    pub fn hold(&self, machine: MachineId, hold: bool) {
        self.inside().vms.entry(machine).and_modify(|vm| vm.hold = hold);
    }

    /// What there is beside machines.
    pub fn residue(&self) -> Vec<Residue> {
        self.inside().residue.clone()
    }

    /// Machines leave these behind.
    pub fn leave_behind(&self, residue: Vec<Residue>) {
        self.inside().residue = residue;
    }

    /// A machine ends itself; one that bakes is done, and stops.
    pub fn power_off(&self, machine: MachineId) {
        let mut inside = self.inside();
        if inside.bakes.contains(&machine) {
            inside.vms.entry(machine).and_modify(|vm| (vm.state, vm.address) = (VmState::Stopped, None));
        } else {
            inside.vms.remove(&machine);
        }
    }

    /// Machines that bake are done as soon as they are made, from now on.
    pub fn bake_at_once(&self) {
        self.inside().bakes_at_once = true;
    }

    /// The image by which a machine was asked for, if there ever was such a machine.
    pub fn booted(&self, machine: MachineId) -> Option<Option<String>> {
        self.inside().booted.get(&machine).cloned()
    }

    /// The machines that exist.
    pub fn machines(&self) -> Vec<MachineId> {
        self.inside().vms.keys().copied().collect()
    }

    /// How many were ever created.
    pub fn creates(&self) -> u32 {
        self.inside().creates
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(&self, doing: &'static str, effect: impl FnOnce(&mut Inside) -> Result<T>) -> Result<T> {
        let mut inside = self.inside();
        match inside.faults.pop_front() {
            None => effect(&mut inside),
            Some(Fault::Before(kind)) => Err(CloudError::new(kind, doing, "told to fail")),
            Some(Fault::After) => {
                effect(&mut inside)?;
                Err(CloudError::new(ErrorKind::Timeout, doing, "told to lose the answer").ambiguous())
            }
        }
    }
}

#[async_trait]
impl Cloud for FakeCloud {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: true,
            arches: &[Arch::Amd64, Arch::Arm64],
            bake: true,
            user_data_max: 16384,
        }
    }

    async fn check_access(&self) -> Result<()> {
        self.call("check access", |_| Ok(()))
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        Ok(self.readable_catalogue().await?.offerings)
    }

    async fn readable_catalogue(&self) -> Result<Catalogue> {
        const DOING: &str = "read the catalogue";
        self.call(DOING, |inside| {
            let is_read = |offering: &&Offering| Some(&offering.location) != inside.unreadable.as_ref();
            let offerings = inside.offerings.iter().filter(is_read).cloned().collect();
            let error = |place| CloudError::new(ErrorKind::Unavailable, DOING, format!("{place} does not answer"));
            let unread = inside.unreadable.as_ref().map(error);
            Ok(Catalogue { offerings, unread, lacks_prices: inside.lacks_prices })
        })
    }

    async fn protect(&self, _: InstallationId, _: u16) -> Result<()> {
        self.inside().protected.0 += 1;
        let refused = || CloudError::new(ErrorKind::Unavailable, "correct the firewall", "told to fail");
        if self.inside().protected.1 { Err(refused()) } else { Ok(()) }
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        self.call("create a machine", |inside| {
            check(request, self.capabilities())?;
            if let Some(offering) = &request.offering {
                if inside.retired.as_ref() == Some(&offering.name) {
                    inside.offerings.retain(|sold| sold.name != offering.name);
                    return Err(CloudError::new(ErrorKind::Invalid, "create a machine", "there is no such type"));
                }
                if inside.full.contains(&offering.name) {
                    return Err(CloudError::new(ErrorKind::Capacity, "create a machine", "there is no room"));
                }
                inside.created_as.insert(request.machine, offering.clone());
            }
            let (next, now) = (inside.creates, self.clock.now());
            let vm = inside.vms.entry(request.machine).or_insert_with(|| Vm {
                id: ProviderId(request.machine.label()),
                machine: request.machine,
                installation: request.installation,
                environment: request.environment,
                state: VmState::Running,
                address: Some(format!("127.0.0.1:{}", 20_000 + next % 10_000)),
                expires_at: request.expires_at,
                created_at: Some(now),
                hold: false,
            });
            let made = vm.clone();
            let created = Created { id: vm.id.clone(), address: vm.address.clone() };
            if vm.installation != request.installation {
                return Err(CloudError::new(ErrorKind::Exists, "create a machine", "another installation has this id"));
            }
            inside.creates += 1;
            inside.booted.insert(request.machine, request.image.clone());
            if request.role == Role::Bake {
                inside.bakes.insert(request.machine);
                if inside.bakes_at_once {
                    inside.vms.entry(request.machine).and_modify(|vm| vm.state = VmState::Stopped);
                }
            }
            inside.ever.insert(request.machine, made);
            Ok(created)
        })
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.call("find a machine", |inside| Ok(inside.vms.get(&machine).cloned().into_iter().collect()))
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        self.call("list machines", |inside| {
            let ours = inside.vms.values().filter(|vm| vm.installation == installation).cloned().collect();
            Ok(Listing { vms: if inside.incomplete { Vec::new() } else { ours }, complete: !inside.incomplete })
        })
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        self.call("delete a machine", |inside| {
            if inside.vms.values().any(|vm| vm.id == *id && vm.hold) {
                return Ok(DeleteProgress::Held);
            }
            inside.vms.retain(|_, vm| vm.id != *id);
            Ok(DeleteProgress::Gone)
        })
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        self.call("hibernate a machine", |inside| {
            let vm = inside.vms.values_mut().find(|vm| vm.id == *id);
            let vm = vm.ok_or_else(|| CloudError::new(ErrorKind::NotFound, "hibernate a machine", "there is none"))?;
            (vm.state, vm.address) = (VmState::Hibernated, None);
            Ok(SleepProgress::Asleep)
        })
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        self.call("wake a machine", |inside| {
            let (port, now) = (30_000 + inside.creates, self.clock.now());
            inside.creates += 1;
            let vm = inside.vms.values_mut().find(|vm| vm.id == *id);
            let vm = vm.ok_or_else(|| CloudError::new(ErrorKind::NotFound, "wake a machine", "there is none"))?;
            if vm.state == VmState::Hibernated {
                // What it slept in is not what runs now.
                vm.created_at = Some(now);
                (vm.state, vm.address) = (VmState::Running, Some(format!("127.0.0.1:{port}")));
            }
            Ok(vm.clone())
        })
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        let doing = "make an image of a machine";
        self.call(doing, |inside| {
            let is_it = |residue: &&Residue| {
                (residue.installation, residue.image) == (request.installation, Some(request.image))
            };
            if let Some(made) = inside.residue.iter().find(is_it) {
                return Ok(CaptureProgress::Ready(Image { reference: made.id.clone(), locations: Vec::new() }));
            }
            let vm = inside.vms.values().find(|vm| vm.id == request.machine);
            let vm = vm.ok_or_else(|| CloudError::new(ErrorKind::NotFound, doing, "there is none"))?;
            if vm.installation != request.installation || !inside.bakes.contains(&vm.machine) {
                return Err(CloudError::new(ErrorKind::Invalid, doing, "it was not made to make an image of it"));
            }
            if vm.state == VmState::Stopped {
                inside.images += 1;
                inside.residue.push(Residue {
                    kind: ResidueKind::Image,
                    id: format!("fake-image-{}", inside.images),
                    installation: request.installation,
                    machine: None,
                    image: Some(request.image),
                    created_at: Some(self.clock.now()),
                    hold: false,
                });
            }
            Ok(CaptureProgress::InProgress)
        })
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        self.call("list what is left over", |inside| {
            let ours = inside.residue.iter().filter(|residue| residue.installation == installation);
            Ok(Residues { items: ours.cloned().collect(), complete: !inside.incomplete })
        })
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        self.call("delete what is left over", |inside| {
            inside.residue.retain(|one| one.id != residue.id);
            Ok(DeleteProgress::Gone)
        })
    }

    async fn console_tail(&self, _: &ProviderId) -> Result<Option<String>> {
        Ok(None)
    }
}

/// What every provider refuses before it asks anybody.
fn check(request: &CreateRequest, capabilities: Capabilities) -> Result<()> {
    let refuse = |kind, message| Err(CloudError::new(kind, "create a machine", message));
    if !capabilities.arches.contains(&request.arch) {
        return refuse(ErrorKind::Unsupported, "it has no such processor");
    }
    if request.offering.as_ref().is_some_and(|offering| offering.arch != request.arch) {
        return refuse(ErrorKind::Invalid, "the type has another processor");
    }
    user_data::render(request, capabilities.user_data_max).map(drop)
}

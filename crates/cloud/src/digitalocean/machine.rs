//! Machines as the provider shows them. A machine is a *line*: the droplet that it is, or a snapshot of the droplet that it
//! was, or both while it falls asleep or wakes. The first droplet of a line is its root, by which the line is
//! known through all sleep; two lines with one machine id are twins, which a lost answer can make.

use std::collections::BTreeMap;

use stagely_domain::id::{InstallationId, MachineId};

use crate::digitalocean::http::Http;
use crate::digitalocean::tags::{self, Bed, Origin, Tags, installation_tag, machine_tag};
use crate::digitalocean::wire::{Droplet, Image};
use crate::rest::parse;
use crate::vm::count;
use crate::{CloudError, DeleteProgress, ErrorKind, Listing, ProviderId, Result, Vm, VmState};

/// Which machine is meant: `<machine>/<root>`, or `<machine>` for every line of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) machine: MachineId,
    root: Option<u64>,
}

impl Meant {
    pub(super) fn read(id: &ProviderId) -> Result<Self> {
        let (machine, root) = id.0.split_once('/').map_or((&*id.0, None), |(machine, root)| (machine, Some(root)));
        let root = root.map(str::parse).transpose().ok();
        match (machine.parse(), root) {
            (Ok(machine), Some(root)) => Ok(Self { machine, root }),
            _ => Err(CloudError::new(ErrorKind::Invalid, "find a machine", "not a machine id of this provider")),
        }
    }

    pub(super) fn id(machine: MachineId, root: u64) -> ProviderId {
        ProviderId(format!("{}/{root}", machine.label()))
    }
}

/// A snapshot of ours.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) image: Image,
    pub(super) origin: Origin,
    /// What its tags say, once it has them all.
    pub(super) bed: Option<Bed>,
}

impl Copy {
    pub(super) fn is_whole(&self) -> bool {
        self.image.status == "available"
    }
}

/// All that has one root.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// The oldest first; one, but for a moment in which two calls woke it at once.
    pub(super) droplets: Vec<(Droplet, Tags)>,
    /// The oldest first.
    pub(super) copies: Vec<Copy>,
}

impl Line {
    pub(super) fn droplet(&self) -> Option<&(Droplet, Tags)> {
        self.droplets.first()
    }

    /// Copies of the droplet that exists now: it is falling asleep.
    pub(super) fn own(&self) -> impl Iterator<Item = &Copy> {
        let droplet = self.droplet().map(|(droplet, _)| droplet.id);
        self.copies.iter().filter(move |copy| Some(copy.origin.droplet) == droplet)
    }

    /// What it sleeps in: the newest copy that is whole and says what it is.
    pub(super) fn bed(&self) -> Option<(&Copy, &Bed)> {
        self.copies.iter().rev().filter(|copy| copy.is_whole()).find_map(|copy| Some((copy, copy.bed.as_ref()?)))
    }

    /// Copies that nobody sleeps in, nor is about to, nor wakes from.
    pub(super) fn spare(&self) -> Vec<&Copy> {
        let kept: Box<dyn Fn(&Copy) -> bool> = match self.droplet() {
            // It runs: whatever was copied is of the past.
            Some((droplet, _)) if droplet.status == "active" => Box::new(|_| false),
            Some((droplet, _)) if droplet.status == "off" => Box::new(|copy| copy.origin.droplet == droplet.id),
            Some(_) => Box::new(|_| true),
            None => {
                let bed = self.bed().map(|(copy, _)| copy.image.id);
                Box::new(move |copy| Some(copy.image.id) == bed)
            }
        };
        self.copies.iter().filter(|copy| !kept(copy)).collect()
    }

    /// The tag by which a person holds any part of it. Which part was meant to be let go, nobody knows.
    pub(super) fn hold(&self) -> Option<String> {
        let droplets = self.droplets.iter().map(|(droplet, _)| &droplet.tags);
        droplets.chain(self.copies.iter().rev().map(|copy| &copy.image.tags)).find_map(|tags| tags::hold(tags))
    }

    fn vms(&self, root: u64) -> Vec<Vm> {
        let hold = self.hold().is_some();
        let Some((first, _)) = self.droplet() else {
            let sleeper = self.bed().map(|(copy, bed)| {
                let id = Meant::id(bed.tags.machine, root);
                Vm { hold, created_at: copy.image.created_at, ..vm(id, &bed.tags, VmState::Hibernated, None) }
            });
            return sleeper.into_iter().collect();
        };
        let shown = |(droplet, tags): &(Droplet, Tags)| {
            let is_first = droplet.id == first.id;
            let state = match &*droplet.status {
                "off" if is_first && self.own().any(|copy| copy.bed.is_some()) => VmState::Hibernated,
                "active" => VmState::Running,
                "new" => VmState::Pending,
                "off" => VmState::Stopped,
                other => VmState::Other(other.to_owned()),
            };
            let ip = droplet.ip().filter(|_| state != VmState::Hibernated);
            let id = Meant::id(tags.machine, if is_first { root } else { droplet.id });
            Vm { hold, created_at: droplet.created_at, ..vm(id, tags, state, ip) }
        };
        self.droplets.iter().map(shown).collect()
    }
}

fn vm(id: ProviderId, tags: &Tags, state: VmState, ip: Option<&str>) -> Vm {
    Vm {
        id,
        machine: tags.machine,
        installation: tags.installation,
        environment: tags.environment,
        state,
        address: ip.map(|ip| format!("{ip}:{}", tags.port)),
        expires_at: tags.expires_at,
        created_at: None,
        hold: false,
    }
}

/// Lines by machine and root.
pub(super) type Lines = BTreeMap<(MachineId, u64), Line>;

/// Sorts droplets and snapshots into lines.
pub(super) fn lines(droplets: Vec<(Droplet, Tags)>, copies: Vec<Copy>) -> Lines {
    let mut lines = Lines::new();
    for (droplet, tags) in droplets {
        let root = tags.root.unwrap_or(droplet.id);
        lines.entry((tags.machine, root)).or_default().droplets.push((droplet, tags));
    }
    for copy in copies {
        lines.entry((copy.origin.machine, copy.origin.root)).or_default().copies.push(copy);
    }
    for line in lines.values_mut() {
        line.droplets.sort_by_key(|(droplet, _)| droplet.id);
        line.copies.sort_by_key(|copy| copy.image.id);
    }
    lines
}

/// The snapshots of the account that bear a name of ours. All are read: one that has no tag yet is found by its name only.
pub(super) async fn copies(http: &Http, doing: &'static str) -> Result<Vec<Copy>> {
    Ok(named(http.list(doing, "images", &[("private", "true")]).await?))
}

/// Those with a name of ours.
pub(super) fn named(images: Vec<Image>) -> Vec<Copy> {
    let copy = |image: Image| {
        let origin = Origin::read(&image.name)?;
        let bed = Bed::read(&origin, &image.tags);
        Some(Copy { image, origin, bed })
    };
    images.into_iter().filter_map(copy).collect()
}

/// The droplets of a machine. One that carries its tag and cannot be read is an error: it is there, and costs.
async fn droplets_of(http: &Http, doing: &'static str, machine: MachineId) -> Result<Vec<(Droplet, Tags)>> {
    let tag = machine_tag(machine);
    let found: Vec<Droplet> = http.list(doing, "droplets", &[("tag_name", &*tag)]).await?;
    let carries = |droplet: &Droplet| tags::machine(&droplet.tags) == Some(machine);
    let read = |droplet: Droplet| tags_of(doing, &droplet, machine).map(|tags| (droplet, tags));
    found.into_iter().filter(carries).map(read).collect()
}

/// The droplets of a machine's name, for who has found nothing by its tag: without that they are there all the same, and
/// cost. Nobody else has a machine's id in a name.
async fn droplets_named(http: &Http, doing: &'static str, machine: MachineId) -> Result<Vec<(Droplet, Tags)>> {
    let name = machine.label();
    let found: Vec<Droplet> = http.list(doing, "droplets", &[("name", &*name)]).await?;
    let read = |droplet: Droplet| tags_of(doing, &droplet, machine).map(|tags| (droplet, tags));
    found.into_iter().filter(|droplet| droplet.name == name).map(read).collect()
}

fn tags_of(doing: &'static str, droplet: &Droplet, machine: MachineId) -> Result<Tags> {
    let damaged = || CloudError::new(ErrorKind::Permission, doing, damage(droplet, Some(machine)));
    Tags::read(&droplet.tags).filter(|tags| tags.machine == machine).ok_or_else(damaged)
}

fn damage(droplet: &Droplet, machine: Option<MachineId>) -> String {
    tags::damage(&format!("droplet {} ({})", droplet.id, droplet.name), &droplet.tags, machine)
}

/// Looks for everything of what is meant. Snapshots first: what wakes in between is then seen twice and not missed.
pub(super) async fn look(http: &Http, doing: &'static str, meant: Meant) -> Result<Lines> {
    let mut copies = copies(http, doing).await?;
    copies.retain(|copy| copy.origin.machine == meant.machine);
    let droplets = droplets_of(http, doing, meant.machine).await?;
    let Some(wanted) = meant.root else { return Ok(lines(droplets, copies)) };
    // A younger twin of one line is meant by its own number.
    let alone: Vec<_> = droplets.iter().filter(|(droplet, _)| droplet.id == wanted).cloned().collect();
    let mut all = lines(droplets, copies);
    all.retain(|(_, root), _| *root == wanted);
    Ok(if all.is_empty() { lines(alone, Vec::new()) } else { all })
}

/// As the orchestrator sees a machine, all its lines.
pub(super) async fn find(http: &Http, machine: MachineId) -> Result<Vec<Vm>> {
    let doing = "find a machine";
    let droplets = droplets_of(http, doing, machine).await?;
    // Only what is off may be asleep: for the rest the droplets say all.
    let all_awake = !droplets.is_empty() && droplets.iter().all(|(droplet, _)| droplet.status != "off");
    let lines = if all_awake {
        lines(droplets, Vec::new())
    } else {
        let mut copies = copies(http, doing).await?;
        copies.retain(|copy| copy.origin.machine == machine);
        let is_nothing = droplets.is_empty() && copies.is_empty();
        let droplets = match is_nothing {
            true => droplets_named(http, doing, machine).await?,
            false => droplets_of(http, doing, machine).await?,
        };
        lines(droplets, copies)
    };
    Ok(lines.iter().flat_map(|((_, root), line)| line.vms(*root)).collect())
}

/// Every machine of an installation, sleeping ones too.
pub(super) async fn list(http: &Http, installation: InstallationId) -> Result<Listing> {
    let doing = "list machines";
    let mut copies = copies(http, doing).await?;
    copies.retain(|copy| copy.origin.installation == installation);
    let (droplets, complete) = droplets_in(http, doing, installation).await?;
    let lines = lines(droplets, copies);
    Ok(Listing { vms: lines.iter().flat_map(|((_, root), line)| line.vms(*root)).collect(), complete })
}

/// How many machines each installation has in the team.
pub(super) async fn installations(http: &Http) -> Result<BTreeMap<InstallationId, usize>> {
    let doing = "list installations";
    let copies = copies(http, doing).await?;
    let droplets: Vec<Droplet> = http.list(doing, "droplets", &[]).await?;
    let awake = |droplet: Droplet| tags::installation(&droplet.tags).map(|whose| (whose, droplet.name));
    let asleep = copies.iter().map(|copy| (copy.origin.installation, copy.origin.machine.label()));
    Ok(count(droplets.into_iter().filter_map(awake).chain(asleep)))
}

/// The droplets of an installation, and whether all of them could be read.
pub(super) async fn droplets_in(
    http: &Http,
    doing: &'static str,
    installation: InstallationId,
) -> Result<(Vec<(Droplet, Tags)>, bool)> {
    let tag = installation_tag(installation);
    let found: Vec<Droplet> = http.list(doing, "droplets", &[("tag_name", &*tag)]).await?;
    let (mut droplets, mut complete) = (Vec::new(), true);
    for droplet in found {
        match Tags::read(&droplet.tags) {
            Some(tags) if tags.installation == installation => droplets.push((droplet, tags)),
            Some(_) => {}
            None => {
                tracing::error!("{}; it is not listed", damage(&droplet, None));
                complete = false;
            }
        }
    }
    Ok((droplets, complete))
}

/// One droplet; `None` when there is none.
pub(super) async fn droplet(http: &Http, doing: &'static str, id: u64) -> Result<Option<Droplet>> {
    match http.get(doing, &format!("droplets/{id}"), &[]).await {
        Ok(mut answer) => parse(doing, answer["droplet"].take()).map(Some),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a droplet. False when that must be asked again.
pub(super) async fn remove_droplet(http: &Http, doing: &'static str, id: u64) -> Result<bool> {
    match http.delete(doing, &format!("droplets/{id}")).await {
        // The answer says that it was understood, and not yet that it is done.
        Ok(_) => Ok(droplet(http, doing, id).await?.is_none()),
        // Something else goes on with it, perhaps the delete of a call before: that is waited out.
        Err(error) if error.kind == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a snapshot; one that is absent is gone.
pub(super) async fn drop_copy(http: &Http, doing: &'static str, id: u64) -> Result<()> {
    http.delete(doing, &format!("snapshots/{id}")).await.map(drop)
}

/// Lists may not show a young droplet yet whose number is known: it is asked for by that. And one that has lost the tag by
/// which it is looked for still has its number and its name; one that woke has another number than the machine's.
async fn remove_unlisted(http: &Http, doing: &'static str, meant: Meant) -> Result<DeleteProgress> {
    let found = match meant.root {
        Some(number) => droplet(http, doing, number).await?,
        None => None,
    };
    if let Some(found) = found {
        // No number is given twice: it is ours, whatever else it has lost.
        tags_of(doing, &found, meant.machine)?;
        if tags::is_held(&found.tags) {
            return Ok(DeleteProgress::Held);
        }
        let is_gone = remove_droplet(http, doing, found.id).await?;
        return Ok(if is_gone { DeleteProgress::Gone } else { DeleteProgress::InProgress });
    }
    let named = droplets_named(http, doing, meant.machine).await?;
    // Of another line nothing is meant.
    let is_meant = |droplet: &Droplet, tags: &Tags| {
        meant.root.is_none_or(|root| root == droplet.id || tags.root.unwrap_or(droplet.id) == root)
    };
    let is_there = named.iter().any(|(droplet, tags)| is_meant(droplet, tags));
    Ok(if is_there { DeleteProgress::InProgress } else { DeleteProgress::Gone })
}

/// Removes everything of what is meant, unless a person holds any part: whoever found it awake has not looked at its
/// snapshots, and it may be held since it was found.
pub(super) async fn remove(http: &Http, meant: Meant) -> Result<DeleteProgress> {
    let doing = "delete a machine";
    let mut gone = true;
    let lines = look(http, doing, meant).await?;
    if lines.is_empty() {
        return remove_unlisted(http, doing, meant).await;
    }
    if lines.values().any(|line| line.hold().is_some()) {
        return Ok(DeleteProgress::Held);
    }
    for line in lines.values() {
        for (droplet, _) in &line.droplets {
            gone &= remove_droplet(http, doing, droplet.id).await?;
        }
    }
    // A droplet that still makes a snapshot would leave it behind: snapshots go last.
    if !gone {
        return Ok(DeleteProgress::InProgress);
    }
    for copy in lines.values().flat_map(|line| &line.copies) {
        match drop_copy(http, doing, copy.image.id).await {
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(DeleteProgress::InProgress),
            outcome => outcome?,
        }
    }
    let is_gone = look(http, doing, meant).await?.is_empty();
    Ok(if is_gone { DeleteProgress::Gone } else { DeleteProgress::InProgress })
}

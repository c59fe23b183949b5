//! One machine as the provider shows it: a server, snapshots of it, or both while it falls asleep or wakes.

use std::collections::{BTreeMap, HashMap};

use stagely_domain::id::{InstallationId, MachineId};

use crate::hetzner::http::{Http, Progress};
use crate::hetzner::labels::{self, Tags};
use crate::hetzner::wire::{Image, Labels, Server};
use crate::vm::count;
use crate::{CloudError, DeleteProgress, ErrorKind, Listing, ProviderId, Result, Vm, VmState};

/// All that carries a machine's id.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Names are unique in a project, so there is at most one.
    pub(super) server: Option<(Server, Tags)>,
    pub(super) snapshots: Vec<(Image, Tags)>,
}

/// Looks for everything of a machine.
pub(super) async fn look(http: &Http, doing: &'static str, id: MachineId) -> Result<Machine> {
    let machine = server_only(http, doing, id).await?;
    Ok(Machine { snapshots: snapshots(http, doing, id).await?, ..machine })
}

/// The snapshots in which it sleeps or slept, the oldest first.
async fn snapshots(http: &Http, doing: &'static str, id: MachineId) -> Result<Vec<(Image, Tags)>> {
    let selector = labels::selector(labels::MACHINE, id);
    let query = [("type", "snapshot"), ("label_selector", &*selector)];
    let mut images: Vec<Image> = http.list(doing, "images", &query).await?;
    images.retain(|image| labels::is_of_machine(&image.labels));
    let mut found = ours(doing, images, |image| (format!("snapshot {}", image.id), &image.labels), id)?;
    found.sort_by_key(|(image, _)| image.id);
    Ok(found)
}

/// The same with half the requests, for who needs no snapshots.
pub(super) async fn server_only(http: &Http, doing: &'static str, id: MachineId) -> Result<Machine> {
    let selector = labels::selector(labels::MACHINE, id);
    let servers: Vec<Server> = http.list(doing, "servers", &[("label_selector", &*selector)]).await?;
    let server = ours(doing, servers, |server| (named(server), &server.labels), id)?.pop();
    Ok(Machine { server, snapshots: Vec::new() })
}

/// The server of its name, for who has found nothing by its label: without that it is there all the same, and costs.
async fn by_name(http: &Http, doing: &'static str, id: MachineId) -> Result<Machine> {
    let name = id.label();
    let servers: Vec<Server> = http.list(doing, "servers", &[("name", &*name)]).await?;
    let Some(server) = servers.into_iter().find(|server| server.name == name) else { return Ok(Machine::default()) };
    let tags = Tags::read(&server.labels).filter(|tags| tags.machine == id).ok_or_else(|| {
        CloudError::new(ErrorKind::Permission, doing, labels::damage(&named(&server), &server.labels, Some(id)))
    })?;
    Ok(Machine { server: Some((server, tags)), snapshots: Vec::new() })
}

/// What is this machine's. What carries its label and cannot be read is an error: it is there, and costs.
fn ours<T>(
    doing: &'static str,
    found: Vec<T>,
    shown: impl Fn(&T) -> (String, &Labels),
    id: MachineId,
) -> Result<Vec<(T, Tags)>> {
    let carries = |item: &T| labels::machine(shown(item).1) == Some(id);
    let read = |item: T| {
        let (what, labels) = shown(&item);
        let damaged = || CloudError::new(ErrorKind::Permission, doing, labels::damage(&what, labels, Some(id)));
        Tags::read(labels).ok_or_else(damaged).map(|tags| (item, tags))
    };
    found.into_iter().filter(carries).map(read).collect()
}

fn named(server: &Server) -> String {
    format!("server {} ({})", server.id, server.name)
}

/// As the orchestrator sees it; `None` when there is nothing of it.
pub(super) async fn find(http: &Http, id: MachineId) -> Result<Option<Vm>> {
    let doing = "find a machine";
    let mut machine = server_only(http, doing, id).await?;
    match &machine.server {
        // Only what is off may be asleep: for the rest the server says all.
        Some((server, _)) if !matches!(&*server.status, "off" | "deleting") => {}
        Some(_) => machine = look(http, doing, id).await?,
        None => {
            machine.snapshots = snapshots(http, doing, id).await?;
            if machine.snapshots.is_empty() {
                machine = by_name(http, doing, id).await?;
            }
        }
    }
    Ok(machine.vm())
}

/// Every machine of an installation, sleeping ones too.
pub(super) async fn list(http: &Http, installation: InstallationId) -> Result<Listing> {
    let doing = "list machines";
    let selector = labels::selector(labels::INSTALLATION, installation);
    // Snapshots first: what wakes in between is then seen twice and not missed, and what falls asleep has its server
    // until its snapshot is whole.
    let query = [("type", "snapshot"), ("label_selector", &*selector)];
    let images: Vec<Image> = http.list(doing, "images", &query).await?;
    let servers: Vec<Server> = http.list(doing, "servers", &[("label_selector", &*selector)]).await?;
    let (mut machines, mut complete) = (HashMap::<MachineId, Machine>::new(), true);
    for server in servers {
        match Tags::read(&server.labels) {
            Some(tags) if tags.installation == installation => {
                let id = tags.machine;
                machines.entry(id).or_default().server = Some((server, tags));
            }
            Some(_) => {}
            None => {
                tracing::error!("{}; it is not listed", labels::damage(&named(&server), &server.labels, None));
                complete = false;
            }
        }
    }
    for image in images {
        match Tags::read(&image.labels) {
            Some(tags) if tags.installation == installation => {
                machines.entry(tags.machine).or_default().snapshots.push((image, tags));
            }
            None if labels::is_of_machine(&image.labels) => {
                let what = format!("snapshot {}", image.id);
                tracing::error!("{}; it is not listed", labels::damage(&what, &image.labels, None));
                complete = false;
            }
            _ => {}
        }
    }
    Ok(Listing { vms: machines.values().filter_map(Machine::vm).collect(), complete })
}

/// How many machines each installation has in the project.
pub(super) async fn installations(http: &Http) -> Result<BTreeMap<InstallationId, usize>> {
    let doing = "list installations";
    let query = [("type", "snapshot"), ("label_selector", labels::MACHINE)];
    let images: Vec<Image> = http.list(doing, "images", &query).await?;
    let servers: Vec<Server> = http.list(doing, "servers", &[("label_selector", labels::INSTALLATION)]).await?;
    let awake = servers.into_iter().map(|server| (labels::installation(&server.labels), Some(server.name)));
    let of_machine =
        |image: Image| (labels::installation(&image.labels), labels::machine(&image.labels).map(MachineId::label));
    let asleep = images.into_iter().map(of_machine);
    Ok(count(awake.chain(asleep).filter_map(|(installation, name)| installation.zip(name))))
}

impl Machine {
    /// Snapshots that were taken of the server that exists now: it is falling asleep.
    pub(super) fn own(&self) -> impl Iterator<Item = &(Image, Tags)> {
        let server = self.server.as_ref().map(|(server, _)| server.id);
        self.snapshots.iter().filter(move |(_, tags)| tags.server.is_some() && tags.server == server)
    }

    /// Snapshots of a server before this one: it has woken, and they are of the past.
    pub(super) fn past(&self) -> impl Iterator<Item = &(Image, Tags)> {
        let server = self.server.as_ref().map(|(server, _)| server.id);
        self.snapshots.iter().filter(move |(_, tags)| server.is_some() && tags.server != server)
    }

    /// What it sleeps in: the newest whole snapshot.
    pub(super) fn bed(&self) -> Option<&(Image, Tags)> {
        self.snapshots.iter().rev().find(|(image, _)| image.status == "available").or(self.snapshots.last())
    }

    /// What a person wrote who holds any part of it. Which part was meant to be let go, nobody knows.
    pub(super) fn hold(&self) -> Option<String> {
        let snapshots = self.snapshots.iter().rev().map(|(_, tags)| tags);
        self.server.iter().map(|(_, tags)| tags).chain(snapshots).find_map(|tags| tags.hold.clone())
    }

    pub(super) fn vm(&self) -> Option<Vm> {
        let hold = self.hold().is_some();
        let Some((server, tags)) = &self.server else {
            let (image, tags) = self.bed()?;
            return Some(Vm { hold, ..vm(tags, VmState::Hibernated, None, image.created) });
        };
        let state = match &*server.status {
            "off" if self.own().next().is_some() => VmState::Hibernated,
            "deleting" if self.own().any(|(image, _)| image.status == "available") => VmState::Hibernated,
            "running" | "stopping" => VmState::Running,
            "initializing" | "starting" => VmState::Pending,
            "off" => VmState::Stopped,
            "deleting" => VmState::Deleting,
            other => VmState::Other(other.to_owned()),
        };
        let address = server.ip().filter(|_| state != VmState::Hibernated);
        Some(Vm { hold, ..vm(tags, state, address, server.created) })
    }
}

fn vm(tags: &Tags, state: VmState, ip: Option<&str>, created: Option<chrono::DateTime<chrono::Utc>>) -> Vm {
    Vm {
        id: ProviderId(tags.machine.label()),
        machine: tags.machine,
        installation: tags.installation,
        environment: tags.environment,
        state,
        address: ip.map(|ip| format!("{ip}:{}", tags.port)),
        expires_at: tags.expires_at,
        created_at: created,
        hold: false,
    }
}

/// Removes a snapshot; one that is absent is gone.
pub(super) async fn drop_snapshot(http: &Http, doing: &'static str, id: u64) -> Result<()> {
    http.delete(doing, &format!("images/{id}")).await.map(drop)
}

/// Removes everything of it, unless a person holds any part: whoever found it awake has not looked at its snapshots, and
/// it may be held since it was found.
pub(super) async fn remove(http: &Http, id: MachineId) -> Result<DeleteProgress> {
    let doing = "delete a machine";
    let mut machine = look(http, doing, id).await?;
    if machine.server.is_none() && machine.snapshots.is_empty() {
        machine = by_name(http, doing, id).await?;
        if machine.server.is_none() {
            return Ok(DeleteProgress::Gone);
        }
    }
    if machine.hold().is_some() {
        return Ok(DeleteProgress::Held);
    }
    if let Some((server, _)) = &machine.server
        && !remove_server(http, doing, server).await?
    {
        return Ok(DeleteProgress::InProgress);
    }
    for (image, _) in &machine.snapshots {
        match drop_snapshot(http, doing, image.id).await {
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(DeleteProgress::InProgress),
            outcome => outcome?,
        }
    }
    let left = look(http, doing, id).await?;
    let is_gone = left.server.is_none() && left.snapshots.is_empty();
    Ok(if is_gone { DeleteProgress::Gone } else { DeleteProgress::InProgress })
}

/// Removes a server and follows that for a while. False when it must be asked again.
pub(super) async fn remove_server(http: &Http, doing: &'static str, server: &Server) -> Result<bool> {
    match http.delete(doing, &format!("servers/{}", server.id)).await {
        Ok(None) => Ok(true),
        Ok(Some(answer)) => match http.follow(doing, &answer).await? {
            Progress::Failed(error) => Err(error),
            progress => Ok(matches!(progress, Progress::Done)),
        },
        // Something else goes on with it, perhaps the delete of a call before: that is waited out.
        Err(error) if error.kind == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the server of a machine, and leaves its snapshots. True when there is none any more.
pub(super) async fn remove_server_of(http: &Http, id: MachineId) -> Result<bool> {
    let doing = "remove a server that was not placed";
    match server_only(http, doing, id).await?.server {
        Some((server, _)) => remove_server(http, doing, &server).await,
        None => Ok(true),
    }
}

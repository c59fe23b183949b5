//! Sleep: a server that is off costs as much as one that runs, so a sleeping machine is a snapshot and no server.
//!
//! Falling asleep: shut down, snapshot (which names its server), delete the server. Waking: a new server from the snapshot,
//! delete the snapshot. Both look first and do what is missing, so that they may end anywhere and be called again:
//! the server goes only when its snapshot is whole, and a snapshot only when its server runs. What a person holds of either
//! is held in what stays.

use std::time::Duration;

use hcloud::models::CreateImageFromServerRequest;
use hcloud::models::create_image_from_server_request::Type;
use serde_json::json;
use stagely_domain::id::MachineId;
use tokio::time::{Instant, sleep};

use crate::hetzner::create::Order;
use crate::hetzner::labels::{self, Tags};
use crate::hetzner::machine::{self, Machine};
use crate::hetzner::wire::{Image, Labels, Server};
use crate::hetzner::{Hetzner, Progress};
use crate::user_data::NO_METADATA;
use crate::{CloudError, ErrorKind, Result, SleepProgress, Vm};

const HIBERNATE: &str = "hibernate a machine";
const WAKE: &str = "wake a machine";
/// How many times as long as other things a machine may take to shut down: its services have work to save.
const SHUTDOWN: u32 = 3;

impl Hetzner {
    /// One or more steps towards sleep.
    pub(super) async fn fall_asleep(&self, id: MachineId) -> Result<SleepProgress> {
        let machine = machine::look(&self.http, HIBERNATE, id).await?;
        let Some((server, tags)) = &machine.server else {
            return match machine.bed() {
                Some((image, _)) if image.status == "available" => Ok(SleepProgress::Asleep),
                Some(_) => Ok(SleepProgress::InProgress),
                None => Err(CloudError::new(ErrorKind::NotFound, HIBERNATE, "there is none")),
            };
        };
        let tags = Tags { hold: machine.hold(), ..tags.clone() };
        let step = match &*server.status {
            "off" => self.leave(&machine, server, &tags).await,
            "running" => self.turn_off(&machine, server, &tags).await,
            // It starts, stops or goes: nothing to do but wait.
            _ => Ok(SleepProgress::InProgress),
        };
        match step {
            Err(error) if error.kind == ErrorKind::Conflict => Ok(SleepProgress::InProgress),
            step => step,
        }
    }

    /// From running to off, and on.
    async fn turn_off(&self, machine: &Machine, server: &Server, tags: &Tags) -> Result<SleepProgress> {
        // It has run since they were taken: they are of the past.
        self.hold_server(HIBERNATE, machine, server).await?;
        for (image, _) in &machine.snapshots {
            machine::drop_snapshot(&self.http, HIBERNATE, image.id).await?;
        }
        self.http.act(HIBERNATE, &format!("servers/{}/actions/shutdown", server.id)).await?;
        let limit = self.http.timing().action * SHUTDOWN;
        if !self.reaches(HIBERNATE, server.id, "off", limit).await? {
            // It does not listen; what is not on its disk by now is lost, as at any power cut.
            let answer = self.http.act(HIBERNATE, &format!("servers/{}/actions/poweroff", server.id)).await?;
            if !matches!(self.http.follow(HIBERNATE, &answer).await?, Progress::Done) {
                return Ok(SleepProgress::InProgress);
            }
        }
        self.leave(&Machine { server: Some((server.clone(), tags.clone())), snapshots: Vec::new() }, server, tags).await
    }

    /// From off to a snapshot and no server.
    async fn leave(&self, machine: &Machine, server: &Server, tags: &Tags) -> Result<SleepProgress> {
        let whole = |image: &&(Image, Tags)| image.0.status == "available";
        let Some((kept, _)) = machine.own().filter(whole).last() else {
            if machine.own().any(|(image, _)| image.status == "creating") {
                return Ok(SleepProgress::InProgress);
            }
            return self.snapshot(server, tags).await;
        };
        // A person may have held it since the snapshot was begun.
        self.hold(HIBERNATE, &format!("images/{}", kept.id), &kept.labels, tags.hold.as_deref()).await?;
        if !machine::remove_server(&self.http, HIBERNATE, server).await? {
            return Ok(SleepProgress::InProgress);
        }
        // Of two that a lost answer made, one is enough; so are those of the past.
        for (image, _) in machine.snapshots.iter().filter(|(image, _)| image.id != kept.id) {
            machine::drop_snapshot(&self.http, HIBERNATE, image.id).await?;
        }
        Ok(SleepProgress::Asleep)
    }

    async fn snapshot(&self, server: &Server, tags: &Tags) -> Result<SleepProgress> {
        let body = CreateImageFromServerRequest {
            description: Some(format!("sleep of {}", server.name)),
            labels: Some(Tags { server: Some(server.id), ..tags.clone() }.labels()),
            r#type: Some(Type::Snapshot),
        };
        let answer = self.http.post(HIBERNATE, &format!("servers/{}/actions/create_image", server.id), &body).await?;
        match self.http.follow(HIBERNATE, &answer).await? {
            Progress::Failed(error) => Err(error),
            // The look of the next call decides, not this answer.
            Progress::Done | Progress::Going => Ok(SleepProgress::InProgress),
        }
    }

    /// Brings it back, or tells that it is not yet there.
    pub(super) async fn rise(&self, id: MachineId) -> Result<Vm> {
        let machine = machine::look(&self.http, WAKE, id).await?;
        match (&machine.server, machine.bed()) {
            (Some((server, _)), _) => self.stand_up(&machine, server).await?,
            (None, Some((image, _))) if image.status != "available" => {
                return Err(CloudError::new(ErrorKind::Conflict, WAKE, "its snapshot is not whole yet"));
            }
            (None, Some((image, tags))) => self.leave_bed(&machine, image, tags).await?,
            (None, None) => return Err(CloudError::new(ErrorKind::NotFound, WAKE, "there is none")),
        }
        let awake = machine::find(&self.http, id).await?;
        awake.ok_or_else(|| CloudError::new(ErrorKind::NotFound, WAKE, "it went away while it woke"))
    }

    /// A server is there: it fell asleep only half-way, or it has been made from its snapshot.
    async fn stand_up(&self, machine: &Machine, server: &Server) -> Result<()> {
        self.hold_server(WAKE, machine, server).await?;
        if server.status == "off" {
            // What was taken of it is of the past as soon as it runs again.
            for (image, _) in machine.own() {
                machine::drop_snapshot(&self.http, WAKE, image.id).await?;
            }
            self.http.act(WAKE, &format!("servers/{}/actions/poweron", server.id)).await?;
        }
        self.runs(server.id).await?;
        for (image, _) in &machine.snapshots {
            machine::drop_snapshot(&self.http, WAKE, image.id).await?;
        }
        Ok(())
    }

    /// A new server from the snapshot, in the place that it had.
    async fn leave_bed(&self, machine: &Machine, image: &Image, tags: &Tags) -> Result<()> {
        let Some((server_type, location)) = &tags.place else {
            return Err(CloudError::new(ErrorKind::Invalid, WAKE, "its snapshot does not say where it was"));
        };
        let order = Order {
            tags: &Tags { server: None, hold: machine.hold(), ..tags.clone() },
            server_type,
            location,
            image: image.id.to_string(),
            // All that it knew is on its disk; only what is said at each boot must be said again.
            user_data: format!("#cloud-config\n{}\n", json!({ "bootcmd": [NO_METADATA] })),
        };
        let placed = self.place(&order).await?;
        self.runs(placed.server.id).await?;
        self.hold_server(WAKE, machine, &placed.server).await?;
        for (image, _) in &machine.snapshots {
            machine::drop_snapshot(&self.http, WAKE, image.id).await?;
        }
        Ok(())
    }

    /// Before snapshots of it go: what is held in one of them is held in the server from now on.
    async fn hold_server(&self, doing: &'static str, machine: &Machine, server: &Server) -> Result<()> {
        self.hold(doing, &format!("servers/{}", server.id), &server.labels, machine.hold().as_deref()).await
    }

    /// Holds this in the name of a person who holds another part of the machine. One who holds this already is not overruled.
    async fn hold(&self, doing: &'static str, path: &str, labels: &Labels, hold: Option<&str>) -> Result<()> {
        let Some(hold) = hold.filter(|_| !labels::is_held(labels)) else { return Ok(()) };
        self.http.put(doing, path, &json!({ "labels": labels::held(labels, hold) })).await.map(drop)
    }

    async fn runs(&self, server: u64) -> Result<()> {
        let limit = self.http.timing().action;
        if self.reaches(WAKE, server, "running", limit).await? {
            return Ok(());
        }
        Err(CloudError::new(ErrorKind::Conflict, WAKE, "it is being made from its snapshot; ask again"))
    }

    /// Waits for a while until a server has this status.
    async fn reaches(&self, doing: &'static str, server: u64, status: &str, limit: Duration) -> Result<bool> {
        let timing = self.http.timing();
        let (until, mut pause) = (Instant::now() + limit, timing.poll);
        loop {
            let answer = self.http.get(doing, &format!("servers/{server}"), &[]).await?;
            if answer.pointer("/server/status").and_then(|found| found.as_str()) == Some(status) {
                return Ok(true);
            }
            if Instant::now() + pause > until {
                return Ok(false);
            }
            sleep(pause).await;
            pause = (pause * 2).min(timing.poll * 5);
        }
    }
}

//! Sleep: a droplet that is off costs as much as one that runs, so a sleeping machine is a snapshot and no droplet.
//!
//! Falling asleep: shut down, snapshot (named for its droplet), tag the snapshot, delete the droplet. Waking: a new droplet
//! from the snapshot, in the region where the snapshot is, then delete the snapshot. Both look first and do what is
//! missing, so that they may end anywhere and be called again: the droplet goes only when its snapshot is whole
//! and says what it is, and a snapshot only when a droplet runs. What a person holds of either is held in what stays.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::digitalocean::DigitalOcean;
use crate::digitalocean::create::Order;
use crate::digitalocean::http::Progress;
use crate::digitalocean::machine::{self, Copy, Line, Meant};
use crate::digitalocean::tags::{self, Bed, Origin, Tags, installation_tag, machine_tag};
use crate::digitalocean::wire::{Action, Droplet};
use crate::user_data::NO_METADATA;
use crate::{CloudError, ErrorKind, Result, SleepProgress, Vm};

const HIBERNATE: &str = "hibernate a machine";
const WAKE: &str = "wake a machine";
/// How many times as long as other things a machine may take to shut down: its services have work to save.
const SHUTDOWN: u32 = 3;
/// After any of these a droplet runs, and what was copied of it before is of the past.
const STARTS: [&str; 5] = ["power_on", "power_cycle", "reboot", "rebuild", "restore"];

impl DigitalOcean {
    /// One or more steps towards sleep.
    pub(super) async fn fall_asleep(&self, meant: Meant) -> Result<SleepProgress> {
        let lines = machine::look(&self.http, HIBERNATE, meant).await?;
        let Some(((_, root), line)) = lines.iter().next() else { return Err(none(HIBERNATE)) };
        let Some((droplet, tags)) = line.droplet() else { return self.lie(line).await };
        let tags = Tags { hold: line.hold(), ..tags.clone() };
        let step = match &*droplet.status {
            _ if droplet.locked => Ok(SleepProgress::InProgress),
            "off" => self.leave(*root, line, droplet, &tags).await,
            "active" => self.turn_off(*root, line, droplet, &tags).await,
            // It is being made: nothing to do but wait.
            _ => Ok(SleepProgress::InProgress),
        };
        match step {
            Err(error) if error.kind == ErrorKind::Conflict => Ok(SleepProgress::InProgress),
            step => step,
        }
    }

    /// There is no droplet any more: it sleeps, in one snapshot.
    async fn lie(&self, line: &Line) -> Result<SleepProgress> {
        let Some((bed, _)) = line.bed() else {
            let pending = line.copies.iter().any(|copy| !copy.is_whole());
            return if pending { Ok(SleepProgress::InProgress) } else { Err(none(HIBERNATE)) };
        };
        self.hold(HIBERNATE, "image", bed.image.id, &bed.image.tags, line.hold()).await?;
        for copy in line.spare() {
            machine::drop_copy(&self.http, HIBERNATE, copy.image.id).await?;
        }
        Ok(SleepProgress::Asleep)
    }

    /// From running to off, and on.
    async fn turn_off(&self, root: u64, line: &Line, droplet: &Droplet, tags: &Tags) -> Result<SleepProgress> {
        // It has run since they were taken: they are of the past.
        self.drop_past(HIBERNATE, droplet, &line.copies).await?;
        let last = self.actions(HIBERNATE, droplet.id).await?.into_iter().max_by_key(|action| action.id);
        // A shutdown that ended and did not turn it off was not heard, by a call before this one.
        let unheard = last.is_some_and(|action| action.kind == "shutdown" && action.status != "in-progress");
        if !unheard {
            self.act(HIBERNATE, droplet.id, "shutdown").await?;
        }
        let limit = self.http.timing().action * SHUTDOWN;
        if unheard || !self.reaches(HIBERNATE, droplet.id, "off", limit).await? {
            // What is not on its disk by now is lost, as at any power cut.
            let action = self.act(HIBERNATE, droplet.id, "power_off").await?;
            self.http.follow(HIBERNATE, action, self.http.timing().action).await?;
            return Ok(SleepProgress::InProgress);
        }
        self.leave(root, &Line { droplets: line.droplets.clone(), copies: Vec::new() }, droplet, tags).await
    }

    /// From off to a snapshot and no droplet.
    async fn leave(&self, root: u64, line: &Line, droplet: &Droplet, tags: &Tags) -> Result<SleepProgress> {
        let Some(kept) = line.own().filter(|copy| copy.is_whole()).last() else {
            if line.own().next().is_some() {
                return Ok(SleepProgress::InProgress);
            }
            return self.snapshot(root, droplet, tags).await;
        };
        let actions = self.actions(HIBERNATE, droplet.id).await?;
        let last = |wanted: &dyn Fn(&str) -> bool| {
            actions.iter().filter(|action| wanted(&action.kind)).map(|action| action.id).max()
        };
        if last(&|kind| STARTS.contains(&kind)) > last(&|kind| kind == "snapshot") {
            // It has run since: not this disk is to be kept, but the droplet's.
            self.drop_past(HIBERNATE, droplet, &line.copies).await?;
            return self.snapshot(root, droplet, tags).await;
        }
        if kept.bed.is_none() {
            let bed = Bed {
                tags: Tags { root: Some(root), ..tags.clone() },
                size: droplet.size_slug.clone(),
                region: droplet.region.slug.clone(),
            };
            self.tell(kept, &bed).await?;
        } else {
            // A person may have held it since.
            self.hold(HIBERNATE, "image", kept.image.id, &kept.image.tags, tags.hold.clone()).await?;
        }
        if !machine::remove_droplet(&self.http, HIBERNATE, droplet.id).await? {
            return Ok(SleepProgress::InProgress);
        }
        // Of two that a lost answer made, one is enough; so are those of the past.
        for copy in line.copies.iter().filter(|copy| copy.image.id != kept.image.id) {
            machine::drop_copy(&self.http, HIBERNATE, copy.image.id).await?;
        }
        Ok(SleepProgress::Asleep)
    }

    async fn snapshot(&self, root: u64, droplet: &Droplet, tags: &Tags) -> Result<SleepProgress> {
        let (installation, machine) = (tags.installation, tags.machine);
        let name = Origin { installation, machine, root, droplet: droplet.id }.name();
        let path = format!("droplets/{}/actions", droplet.id);
        let answer = self.http.post(HIBERNATE, &path, &json!({"type": "snapshot", "name": name})).await?;
        let action = answer.pointer("/action/id").and_then(serde_json::Value::as_u64);
        match self.http.follow(HIBERNATE, action, self.http.timing().action).await? {
            Progress::Failed => Err(CloudError::new(ErrorKind::Unavailable, HIBERNATE, "the snapshot failed")),
            // The look of the next call decides, not this answer.
            Progress::Done | Progress::Going => Ok(SleepProgress::InProgress),
        }
    }

    /// Gives a snapshot its tags. The one that says all is the last: with it the snapshot needs no droplet.
    async fn tell(&self, copy: &Copy, bed: &Bed) -> Result<()> {
        if bed.size.is_empty() || bed.region.is_empty() {
            return Err(CloudError::new(
                ErrorKind::Protocol,
                HIBERNATE,
                "its droplet does not say what and where it is",
            ));
        }
        let mut words = vec![installation_tag(copy.origin.installation), machine_tag(copy.origin.machine)];
        words.extend(bed.tags.hold.clone());
        words.push(bed.tag(&copy.origin));
        for tag in words.iter().filter(|tag| !copy.image.tags.contains(tag)) {
            self.give(HIBERNATE, tag, "image", copy.image.id).await?;
        }
        Ok(())
    }

    /// Holds this by the tag of a person who holds another part of the machine. One who holds this already is not overruled.
    async fn hold(
        &self,
        doing: &'static str,
        kind: &str,
        id: u64,
        tags: &[String],
        hold: Option<String>,
    ) -> Result<()> {
        match hold.filter(|_| !tags::is_held(tags)) {
            Some(tag) => self.give(doing, &tag, kind, id).await,
            None => Ok(()),
        }
    }

    /// Gives a tag to a droplet or an image.
    async fn give(&self, doing: &'static str, tag: &str, kind: &str, id: u64) -> Result<()> {
        let resource = json!({"resource_id": id.to_string(), "resource_type": kind});
        let (path, body) = (format!("tags/{tag}/resources"), json!({"resources": [resource]}));
        let outcome = match self.http.post(doing, &path, &body).await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.http.ensure_tag(doing, tag).await?;
                self.http.post(doing, &path, &body).await
            }
            outcome => outcome,
        };
        match outcome {
            // It is this part that is not found, and not the machine.
            Err(error) if error.kind == ErrorKind::NotFound => Err(CloudError { kind: ErrorKind::Conflict, ..error }),
            outcome => outcome.map(drop),
        }
    }

    /// Brings it back, or tells that it is not yet there.
    pub(super) async fn rise(&self, meant: Meant) -> Result<Vm> {
        let lines = machine::look(&self.http, WAKE, meant).await?;
        let Some(((_, root), line)) = lines.iter().next() else { return Err(none(WAKE)) };
        match (line.droplet(), line.bed()) {
            (Some((droplet, _)), _) => self.stand_up(*root, line, droplet).await?,
            (None, Some((copy, bed))) => self.leave_bed(line, copy, bed).await?,
            (None, None) if line.copies.iter().any(|copy| !copy.is_whole()) => {
                return Err(CloudError::new(ErrorKind::Conflict, WAKE, "its snapshot is not whole yet"));
            }
            (None, None) => return Err(none(WAKE)),
        }
        let awake = machine::find(&self.http, meant.machine).await?;
        let id = Meant::id(meant.machine, *root);
        let gone = || CloudError::new(ErrorKind::NotFound, WAKE, "it went away while it woke");
        awake.into_iter().find(|vm| vm.id == id).ok_or_else(gone)
    }

    /// A droplet is there: it fell asleep only half-way, or it has been made from its snapshot.
    async fn stand_up(&self, root: u64, line: &Line, droplet: &Droplet) -> Result<()> {
        if droplet.status != "off" {
            self.runs(droplet.id).await?;
            return self.drop_past(WAKE, droplet, &line.copies).await;
        }
        // Its snapshots stay until it runs: perhaps it is off because it is being deleted.
        match self.act(WAKE, droplet.id, "power_on").await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(CloudError { kind: ErrorKind::Conflict, ..error });
            }
            outcome => outcome?,
        };
        self.runs(droplet.id).await?;
        // One may have become whole only since the first look.
        let mut copies = machine::copies(&self.http, WAKE).await?;
        copies.retain(|copy| copy.origin.root == root && copy.origin.droplet == droplet.id);
        copies.extend(line.copies.iter().filter(|copy| copy.origin.droplet != droplet.id).cloned());
        self.drop_past(WAKE, droplet, &copies).await
    }

    /// A new droplet from the snapshot, in the place that it had.
    async fn leave_bed(&self, line: &Line, copy: &Copy, bed: &Bed) -> Result<()> {
        let order = Order {
            tags: &Tags { hold: line.hold(), ..bed.tags.clone() },
            size: &bed.size,
            region: &bed.region,
            image: copy.image.id.into(),
            // All that it knew is on its disk; only what is said at each boot must be said again.
            user_data: format!("#cloud-config\n{}\n", json!({ "bootcmd": [NO_METADATA] })),
        };
        let placed = self.place(&order).await?;
        self.runs(placed.droplet.id).await?;
        self.drop_past(WAKE, &placed.droplet, &line.copies).await
    }

    /// Drops what is of the past of a droplet. What is held in it is held in the droplet from now on.
    async fn drop_past(&self, doing: &'static str, droplet: &Droplet, copies: &[Copy]) -> Result<()> {
        let hold = copies.iter().rev().find_map(|copy| tags::hold(&copy.image.tags));
        self.hold(doing, "droplet", droplet.id, &droplet.tags, hold).await?;
        for copy in copies {
            machine::drop_copy(&self.http, doing, copy.image.id).await?;
        }
        Ok(())
    }

    /// What was done with a droplet.
    pub(super) async fn actions(&self, doing: &'static str, droplet: u64) -> Result<Vec<Action>> {
        self.http.list_under(doing, &format!("droplets/{droplet}/actions"), "actions", &[]).await
    }

    /// Tells a droplet to do something that takes no words, and answers with the action that began.
    async fn act(&self, doing: &'static str, droplet: u64, what: &str) -> Result<Option<u64>> {
        let answer = self.http.post(doing, &format!("droplets/{droplet}/actions"), &json!({"type": what})).await?;
        Ok(answer.pointer("/action/id").and_then(serde_json::Value::as_u64))
    }

    async fn runs(&self, droplet: u64) -> Result<()> {
        let limit = self.http.timing().action;
        if self.reaches(WAKE, droplet, "active", limit).await? {
            return Ok(());
        }
        Err(CloudError::new(ErrorKind::Conflict, WAKE, "it is being made from its snapshot; ask again"))
    }

    /// Waits for a while until a droplet has this status, and nothing goes on with it.
    async fn reaches(&self, doing: &'static str, droplet: u64, status: &str, limit: Duration) -> Result<bool> {
        let timing = self.http.timing();
        let (until, mut pause) = (Instant::now() + limit, timing.poll);
        loop {
            let seen = machine::droplet(&self.http, doing, droplet).await?;
            if seen.is_some_and(|seen| seen.status == status && !seen.locked) {
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

fn none(doing: &'static str) -> CloudError {
    CloudError::new(ErrorKind::NotFound, doing, "there is none")
}

//! What there is: teams, their resources, and the actions that go on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::droplets::Droplet;
use super::images::image_json;
use super::scopes::Access;
use super::{OTHER_TOKEN, READ_ONLY, TOKEN, catalog};
use crate::double::{Bill, now};

/// Requests per hour and token; they do not come back by themselves.
pub const LIMIT: u32 = 5000;

/// A refusal.
pub struct Refused {
    pub status: u16,
    pub id: &'static str,
    pub message: String,
    pub attributes: Value,
}

pub type Reply = Result<(u16, Value), Refused>;

pub fn refuse<T>(status: u16, id: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { status, id, message: message.into(), attributes: Value::Null })
}

pub fn unprocessable<T>(message: impl Into<String>) -> Result<T, Refused> {
    refuse(422, "unprocessable_entity", message)
}

pub fn not_found<T>() -> Result<T, Refused> {
    refuse(404, "not_found", "The resource you were accessing could not be found.")
}

pub struct World {
    /// Its teams.
    pub accounts: Vec<Team>,
    /// Of which team, and what it may do.
    pub tokens: HashMap<&'static str, (usize, Access)>,
    pub knobs: Knobs,
    /// The next requests are refused so.
    pub refuse_next: VecDeque<(u16, &'static str)>,
    /// Method and address of all that was asked with a good token.
    pub requests: Vec<String>,
    /// What the addresses of next pages begin with.
    pub links_host: String,
}

/// What becomes of a droplet that was accepted and is not placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// Its action ends with an error, and it is gone.
    Fails,
    /// Its action ends with an error, and it stays as it is.
    FailsAndStays,
    /// It is gone, and nobody says why.
    Vanishes,
}

/// How it behaves.
pub struct Knobs {
    next_id: u64,
    /// Looks that an action takes.
    pub looks: u32,
    /// Looks for which a new droplet is not seen.
    pub unseen: u32,
    /// Whether no list shows any droplet.
    pub unlisted: bool,
    /// Sizes and regions without room.
    pub full: HashSet<(&'static str, &'static str)>,
    /// The next droplets are accepted, and then not placed.
    pub misplace: VecDeque<Misplaced>,
    /// The most droplets of a team.
    pub machine_limit: usize,
    /// Whether machines do not hear that they shall shut down.
    pub deaf: bool,
    /// Whether snapshots are shown before they are whole.
    pub early: bool,
    /// Looks for which the next snapshot is not shown although it is whole.
    pub late_images: u32,
    /// Whether machines that bake are done as soon as they run.
    pub bakes_at_once: bool,
    /// The next snapshots fail.
    pub fail_snapshots: u32,
    /// Whether answers lack fields, and have new ones.
    pub strange: bool,
    /// Whether the account is locked.
    pub locked: bool,
}

impl Knobs {
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            accounts: vec![Team::new(), Team::new()],
            tokens: HashMap::from([
                (TOKEN, (0, Access::Full)),
                (READ_ONLY, (0, Access::Read)),
                (OTHER_TOKEN, (1, Access::Full)),
            ]),
            knobs: Knobs {
                next_id: 1000,
                looks: 2,
                unseen: 0,
                unlisted: false,
                full: HashSet::new(),
                misplace: VecDeque::new(),
                machine_limit: 2000,
                deaf: false,
                early: false,
                late_images: 0,
                bakes_at_once: false,
                fail_snapshots: 0,
                strange: false,
                locked: false,
            },
            refuse_next: VecDeque::new(),
            requests: Vec::new(),
            links_host: "https://api.example".to_owned(),
        }
    }
}

pub struct Team {
    /// Requests left.
    pub left: u32,
    pub machines: BTreeMap<u64, Droplet>,
    pub images: BTreeMap<u64, Image>,
    pub tags: BTreeSet<String>,
    /// Volumes and their snapshots, addresses, keys and firewalls, as they are shown.
    pub things: BTreeMap<(&'static str, String), Value>,
    pub actions: BTreeMap<u64, Action>,
}

pub struct Image {
    pub shown: Value,
    /// Of which droplet it was taken.
    pub droplet: u64,
    /// What is on it.
    pub disk: String,
    /// Whether it was taken of a droplet that was off.
    pub clean: bool,
    /// Whether it is shown.
    pub seen: bool,
    /// Looks for which it is not shown after all.
    pub late: u32,
}

#[derive(Debug, Clone)]
pub struct Action {
    pub kind: &'static str,
    pub droplet: u64,
    pub region: String,
    /// Looks until it ends.
    pub left: u32,
    pub failed: bool,
    pub image: Option<u64>,
}

impl Team {
    fn new() -> Self {
        let shown = image_json(67, "13 x64", "base", Some("debian-13-x64"), &catalog::REGIONS);
        let debian = Image { shown, droplet: 0, disk: String::new(), clean: true, seen: true, late: 0 };
        Self {
            left: LIMIT,
            machines: BTreeMap::new(),
            images: BTreeMap::from([(67, debian)]),
            tags: BTreeSet::new(),
            things: BTreeMap::new(),
            actions: BTreeMap::new(),
        }
    }

    pub fn account(knobs: &Knobs) -> Value {
        let status = if knobs.locked { "locked" } else { "active" };
        json!({"account": {
            "droplet_limit": knobs.machine_limit, "floating_ip_limit": 3, "email": "team@example.com", "name": "Team",
            "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef", "email_verified": true, "status": status,
            "status_message": "",
        }})
    }

    pub fn bill(&self) -> Bill {
        let count = |kind| self.things.keys().filter(|(found, _)| *found == kind).count();
        let snapshots = self.images.values().filter(|image| image.shown["type"] == "snapshot").count();
        Bill {
            machines: self.machines.len(),
            snapshots: snapshots + count("volume_snapshots"),
            addresses: count("reserved_ips"),
            volumes: count("volumes"),
        }
    }

    pub fn action(&self, id: u64) -> Result<Value, Refused> {
        let Some(action) = self.actions.get(&id) else { return not_found() };
        let status = match (action.left, action.failed) {
            (0, true) => "errored",
            (0, false) => "completed",
            _ => "in-progress",
        };
        let kind = if action.kind == "create_and_stay" { "create" } else { action.kind };
        Ok(json!({
            "id": id, "status": status, "type": kind, "started_at": now(),
            "completed_at": (action.left == 0).then(now), "resource_id": action.droplet, "resource_type": "droplet",
            "region": catalog::region(&action.region), "region_slug": action.region,
        }))
    }

    pub fn all_actions(&self) -> Result<Vec<Value>, Refused> {
        self.actions.keys().rev().map(|id| self.action(*id)).collect()
    }

    /// The newest first.
    pub fn actions_of(&self, droplet: u64) -> Result<Vec<Value>, Refused> {
        let _ = self.droplet(droplet)?;
        let ids = self.actions.iter().filter(|(_, action)| action.droplet == droplet).map(|(id, _)| *id);
        ids.rev().map(|id| self.action(id)).collect()
    }

    /// Begins an action and shows it.
    pub fn begin(&mut self, knobs: &mut Knobs, action: Action) -> Value {
        let id = knobs.id();
        self.actions.insert(id, action);
        self.action(id).unwrap_or_default()
    }

    /// One look has passed.
    pub fn tick(&mut self, knobs: &Knobs) {
        for droplet in self.machines.values_mut() {
            droplet.unseen = droplet.unseen.saturating_sub(1);
        }
        for image in self.images.values_mut().filter(|image| image.seen) {
            image.late = image.late.saturating_sub(1);
        }
        let going: Vec<u64> = self.actions.iter().filter(|(_, action)| action.left > 0).map(|(id, _)| *id).collect();
        for id in going {
            let Some(action) = self.actions.get_mut(&id) else { continue };
            action.left -= 1;
            if action.left == 0 {
                let action = action.clone();
                self.end(knobs, &action);
            }
        }
    }

    pub fn things(&self, kind: &str) -> Vec<Value> {
        self.things.iter().filter(|((found, _), _)| *found == kind).map(|(_, shown)| shown.clone()).collect()
    }

    pub fn thing(&self, kind: &str, id: &str) -> Result<Value, Refused> {
        let found = self.things.iter().find(|((found, number), _)| (*found, &**number) == (kind, id));
        found.map_or_else(not_found, |(_, shown)| Ok(shown.clone()))
    }

    pub fn delete_thing(&mut self, kind: &str, id: &str) -> Reply {
        let shown = self.thing(kind, id)?;
        if shown["droplet_ids"].as_array().is_some_and(|used| kind == "volumes" && !used.is_empty()) {
            return refuse(409, "conflict", "the volume is attached");
        }
        self.things.retain(|(found, number), _| (*found, &**number) != (kind, id));
        Ok((204, Value::Null))
    }
}

//! What there is: projects, their resources, and the actions that go on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::server::{Server, check_labels};
use super::{OTHER_TOKEN, READ_ONLY, TOKEN};
use crate::double::{Bill, now};

/// Requests per hour and project. They do not come back by themselves.
pub const LIMIT: u32 = 3600;

/// A refusal.
pub struct Refused {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

pub fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { status, code, message: message.into() })
}

pub type Reply = Result<(u16, Value), Refused>;

pub struct World {
    /// Its projects.
    pub accounts: Vec<Project>,
    /// Of which project, and whether it may only read.
    pub tokens: HashMap<&'static str, (usize, bool)>,
    pub knobs: Knobs,
    /// The next requests are refused so.
    pub refuse_next: VecDeque<(u16, &'static str)>,
    /// Method and address of all that was asked with a good token.
    pub requests: Vec<String>,
}

/// How it behaves.
pub struct Knobs {
    next_id: u64,
    /// Looks that an action takes.
    pub looks: u32,
    /// Types and places without room.
    pub full: HashSet<(&'static str, &'static str)>,
    /// The next servers are accepted, and then not placed for this reason; whether the server vanishes by itself.
    pub fail_placing: VecDeque<(&'static str, bool)>,
    /// The most servers of a project.
    pub machine_limit: usize,
    /// Looks for which the next image is not listed.
    pub late_images: u32,
    /// Whether machines that bake are done as soon as they run.
    pub bakes_at_once: bool,
    /// Whether machines do not hear that they shall shut down.
    pub deaf: bool,
    /// Whether answers lack fields, and have new ones.
    pub strange: bool,
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
            accounts: vec![Project::new(), Project::new()],
            tokens: HashMap::from([(TOKEN, (0, false)), (READ_ONLY, (0, true)), (OTHER_TOKEN, (1, false))]),
            knobs: Knobs {
                next_id: 1000,
                looks: 2,
                full: HashSet::new(),
                fail_placing: VecDeque::new(),
                machine_limit: 2000,
                late_images: 0,
                bakes_at_once: false,
                deaf: false,
                strange: false,
            },
            refuse_next: VecDeque::new(),
            requests: Vec::new(),
        }
    }
}

pub struct Project {
    /// Requests left.
    pub left: u32,
    pub machines: BTreeMap<u64, Server>,
    pub images: BTreeMap<u64, Image>,
    /// Volumes, addresses, keys and firewalls, as they are shown.
    pub things: BTreeMap<(&'static str, u64), Value>,
    pub actions: BTreeMap<u64, Action>,
}

pub struct Image {
    pub shown: Value,
    /// What is on it.
    pub disk: String,
    /// Whether it was taken of a server that was off.
    pub clean: bool,
    /// Looks for which no list shows it.
    pub late: u32,
}

#[derive(Debug, Clone)]
pub struct Action {
    pub command: &'static str,
    pub server: u64,
    /// Looks until it ends.
    pub left: u32,
    pub failed: Option<&'static str>,
    pub image: Option<u64>,
    /// Whether the server takes no other order while it goes on.
    pub locks: bool,
}

impl Project {
    fn new() -> Self {
        let mut images = BTreeMap::new();
        for (id, arch) in [(67, "x86"), (68, "arm")] {
            let shown = image_json(id, Some("debian-13"), "system", arch, "available", json!({}), Value::Null);
            images.insert(id, Image { shown, disk: String::new(), clean: true, late: 0 });
        }
        Self { left: LIMIT, machines: BTreeMap::new(), images, things: BTreeMap::new(), actions: BTreeMap::new() }
    }

    pub fn bill(&self) -> Bill {
        let count = |kind| self.things.keys().filter(|(found, _)| *found == kind).count();
        Bill {
            machines: self.machines.len(),
            snapshots: self.images.values().filter(|image| image.shown["type"] == "snapshot").count(),
            addresses: count("primary_ips") + count("floating_ips"),
            volumes: count("volumes"),
        }
    }

    /// Puts something there that no request made.
    pub fn plant(&mut self, kind: &'static str, id: u64, labels: Value) {
        let mut shown = json!({"id": id, "name": format!("{kind}-{id}"), "labels": labels, "created": now()});
        if kind == "images" {
            shown = image_json(id, None, "snapshot", "x86", "available", shown["labels"].take(), Value::Null);
            self.images.insert(id, Image { shown, disk: String::new(), clean: true, late: 0 });
        } else {
            self.things.insert((kind, id), shown);
        }
    }

    pub fn action(&self, id: u64) -> Result<Value, Refused> {
        let Some(action) = self.actions.get(&id) else { return refuse(404, "not_found", "no such action") };
        let (status, progress) = match (action.left, action.failed) {
            (0, Some(_)) => ("error", 100),
            (0, None) => ("success", 100),
            _ => ("running", 50),
        };
        let error = action
            .failed
            .filter(|_| action.left == 0)
            .map(|code| json!({"code": code, "message": "error during placement"}));
        let mut resources = vec![json!({"id": action.server, "type": "server"})];
        resources.extend(action.image.map(|image| json!({"id": image, "type": "image"})));
        let finished = (action.left == 0).then(now);
        Ok(json!({
            "id": id, "command": action.command, "status": status, "progress": progress, "started": now(),
            "finished": finished, "resources": resources, "error": error,
        }))
    }

    /// Begins an action and shows it.
    pub fn begin(&mut self, knobs: &mut Knobs, action: Action) -> Value {
        let id = knobs.id();
        self.actions.insert(id, action);
        self.action(id).unwrap_or_default()
    }

    /// One look has passed.
    pub fn tick(&mut self, knobs: &mut Knobs) {
        for image in self.images.values_mut() {
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

    pub fn images_json(&self) -> Vec<Value> {
        self.images.values().filter(|image| image.late == 0).map(|image| image.shown.clone()).collect()
    }

    /// The new labels take the place of all that there were.
    pub fn update_image(&mut self, id: u64, body: &Value) -> Reply {
        check_labels(&body["labels"])?;
        let Some(image) = self.images.get_mut(&id).filter(|image| image.shown["type"] == "snapshot") else {
            return refuse(404, "not_found", "image not found");
        };
        if body["labels"].is_object() {
            image.shown["labels"] = body["labels"].clone();
        }
        Ok((200, json!({"image": image.shown})))
    }

    /// Everything that was done with a server.
    pub fn actions_of(&self, server: u64) -> Result<Vec<Value>, Refused> {
        let _ = self.server(server)?;
        let ids = self.actions.iter().filter(|(_, action)| action.server == server).map(|(id, _)| *id);
        ids.map(|id| self.action(id)).collect()
    }

    /// Machines that bake are done, and turn themselves off.
    pub fn finish_baking(&mut self) {
        let bakes = |server: &&mut Server| server.labels["stagely-role"] == "bake";
        for server in self.machines.values_mut().filter(bakes) {
            assert_eq!(server.status, "running");
            server.status = "off";
        }
    }

    pub fn things(&self, kind: &str) -> Result<Vec<Value>, Refused> {
        const KNOWN: [&str; 5] = ["firewalls", "primary_ips", "floating_ips", "ssh_keys", "volumes"];
        if !KNOWN.contains(&kind) {
            return refuse(404, "not_found", "no such collection");
        }
        Ok(self.things.iter().filter(|((found, _), _)| *found == kind).map(|(_, shown)| shown.clone()).collect())
    }

    pub fn thing(&self, kind: &str, id: u64) -> Reply {
        let Some(one) = kind.strip_suffix('s') else { return refuse(404, "not_found", "no such collection") };
        let image = self.images.get(&id).filter(|_| kind == "images").map(|image| image.shown.clone());
        let found = image.or_else(|| {
            self.things
                .iter()
                .find(|((found, number), _)| (*found, *number) == (kind, id))
                .map(|(_, shown)| shown.clone())
        });
        found.map_or_else(
            || refuse(404, "not_found", format!("{one} not found")),
            |shown| Ok((200, json!({one: shown}))),
        )
    }

    pub fn delete_thing(&mut self, kind: &str, id: u64) -> Reply {
        let _ = self.thing(kind, id)?;
        let used = self.machines.values().any(|server| kind == "firewalls" && server.firewalls.contains(&id));
        let attached = self.things.iter().any(|((found, number), shown)| {
            (*found, *number) == (kind, id) && (shown["server"].is_u64() || shown["assignee_id"].is_u64())
        });
        if used || attached {
            return refuse(409, "resource_in_use", "it is in use");
        }
        if kind == "images" {
            if self.images.get(&id).is_some_and(|image| image.shown["status"] == "creating") {
                return refuse(423, "locked", "the image is being created");
            }
            self.images.remove(&id);
        }
        self.things.retain(|(found, number), _| (*found, *number) != (kind, id));
        Ok((204, Value::Null))
    }
}

pub fn image_json(
    id: u64,
    name: Option<&str>,
    kind: &str,
    arch: &str,
    status: &str,
    labels: Value,
    created_from: Value,
) -> Value {
    json!({
        "id": id, "name": name, "type": kind, "status": status, "architecture": arch, "labels": labels,
        "description": name.unwrap_or("snapshot"), "created": now(), "created_from": created_from, "deleted": null,
        "bound_to": null, "deprecated": null, "disk_size": 40, "image_size": 2.3, "os_flavor": "debian",
        "os_version": "13", "protection": {"delete": false}, "rapid_deploy": kind == "system",
    })
}

//! Servers of the double, what is done with them, and their firewalls.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::catalog;
use super::world::{Action, Image, Knobs, Project, Refused, Reply, image_json, refuse};
use crate::double::now;

/// What a create may say.
const FIELDS: [&str; 13] = [
    "automount",
    "firewalls",
    "image",
    "labels",
    "location",
    "name",
    "networks",
    "placement_group",
    "public_net",
    "server_type",
    "ssh_keys",
    "start_after_create",
    "user_data",
];

#[derive(Clone)]
pub struct Server {
    pub id: u64,
    pub name: String,
    pub kind: String,
    pub location: String,
    pub status: &'static str,
    pub labels: Value,
    pub firewalls: BTreeSet<u64>,
    pub user_data: String,
    /// What is on it.
    pub disk: String,
    /// The same for all that were made of it.
    image: Arc<Value>,
    created: String,
}

impl Server {
    fn ip(&self) -> String {
        format!("203.0.{}.{}", (self.id >> 8) & 255, self.id & 255)
    }

    pub fn json(&self, knobs: &Knobs) -> Value {
        let firewalls: Vec<Value> = self.firewalls.iter().map(|id| json!({"id": id, "status": "applied"})).collect();
        let ip = self.ip();
        if knobs.strange {
            return json!({
                "id": self.id, "name": self.name, "labels": self.labels, "status": "dreaming", "novelty": {"a": [1]},
                "public_net": {"ipv4": {"ip": ip}}, "created": null,
            });
        }
        json!({
            "id": self.id, "name": self.name, "status": self.status, "created": self.created, "labels": self.labels,
            "public_net": {
                "ipv4": {"id": self.id + 1_000_000, "ip": ip, "blocked": false, "dns_ptr": "static.example"},
                "ipv6": {"id": self.id + 2_000_000, "ip": "2001:db8::/64", "blocked": false, "dns_ptr": []},
                "floating_ips": [], "firewalls": firewalls,
            },
            "private_net": [], "server_type": catalog::server_type(&self.kind), "image": *self.image,
            "location": catalog::location(&self.location), "iso": null, "rescue_enabled": false, "locked": false,
            "backup_window": null, "outgoing_traffic": 0, "ingoing_traffic": 0, "included_traffic": 20_000_000_000_000_u64,
            "protection": {"delete": false, "rebuild": false}, "volumes": [], "load_balancers": [],
            "primary_disk_size": 40, "placement_group": null,
        })
    }
}

fn text<'b>(body: &'b Value, name: &str) -> Result<&'b str, Refused> {
    body[name].as_str().map_or_else(|| refuse(422, "invalid_input", format!("{name}: missing")), Ok)
}

pub fn check_labels(labels: &Value) -> Result<(), Refused> {
    let legal = |text: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        text.len() <= 63 && text.chars().all(inside) && edge(text.chars().next()) && edge(text.chars().last())
    };
    let all = labels.as_object().into_iter().flatten();
    match all.into_iter().find(|(name, value)| !legal(name) || !value.as_str().is_some_and(legal)) {
        Some((name, _)) => refuse(422, "invalid_input", format!("labels: {name} is invalid")),
        None => Ok(()),
    }
}

impl Project {
    pub fn server(&self, id: u64) -> Result<&Server, Refused> {
        self.machines.get(&id).map_or_else(|| refuse(404, "not_found", "server not found"), Ok)
    }

    pub fn create_server(&mut self, knobs: &mut Knobs, body: &Value) -> Reply {
        let (name, kind, location) = (text(body, "name")?, text(body, "server_type")?, text(body, "location")?);
        if let Some(unknown) = body.as_object().and_then(|body| body.keys().find(|key| !FIELDS.contains(&&***key))) {
            return refuse(422, "invalid_input", format!("{unknown}: unknown field"));
        }
        check_labels(&body["labels"])?;
        let host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(host) {
            return refuse(422, "invalid_input", "name: no hostname of RFC 1123");
        }
        if body["user_data"].as_str().is_some_and(|data| data.len() > 32 * 1024) {
            return refuse(422, "invalid_input", "user_data: too long");
        }
        if !catalog::is_type(kind) || !catalog::sells(kind, location) {
            return refuse(422, "invalid_input", format!("unsupported location for server type, or no type {kind}"));
        }
        let firewalls = body["firewalls"].as_array().into_iter().flatten().filter_map(|item| item["firewall"].as_u64());
        let firewalls: BTreeSet<u64> = firewalls.collect();
        if firewalls.iter().any(|id| !self.things.contains_key(&("firewalls", *id))) {
            return refuse(404, "not_found", "firewall not found");
        }
        let arch = catalog::server_type(kind)["architecture"].clone();
        // By name or by id, and the id as a number or in words.
        let wanted = match &body["image"] {
            Value::Number(id) => id.to_string(),
            _ => text(body, "image")?.to_owned(),
        };
        let image = self.images.iter().find(|(id, image)| {
            (image.shown["name"] == *wanted || id.to_string() == wanted) && image.shown["architecture"] == arch
        });
        let Some((_, image)) = image else { return refuse(422, "invalid_input", "image: not found") };
        if image.shown["status"] != "available" {
            return refuse(409, "conflict", "the image is not available yet");
        }
        if image.shown["disk_size"].as_u64() > catalog::server_type(kind)["disk"].as_u64() {
            return refuse(422, "invalid_input", "the image's disk is bigger than that of the server type");
        }
        if self.machines.values().any(|server| server.name == name) {
            return refuse(409, "uniqueness_error", "server name is already used");
        }
        if knobs.full.iter().any(|full| *full == (kind, location)) {
            return refuse(412, "resource_unavailable", "error during placement");
        }
        if self.machines.len() >= knobs.machine_limit {
            return refuse(403, "resource_limit_exceeded", "server limit exceeded");
        }
        let id = knobs.id();
        let server = Server {
            id,
            name: name.to_owned(),
            kind: kind.to_owned(),
            location: location.to_owned(),
            status: "initializing",
            labels: body["labels"].as_object().map_or_else(|| json!({}), |labels| json!(labels)),
            firewalls,
            user_data: body["user_data"].as_str().unwrap_or_default().to_owned(),
            disk: image.disk.clone(),
            image: Arc::new(image.shown.clone()),
            created: now(),
        };
        for (offset, kind) in [(1_000_000, "ipv4"), (2_000_000, "ipv6")] {
            self.things.insert(("primary_ips", id + offset), address_json(id + offset, &server, kind));
        }
        self.machines.insert(id, server);
        Ok((201, self.placing(knobs, id)))
    }

    /// The new labels take the place of all that there were.
    pub fn update_server(&mut self, knobs: &Knobs, id: u64, body: &Value) -> Reply {
        check_labels(&body["labels"])?;
        let Some(server) = self.machines.get_mut(&id) else { return refuse(404, "not_found", "server not found") };
        if body["labels"].is_object() {
            server.labels = body["labels"].clone();
        }
        Ok((200, json!({"server": server.json(knobs)})))
    }

    /// The answer to a create, whose actions begin.
    fn placing(&mut self, knobs: &mut Knobs, id: u64) -> Value {
        let (failed, vanishes) = knobs.fail_placing.pop_front().unzip();
        let action = |command, left, failed| Action { command, server: id, left, failed, image: None, locks: true };
        let command = if vanishes == Some(true) { "create_server_that_vanishes" } else { "create_server" };
        let shown = self.begin(knobs, action(command, knobs.looks, failed));
        let mut next = Vec::new();
        if failed.is_none() {
            next.push(self.begin(knobs, action("start_server", knobs.looks * 2, None)));
        }
        json!({
            "server": self.machines.get(&id).map(|server| server.json(knobs)), "action": shown, "next_actions": next,
            "root_password": null,
        })
    }

    fn is_locked(&self, server: u64) -> bool {
        self.actions.values().any(|action| action.left > 0 && action.locks && action.server == server)
    }

    pub fn delete_server(&mut self, knobs: &mut Knobs, id: u64) -> Reply {
        let _ = self.server(id)?;
        if self.is_locked(id) {
            return refuse(423, "locked", "server is locked");
        }
        if let Some(server) = self.machines.get_mut(&id) {
            server.status = "deleting";
        }
        let looks = knobs.looks;
        let action =
            Action { command: "delete_server", server: id, left: looks, failed: None, image: None, locks: true };
        Ok((200, json!({"action": self.begin(knobs, action)})))
    }

    pub fn act(&mut self, knobs: &mut Knobs, id: u64, what: &str, body: &Value) -> Reply {
        let server = self.server(id)?;
        if self.is_locked(id) {
            return refuse(423, "locked", "server is locked");
        }
        let left = knobs.looks;
        let action = |command, image, locks| Action { command, server: id, left, failed: None, image, locks };
        let begun = match what {
            "shutdown" => action("shutdown_server", None, false),
            "poweroff" => action("stop_server", None, true),
            "poweron" => action("start_server", None, true),
            "create_image" => {
                check_labels(&body["labels"])?;
                let from = json!({"id": id, "name": server.name});
                let arch = catalog::server_type(&server.kind)["architecture"].clone();
                let (disk, clean) = (server.disk.clone(), server.status == "off");
                let image = knobs.id();
                let labels = body["labels"].as_object().map_or_else(|| json!({}), |labels| json!(labels));
                let arch = arch.as_str().unwrap_or_default();
                let mut shown = image_json(image, None, "snapshot", arch, "creating", labels, from);
                shown["disk_size"] = catalog::server_type(&server.kind)["disk"].clone();
                self.images.insert(
                    image,
                    Image { shown: shown.clone(), disk, clean, late: std::mem::take(&mut knobs.late_images) },
                );
                let begun = self.begin(knobs, action("create_image", Some(image), true));
                return Ok((201, json!({"action": begun, "image": shown})));
            }
            _ => return refuse(404, "not_found", "no such action"),
        };
        Ok((201, json!({"action": self.begin(knobs, begun)})))
    }

    /// What an action that ends has done.
    pub fn end(&mut self, knobs: &mut Knobs, action: &Action) {
        if let Some(image) = action.image.and_then(|id| self.images.get_mut(&id)) {
            image.shown["status"] = json!("available");
        }
        let vanishes = action.command == "create_server_that_vanishes" || action.command == "delete_server";
        if vanishes {
            self.machines.remove(&action.server);
            self.things.retain(|_, shown| shown["assignee_id"] != action.server);
            return;
        }
        let Some(server) = self.machines.get_mut(&action.server) else { return };
        match action.command {
            "create_server" => server.status = "off",
            "start_server" if knobs.bakes_at_once && server.labels["stagely-role"] == "bake" => server.status = "off",
            "start_server" => server.status = "running",
            "stop_server" => server.status = "off",
            "shutdown_server" if !knobs.deaf && server.status == "running" => server.status = "off",
            _ => {}
        }
    }

    pub fn create_firewall(&mut self, knobs: &mut Knobs, body: &Value) -> Reply {
        let name = text(body, "name")?;
        check_labels(&body["labels"])?;
        if self.things.iter().any(|((kind, _), shown)| *kind == "firewalls" && shown["name"] == name) {
            return refuse(409, "uniqueness_error", "firewall name is already used");
        }
        let id = knobs.id();
        let labels = body["labels"].as_object().map_or_else(|| json!({}), |labels| json!(labels));
        let shown = json!({
            "id": id, "name": name, "labels": labels, "created": now(), "applied_to": [], "rules": full_rules(body)?,
        });
        self.things.insert(("firewalls", id), shown.clone());
        Ok((201, json!({"firewall": shown, "actions": []})))
    }

    pub fn set_rules(&mut self, id: u64, body: &Value) -> Reply {
        let rules = full_rules(body)?;
        let Some(shown) = self.things.get_mut(&("firewalls", id)) else {
            return refuse(404, "not_found", "firewall not found");
        };
        shown["rules"] = rules;
        Ok((201, json!({"actions": []})))
    }
}

/// Rules as they are shown: with every field.
fn full_rules(body: &Value) -> Result<Value, Refused> {
    let mut rules = Vec::new();
    for rule in body["rules"].as_array().into_iter().flatten() {
        let sources = rule["source_ips"].as_array().map_or(0, Vec::len);
        if rule["direction"] == "in" && (sources == 0 || sources > 100 || rule["port"].is_null()) {
            return refuse(422, "invalid_input", "rules: sources or port missing");
        }
        rules.push(json!({
            "direction": rule["direction"], "protocol": rule["protocol"], "port": rule["port"],
            "source_ips": rule["source_ips"], "destination_ips": [], "description": rule["description"],
        }));
    }
    Ok(json!(rules))
}

fn address_json(id: u64, server: &Server, kind: &str) -> Value {
    json!({
        "id": id, "name": format!("primary_ip-{id}"), "type": kind, "ip": server.ip(), "labels": {}, "auto_delete": true,
        "assignee_id": server.id, "assignee_type": "server", "blocked": false, "created": now(), "dns_ptr": [],
        "location": catalog::location(&server.location), "protection": {"delete": false},
    })
}

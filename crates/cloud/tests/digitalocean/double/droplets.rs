//! Droplets of the double, and what is done with them.

use serde_json::{Value, json};

use super::images::image_json;
use super::tags::check_tag;
use super::world::{Action, Image, Knobs, Misplaced, Refused, Reply, Team, not_found, unprocessable};
use super::{Query, catalog};
use crate::double::now;

/// What a create may say.
const FIELDS: &str = "backup_policy backups image ipv6 monitoring name private_networking public_networking region size \
                      ssh_keys tags user_data volumes vpc_uuid with_droplet_agent";

pub struct Droplet {
    pub id: u64,
    pub name: String,
    pub size: String,
    pub region: String,
    pub status: &'static str,
    pub tags: Vec<String>,
    /// The whole request.
    pub asked: Value,
    /// What is on it.
    pub disk: String,
    /// Looks for which nobody sees it.
    pub unseen: u32,
    image: Value,
    created: String,
}

impl Droplet {
    fn ip(&self) -> String {
        format!("203.0.{}.{}", (self.id >> 8) & 255, self.id & 255)
    }

    pub fn json(&self, team: &Team, knobs: &Knobs) -> Value {
        let address = |ip: &str, gateway: &str, kind: &str| json!({"ip_address": ip, "netmask": "255.255.240.0", "gateway": gateway, "type": kind});
        let public = address(&self.ip(), "203.0.0.1", "public");
        if knobs.strange {
            return json!({
                "id": self.id, "tags": self.tags, "status": "dreaming", "novelty": {"a": [1]}, "created_at": null,
                "networks": {"v4": [public]},
            });
        }
        // A new one has no address yet.
        let addresses = if self.status == "new" { vec![] } else { vec![address("10.114.0.2", "", "private"), public] };
        let snapshots = team.images.iter().filter(|(_, image)| image.seen && image.droplet == self.id);
        let snapshots: Vec<u64> = snapshots.map(|(id, _)| *id).collect();
        let size = catalog::size(&self.size);
        json!({
            "id": self.id, "name": self.name, "memory": size["memory"], "vcpus": size["vcpus"], "disk": size["disk"],
            "disk_info": [], "locked": team.is_busy(self.id, true), "status": self.status, "kernel": null,
            "created_at": self.created, "features": [], "backup_ids": [], "next_backup_window": null,
            "snapshot_ids": snapshots, "image": self.image, "volume_ids": [], "size": size, "size_slug": self.size,
            "networks": {"v4": addresses, "v6": []}, "region": catalog::region(&self.region), "tags": self.tags,
            "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        })
    }
}

impl Team {
    pub fn droplets_json(&self, knobs: &Knobs, query: &Query<'_>) -> Vec<Value> {
        let (tag, name) = (query.get("tag_name"), query.get("name"));
        let fits = |droplet: &&Droplet| {
            droplet.unseen == 0
                && !knobs.unlisted
                && tag.as_ref().is_none_or(|tag| droplet.tags.contains(tag))
                && name.as_ref().is_none_or(|name| droplet.name == *name)
        };
        self.machines.values().filter(fits).map(|droplet| droplet.json(self, knobs)).collect()
    }

    pub fn droplet(&self, id: u64) -> Result<&Droplet, Refused> {
        self.machines.get(&id).filter(|droplet| droplet.unseen == 0).map_or_else(not_found, Ok)
    }

    /// Whether an action goes on. One that removes the droplet is not told.
    fn is_busy(&self, droplet: u64, told: bool) -> bool {
        let going = |action: &Action| action.left > 0 && action.droplet == droplet;
        self.actions.values().any(|action| going(action) && !(told && action.kind == "destroy"))
    }

    pub fn create_droplet(&mut self, knobs: &mut Knobs, body: &Value) -> Reply {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let unknown = |key: &&String| !FIELDS.split(' ').any(|field| field == **key);
        if let Some(unknown) = body.as_object().and_then(|body| body.keys().find(unknown)) {
            return unprocessable(format!("{unknown} is unknown"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        let name = text("name");
        if name.is_empty() || name.len() > 255 || !name.chars().all(legal) {
            return unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)");
        }
        let tags: Vec<String> = serde_json::from_value(body["tags"].clone()).unwrap_or_default();
        tags.iter().try_for_each(|tag| check_tag(tag))?;
        if text("user_data").len() > 64 * 1024 {
            return unprocessable("user_data is too long (maximum is 65536 bytes)");
        }
        let (size, region) = (text("size"), text("region"));
        self.check_place(knobs, size, region)?;
        let image = self.image_in(&body["image"], region)?;
        if image.shown["min_disk_size"].as_u64() > catalog::size(size)["disk"].as_u64() {
            return unprocessable("The image needs a larger disk than a Droplet of this size has.");
        }
        if self.machines.len() >= knobs.machine_limit {
            return unprocessable("creating this/these droplet(s) will exceed your droplet limit");
        }
        let droplet = Droplet {
            id: knobs.id(),
            name: name.to_owned(),
            size: size.to_owned(),
            region: region.to_owned(),
            status: "new",
            tags,
            asked: body.clone(),
            disk: image.disk.clone(),
            unseen: knobs.unseen,
            image: image.shown.clone(),
            created: now(),
        };
        self.tags.extend(droplet.tags.iter().cloned());
        Ok((202, self.placing(knobs, droplet)))
    }

    fn check_place(&self, knobs: &Knobs, size: &str, region: &str) -> Result<(), Refused> {
        let Some(mut room) = catalog::sold_in(size) else {
            return unprocessable("You specified an invalid size for Droplet creation.");
        };
        if !catalog::is_region(region) {
            return unprocessable("You specified an invalid region for Droplet creation.");
        }
        room.retain(|place| !knobs.full.iter().any(|full| *full == (size, *place)));
        if room.contains(&region) {
            return Ok(());
        }
        // The words alone do not say that it is the room that lacks.
        let message = "Your request could not be processed.".to_owned();
        let attributes = json!({"available_regions": room});
        Err(Refused { status: 422, id: "unprocessable_entity", message, attributes })
    }

    fn image_in(&self, wanted: &Value, region: &str) -> Result<&Image, Refused> {
        let wanted =
            wanted.as_u64().map_or_else(|| wanted.as_str().unwrap_or_default().to_owned(), |id| id.to_string());
        let found = self.images.iter().find(|(id, image)| id.to_string() == wanted || image.shown["slug"] == *wanted);
        match found {
            Some((_, image)) if image.seen && image.shown["status"] == "available" => {
                if image.shown["regions"].as_array().is_some_and(|regions| regions.contains(&json!(region))) {
                    return Ok(image);
                }
                unprocessable("The image you specified is not available in the selected region.")
            }
            _ => unprocessable("You specified an invalid image for Droplet creation."),
        }
    }

    /// The answer to a create, whose action begins.
    fn placing(&mut self, knobs: &mut Knobs, droplet: Droplet) -> Value {
        let (id, region, misplaced) = (droplet.id, droplet.region.clone(), knobs.misplace.pop_front());
        self.machines.insert(id, droplet);
        let (kind, failed) = match misplaced {
            None | Some(Misplaced::Vanishes) => ("create", false),
            Some(Misplaced::Fails) => ("create", true),
            Some(Misplaced::FailsAndStays) => ("create_and_stay", true),
        };
        let shown = self.begin(knobs, Action { kind, droplet: id, region, left: knobs.looks, failed, image: None });
        let answer = self.machines.get(&id).map(|droplet| droplet.json(self, knobs));
        if misplaced == Some(Misplaced::Vanishes) {
            self.machines.remove(&id);
        }
        let link = format!("https://api.example/v2/actions/{}", shown["id"]);
        json!({"droplet": answer, "links": {"actions": [{"id": shown["id"], "rel": "create", "href": link}]}})
    }

    pub fn delete_droplet(&mut self, knobs: &mut Knobs, id: u64) -> Reply {
        let region = self.droplet(id)?.region.clone();
        if self.is_busy(id, false) {
            return unprocessable("Droplet already has a pending event.");
        }
        let left = knobs.looks;
        self.begin(knobs, Action { kind: "destroy", droplet: id, region, left, failed: false, image: None });
        Ok((204, Value::Null))
    }

    /// Everything that carries the tag, at once.
    pub fn delete_tagged(&mut self, tag: &str) -> Reply {
        self.machines.retain(|_, droplet| !droplet.tags.iter().any(|found| found == tag));
        Ok((204, Value::Null))
    }

    pub fn act(&mut self, knobs: &mut Knobs, id: u64, body: &Value) -> Reply {
        let droplet = self.droplet(id)?;
        let (region, status, disk) = (droplet.region.clone(), droplet.status, droplet.disk.clone());
        let size = droplet.size.clone();
        if self.is_busy(id, false) {
            return unprocessable("Droplet already has a pending event.");
        }
        let (mut failed, mut image) = (false, None);
        let kind = match body["type"].as_str().unwrap_or_default() {
            "shutdown" => {
                failed = knobs.deaf;
                "shutdown"
            }
            "power_off" => "power_off",
            "power_on" if status == "active" => return unprocessable("Droplet is already on."),
            "power_on" => "power_on",
            "snapshot" => {
                failed = knobs.fail_snapshots > 0;
                knobs.fail_snapshots = knobs.fail_snapshots.saturating_sub(1);
                let (number, name) = (knobs.id(), body["name"].as_str().unwrap_or("snapshot"));
                let mut shown = image_json(number, name, "snapshot", None, &[&region]);
                shown["status"] = json!("pending");
                shown["min_disk_size"] = catalog::size(&size)["disk"].clone();
                let (clean, late) =
                    (status == "off", if knobs.early { 0 } else { std::mem::take(&mut knobs.late_images) });
                let copy = Image { shown, droplet: id, disk, clean, seen: knobs.early, late };
                self.images.insert(number, copy);
                image = Some(number);
                "snapshot"
            }
            _ => return unprocessable("unknown action type"),
        };
        let action = Action { kind, droplet: id, region, left: knobs.looks, failed, image };
        Ok((201, json!({"action": self.begin(knobs, action)})))
    }

    /// Machines that bake are done, and turn themselves off.
    pub fn finish_baking(&mut self) {
        let bakes = |droplet: &&mut Droplet| droplet.tags.iter().any(|tag| tag == "stagely-role:bake");
        for droplet in self.machines.values_mut().filter(bakes) {
            assert_eq!(droplet.status, "active");
            droplet.status = "off";
        }
    }

    /// What an action that ends has done.
    pub fn end(&mut self, knobs: &Knobs, action: &Action) {
        if let Some(id) = action.image {
            if action.failed {
                self.images.remove(&id);
            } else if let Some(image) = self.images.get_mut(&id) {
                image.shown["status"] = json!("available");
                image.seen = true;
            }
        }
        if action.kind == "destroy" || (action.kind == "create" && action.failed) {
            self.machines.remove(&action.droplet);
            return;
        }
        let Some(droplet) = self.machines.get_mut(&action.droplet) else { return };
        match action.kind {
            "create" if knobs.bakes_at_once && droplet.tags.iter().any(|tag| tag == "stagely-role:bake") => {
                droplet.status = "off";
            }
            "create" | "power_on" => droplet.status = "active",
            "power_off" => droplet.status = "off",
            "shutdown" if !knobs.deaf => droplet.status = "off",
            _ => {}
        }
    }
}

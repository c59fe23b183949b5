//! Images and snapshots of the double.

use serde_json::{Value, json};

use super::world::{Image, Refused, Reply, Team, not_found, unprocessable};
use super::{Query, catalog};
use crate::double::now;

impl Image {
    pub fn is_shown(&self) -> bool {
        self.seen && self.late == 0
    }
}

impl Team {
    pub fn images_json(&self, query: &Query<'_>) -> Vec<Value> {
        let private = query.get("private").is_some_and(|private| private == "true");
        let tag = query.get("tag_name");
        let fits = |shown: &&Value| {
            (!private || shown["public"] == false)
                && tag.as_ref().is_none_or(|tag| shown["tags"].as_array().is_some_and(|all| all.contains(&json!(tag))))
        };
        self.images.values().filter(|image| image.is_shown()).map(|image| &image.shown).filter(fits).cloned().collect()
    }

    pub fn image(&self, id: u64) -> Result<Value, Refused> {
        self.images.get(&id).filter(|image| image.is_shown()).map_or_else(not_found, |image| Ok(image.shown.clone()))
    }

    /// Snapshots of droplets and of volumes, in the other form in which they are shown.
    pub fn snapshots_json(&self, query: &Query<'_>) -> Vec<Value> {
        let seen = self.images.values().filter(|image| image.is_shown() && image.shown["type"] == "snapshot");
        let of_droplets = seen.map(|image| {
            json!({
                "id": image.shown["id"].to_string(), "name": image.shown["name"],
                "created_at": image.shown["created_at"], "regions": image.shown["regions"], "min_disk_size": 25,
                "size_gigabytes": 2.34, "resource_id": image.droplet.to_string(), "resource_type": "droplet",
                "tags": image.shown["tags"],
            })
        });
        let mut all: Vec<Value> = of_droplets.chain(self.things("volume_snapshots")).collect();
        if let Some(wanted) = query.get("resource_type") {
            all.retain(|shown| shown["resource_type"] == *wanted);
        }
        all
    }

    pub fn delete_snapshot(&mut self, id: &str) -> Reply {
        if self.thing("volume_snapshots", id).is_ok() {
            return self.delete_thing("volume_snapshots", id);
        }
        let id = id.parse().or_else(|_| not_found())?;
        let shown = self.image(id)?;
        if shown["type"] != "snapshot" {
            return unprocessable("You can not delete this image.");
        }
        if shown["status"] != "available" {
            return unprocessable("This image already has a pending event.");
        }
        self.images.remove(&id);
        Ok((204, Value::Null))
    }

    /// Puts something there that no request of the provider made.
    pub fn plant(&mut self, kind: &'static str, id: &str, tags: &[String]) {
        self.tags.extend(tags.iter().cloned());
        let name = format!("planted-{id}");
        let shown = match kind {
            "images" => {
                let number = id.parse().unwrap();
                let mut shown = image_json(number, &name, "snapshot", None, &["fra1"]);
                shown["tags"] = json!(tags);
                let image = Image { shown, droplet: 1, disk: String::new(), clean: true, seen: true, late: 0 };
                self.images.insert(number, image);
                return;
            }
            "reserved_ips" => json!({
                "ip": id, "region": catalog::region("fra1"), "droplet": {"id": 1, "tags": tags}, "locked": false,
            }),
            "keys" => json!({
                "id": id.parse::<u64>().unwrap(), "name": tags[0], "public_key": "ssh-ed25519 AAAA",
                "fingerprint": "3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa",
            }),
            "volume_snapshots" => json!({
                "id": id, "name": name, "created_at": now(), "regions": ["fra1"], "min_disk_size": 1,
                "size_gigabytes": 0.1, "resource_id": "volume", "resource_type": "volume", "tags": tags,
            }),
            _ => json!({
                "id": id, "name": name, "created_at": now(), "tags": tags, "droplet_ids": [], "size_gigabytes": 1,
                "region": catalog::region("fra1"),
            }),
        };
        self.things.insert((kind, id.to_owned()), shown);
    }
}

pub fn image_json(id: u64, name: &str, kind: &str, slug: Option<&str>, regions: &[&str]) -> Value {
    json!({
        "id": id, "name": name, "type": kind, "distribution": "Debian", "slug": slug, "public": kind == "base",
        "regions": regions, "created_at": now(), "min_disk_size": 25, "size_gigabytes": 2.34, "description": "",
        "tags": [], "status": "available",
    })
}

//! Tags of the double.

use serde_json::{Value, json};

use super::world::{Refused, Reply, Team, not_found, unprocessable};

impl Team {
    pub fn tags_json(&self) -> Vec<Value> {
        self.tags.iter().map(|name| self.tag_json(name)).collect()
    }

    fn tag_json(&self, name: &str) -> Value {
        let droplets = self.machines.values().filter(|droplet| droplet.tags.iter().any(|tag| tag == name)).count();
        json!({"name": name, "resources": {"count": droplets, "droplets": {"count": droplets}}})
    }

    pub fn tag(&self, name: &str) -> Reply {
        if !self.tags.contains(name) {
            return not_found();
        }
        Ok((200, json!({"tag": self.tag_json(name)})))
    }

    pub fn create_tag(&mut self, body: &Value) -> Reply {
        let name = body["name"].as_str().unwrap_or_default();
        check_tag(name)?;
        self.tags.insert(name.to_owned());
        Ok((201, json!({"tag": self.tag_json(name)})))
    }

    pub fn delete_tag(&mut self, name: &str) -> Reply {
        for droplet in self.machines.values_mut() {
            droplet.tags.retain(|tag| tag != name);
        }
        if self.tags.remove(name) { Ok((204, Value::Null)) } else { not_found() }
    }

    /// Tags that are there are given to images and droplets that are there.
    pub fn tag_resources(&mut self, name: &str, body: &Value) -> Reply {
        if !self.tags.contains(name) {
            return not_found();
        }
        for resource in body["resources"].as_array().into_iter().flatten() {
            let Some(id) = resource["resource_id"].as_str() else { return unprocessable("resource_id is no text") };
            let id = id.parse::<u64>().unwrap_or_default();
            match resource["resource_type"].as_str() {
                Some("droplet") if self.machines.contains_key(&id) => {
                    self.machines.entry(id).and_modify(|droplet| droplet.tags.push(name.to_owned()));
                }
                Some("image") if self.images.contains_key(&id) => {
                    let tags = self.images.get_mut(&id).map(|image| &mut image.shown["tags"]);
                    if let Some(tags) = tags.and_then(Value::as_array_mut).filter(|tags| !tags.contains(&json!(name))) {
                        tags.push(name.into());
                    }
                }
                _ => return not_found(),
            }
        }
        Ok((204, Value::Null))
    }
}

pub fn check_tag(name: &str) -> Result<(), Refused> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-:".contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(legal) {
        return unprocessable(format!("{name} is no tag"));
    }
    Ok(())
}

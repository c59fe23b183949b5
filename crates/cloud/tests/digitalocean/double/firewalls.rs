//! Firewalls of the double.

use serde_json::{Value, json};

use super::world::{Knobs, Refused, Reply, Team, refuse, unprocessable};
use crate::double::now;

impl Team {
    pub fn create_firewall(&mut self, knobs: &mut Knobs, body: &Value) -> Reply {
        let taken = self.things.iter().any(|((kind, _), shown)| *kind == "firewalls" && shown["name"] == body["name"]);
        if taken {
            return refuse(409, "conflict", "duplicate name");
        }
        let id = format!("{:08x}-0000-4000-8000-000000000000", knobs.id());
        let shown = self.firewall(&id, body)?;
        self.things.insert(("firewalls", id), shown.clone());
        Ok((202, json!({"firewall": shown})))
    }

    pub fn update_firewall(&mut self, id: &str, body: &Value) -> Reply {
        let _ = self.thing("firewalls", id)?;
        let shown = self.firewall(id, body)?;
        self.things.insert(("firewalls", id.to_owned()), shown.clone());
        Ok((200, json!({"firewall": shown})))
    }

    fn firewall(&self, id: &str, body: &Value) -> Result<Value, Refused> {
        let name = body["name"].as_str().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if name.len() < 2 || !name.chars().all(legal) {
            return unprocessable("name is invalid");
        }
        for tag in body["tags"].as_array().into_iter().flatten() {
            if !tag.as_str().is_some_and(|tag| self.tags.contains(tag)) {
                return unprocessable(format!("tag {tag} does not exist"));
            }
        }
        let inbound = rules(&body["inbound_rules"], "sources")?;
        let outbound = rules(&body["outbound_rules"], "destinations")?;
        if inbound.is_empty() && outbound.is_empty() {
            return unprocessable("a firewall needs a rule");
        }
        Ok(json!({
            "id": id, "name": name, "status": "succeeded", "created_at": now(), "pending_changes": [],
            "droplet_ids": body["droplet_ids"].as_array().cloned().unwrap_or_default(),
            "tags": body["tags"].as_array().cloned().unwrap_or_default(),
            "inbound_rules": inbound, "outbound_rules": outbound,
        }))
    }
}

/// Rules as they are shown: all ports are port 0.
fn rules(given: &Value, whom: &str) -> Result<Vec<Value>, Refused> {
    let mut rules = Vec::new();
    for rule in given.as_array().into_iter().flatten() {
        let ports = rule["ports"].as_str().unwrap_or_default();
        let addressed = rule[whom].as_object().is_some_and(|whom| !whom.is_empty())
            && rule[whom]["addresses"].as_array().is_none_or(|all| !all.is_empty());
        if !addressed || ports.is_empty() {
            return unprocessable(format!("a rule lacks {whom} or ports"));
        }
        let ports = if ports == "all" { "0" } else { ports };
        rules.push(json!({"protocol": rule["protocol"], "ports": ports, whom: rule[whom]}));
    }
    Ok(rules)
}

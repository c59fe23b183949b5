//! What a token must be allowed for each request, by the provider's OpenAPI document.

use serde_json::Value;

/// What a token may do.
#[derive(Debug, Clone)]
pub enum Access {
    Full,
    Read,
    /// These, and nothing else.
    Scopes(Vec<String>),
}

impl Access {
    pub fn allows(&self, method: &str, path: &[&str], body: &Value) -> bool {
        match self {
            Self::Full => true,
            Self::Read => method == "GET",
            Self::Scopes(scopes) => {
                needed(method, path, body).iter().all(|scope| scopes.iter().any(|given| given == scope))
            }
        }
    }
}

fn needed(method: &str, path: &[&str], body: &Value) -> Vec<String> {
    let resource = match path {
        ["account", "keys", ..] => "ssh_key",
        ["volumes", ..] => "block_storage",
        ["droplets", ..] => "droplet",
        ["firewalls", ..] => "firewall",
        ["images", ..] => "image",
        ["reserved_ips", ..] => "reserved_ip",
        ["snapshots", ..] => "snapshot",
        ["tags", ..] => "tag",
        [word, ..] => word,
        [] => "",
    };
    let deed = match (method, path) {
        ("POST", ["droplets", _, "actions"]) | ("PUT", _) => "update",
        ("POST", _) => "create",
        ("DELETE", _) => "delete",
        _ => "read",
    };
    let mut scopes = vec![format!("{resource}:{deed}")];
    match (method, path) {
        ("POST", ["droplets", _, "actions"]) if body["type"] == "snapshot" => scopes.push("image:create".to_owned()),
        ("DELETE", ["snapshots", _]) => scopes.push("image:delete".to_owned()),
        ("POST", ["tags", _, "resources"]) => {
            for resource in body["resources"].as_array().into_iter().flatten() {
                scopes.push(format!("{}:update", resource["resource_type"].as_str().unwrap_or_default()));
            }
        }
        _ => {}
    }
    scopes
}

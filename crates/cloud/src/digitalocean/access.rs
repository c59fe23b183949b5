//! Whether the token may do all that is needed. Each scope is asked for what has no effect: a list, or a change of
//! something that nobody has. That the provider looks at scopes first is known of lists only: where it says first that there
//! is no such thing, a missing scope shows on the first machine.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::digitalocean::http::Http;
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "check the access";

/// What is tried for one scope.
struct Probe {
    scope: &'static str,
    /// The same is refused for want of this one, and then nothing follows for `scope`.
    beside: Option<&'static str>,
    ask: Ask,
    path: &'static str,
}

#[derive(Clone, Copy)]
enum Ask {
    List,
    Make,
    Change,
    Remove,
}

const fn probe(scope: &'static str, ask: Ask, path: &'static str) -> Probe {
    Probe { scope, beside: None, ask, path }
}

/// As `deploy/digitalocean/token-scopes.txt` has them. No number is as high as the ones here, no address like that is ever
/// given to anybody (RFC 5737), and the UUID is nobody's.
const PROBES: [Probe; 25] = [
    probe("actions:read", Ask::List, "actions"),
    probe("block_storage:read", Ask::List, "volumes"),
    probe("block_storage:delete", Ask::Remove, "volumes/00000000-0000-0000-0000-000000000000"),
    probe("droplet:create", Ask::Make, "droplets"),
    probe("droplet:read", Ask::List, "droplets"),
    probe("droplet:update", Ask::Make, "droplets/9007199254740991/actions"),
    probe("droplet:delete", Ask::Remove, "droplets/9007199254740991"),
    probe("firewall:create", Ask::Make, "firewalls"),
    probe("firewall:read", Ask::List, "firewalls"),
    probe("firewall:update", Ask::Change, "firewalls/00000000-0000-0000-0000-000000000000"),
    probe("firewall:delete", Ask::Remove, "firewalls/00000000-0000-0000-0000-000000000000"),
    Probe { beside: Some("droplet:update"), ..probe("image:create", Ask::Make, "droplets/9007199254740991/actions") },
    probe("image:read", Ask::List, "images"),
    probe("image:update", Ask::Change, "images/9007199254740991"),
    probe("image:delete", Ask::Remove, "images/9007199254740991"),
    probe("regions:read", Ask::List, "regions"),
    probe("reserved_ip:read", Ask::List, "reserved_ips"),
    probe("reserved_ip:delete", Ask::Remove, "reserved_ips/192.0.2.1"),
    probe("sizes:read", Ask::List, "sizes"),
    probe("snapshot:read", Ask::List, "snapshots"),
    Probe { beside: Some("image:delete"), ..probe("snapshot:delete", Ask::Remove, "snapshots/9007199254740991") },
    probe("ssh_key:read", Ask::List, "account/keys"),
    probe("ssh_key:delete", Ask::Remove, "account/keys/9007199254740991"),
    Probe {
        beside: Some("droplet:update"),
        ..probe("tag:create", Ask::Make, "tags/stagely-nothing-has-this-tag/resources")
    },
    probe("tag:read", Ask::List, "tags"),
];

/// Names every scope that is missing.
pub(super) async fn check(http: &Http) -> Result<()> {
    let mut missing = Vec::new();
    match http.get(DOING, "account", &[]).await {
        Ok(answer) if answer.pointer("/account/status").and_then(Value::as_str) == Some("locked") => {
            return Err(CloudError::new(ErrorKind::Permission, DOING, "the provider has locked the account"));
        }
        Err(error) if error.kind == ErrorKind::Permission => missing.push("account:read"),
        answer => drop(answer?),
    }
    let answers = join_all(PROBES.iter().map(|probe| probe.is_refused(http))).await;
    let mut refused = Vec::new();
    for (probe, answer) in PROBES.iter().zip(answers) {
        if answer? {
            refused.push(probe);
        }
    }
    let known = |scope| refused.iter().any(|probe| probe.scope == scope);
    missing.extend(refused.iter().filter(|probe| !probe.beside.is_some_and(known)).map(|probe| probe.scope));
    if missing.is_empty() {
        return Ok(());
    }
    Err(CloudError::new(ErrorKind::Permission, DOING, format!("the token lacks {}", missing.join(", "))))
}

impl Probe {
    async fn is_refused(&self, http: &Http) -> Result<bool> {
        let outcome = match self.ask {
            Ask::List => http.get(DOING, self.path, &[("per_page", "1")]).await.map(drop),
            Ask::Make => http.post(DOING, self.path, &self.body()).await.map(drop),
            Ask::Change => http.put(DOING, self.path, &self.body()).await.map(drop),
            Ask::Remove => http.delete(DOING, self.path).await.map(drop),
        };
        match (self.ask, outcome) {
            (_, Ok(())) => Ok(false),
            (_, Err(error)) if error.kind == ErrorKind::Permission => Ok(true),
            // Nobody was asked.
            (_, Err(error)) if is_no_answer(error.kind) => Err(error),
            (Ask::List, Err(error)) => Err(error),
            // That there is no such thing, in whatever words.
            (Ask::Make | Ask::Change | Ask::Remove, Err(_)) => Ok(false),
        }
    }

    /// What is wrong in several ways, so that nothing comes of it.
    fn body(&self) -> Value {
        match self.scope {
            "droplet:create" => json!({"name": "stagely", "size": "stagely-no-size", "image": "stagely-no-image"}),
            "droplet:update" => json!({"type": "shutdown"}),
            "image:create" => json!({"type": "snapshot", "name": "stagely"}),
            "tag:create" => json!({"resources": [{"resource_id": "9007199254740991", "resource_type": "droplet"}]}),
            "firewall:create" | "firewall:update" => json!({
                "name": "stagely-access-check",
                "tags": ["stagely-nothing-has-this-tag"],
                "outbound_rules": [{"protocol": "tcp", "ports": "70000", "destinations": {"addresses": ["192.0.2.1/32"]}}],
            }),
            _ => json!({"name": "stagely"}),
        }
    }
}

fn is_no_answer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Auth | ErrorKind::RateLimited { .. } | ErrorKind::Timeout)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::PROBES;

    #[test]
    fn every_scope_that_is_asked_of_people_is_tried() {
        let told: BTreeSet<&str> = include_str!("../../../../deploy/digitalocean/token-scopes.txt").lines().collect();
        let tried: BTreeSet<&str> = PROBES.iter().map(|probe| probe.scope).chain(["account:read"]).collect();
        assert_eq!(told, tried);
        assert!(PROBES.iter().filter_map(|probe| probe.beside).all(|scope| tried.contains(scope)));
    }
}

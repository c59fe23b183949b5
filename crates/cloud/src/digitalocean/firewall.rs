//! The one firewall of an installation: nothing comes in but from the edge to the agent's ingress. It is for all that
//! carries the installation's tag, so a droplet is behind it from its first moment; a droplet does not know whether
//! it is there, and so it is looked at again every minute.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};
use stagely_domain::id::InstallationId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::digitalocean::http::Http;
use crate::digitalocean::tags;
use crate::digitalocean::wire::{Firewall, Rule, Whom};
use crate::rest::parse;
use crate::{CloudError, ErrorKind, Result};

const TRUST: Duration = Duration::from_secs(60);
const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// The firewalls that are known to be there with the rules that we want, and since when.
#[derive(Default)]
pub(super) struct Firewalls {
    known: Mutex<HashMap<(InstallationId, u16), Instant>>,
}

impl Firewalls {
    /// Makes or corrects the installation's firewall where needed. One call at a time asks; the others wait for it.
    pub(super) async fn ensure(&self, http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<()> {
        let mut known = self.known.lock().await;
        if known.get(&(whose, port)).is_some_and(|seen| seen.elapsed() < TRUST) {
            return Ok(());
        }
        match find(http, whose).await? {
            Some(found) => correct(http, &found, whose, port, from).await?,
            None => make(http, whose, port, from).await?,
        }
        known.retain(|(other, _), _| *other != whose);
        known.insert((whose, port), Instant::now());
        Ok(())
    }

    /// Corrects the installation's firewall, if it has one, whatever is known of it.
    pub(super) async fn protect(&self, http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<()> {
        let mut known = self.known.lock().await;
        known.retain(|(other, _), _| *other != whose);
        if let Some(found) = find(http, whose).await? {
            correct(http, &found, whose, port, from).await?;
            known.insert((whose, port), Instant::now());
        }
        Ok(())
    }

    /// Looks anew next time: somebody has removed one.
    pub(super) async fn forget(&self) {
        self.known.lock().await.clear();
    }
}

async fn find(http: &Http, whose: InstallationId) -> Result<Option<Firewall>> {
    let found: Vec<Firewall> = http.list("look for the firewall", "firewalls", &[]).await?;
    Ok(found.into_iter().filter(|firewall| firewall.name == tags::prefix(whose)).min_by(|a, b| a.id.cmp(&b.id)))
}

async fn make(http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<()> {
    let doing = "make the firewall";
    // It can only be for a tag that is there.
    http.ensure_tag(doing, &tags::installation_tag(whose)).await?;
    match http.post(doing, "firewalls", &body(whose, port, from)).await {
        Ok(mut answer) => parse::<Firewall>(doing, answer["firewall"].take()).map(drop).map_err(CloudError::ambiguous),
        // Another process was quicker.
        Err(error) if error.kind == ErrorKind::Conflict => match find(http, whose).await? {
            Some(firewall) => correct(http, &firewall, whose, port, from).await,
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn correct(http: &Http, found: &Firewall, whose: InstallationId, port: u16, from: &[String]) -> Result<()> {
    let same = [tags::installation_tag(whose)] == *found.tags
        && is_wanted(&found.inbound_rules, inbound(port, from))
        && is_wanted(&found.outbound_rules, outbound());
    if !same {
        let doing = "correct the firewall";
        http.put(doing, &format!("firewalls/{}", found.id), &body(whose, port, from)).await?;
    }
    Ok(())
}

fn body(whose: InstallationId, port: u16, from: &[String]) -> Value {
    json!({
        "name": tags::prefix(whose),
        "tags": [tags::installation_tag(whose)],
        "inbound_rules": inbound(port, from),
        "outbound_rules": outbound(),
    })
}

fn inbound(port: u16, from: &[String]) -> Vec<Value> {
    let rule = json!({"protocol": "tcp", "ports": port.to_string(), "sources": {"addresses": from}});
    // A rule without sources is no rule; without a rule nothing comes in.
    if from.is_empty() { Vec::new() } else { vec![rule] }
}

/// Everything: what no rule lets out stays in.
fn outbound() -> Vec<Value> {
    let rule = |protocol| json!({"protocol": protocol, "ports": "0", "destinations": {"addresses": ANYWHERE}});
    ["tcp", "udp", "icmp"].map(rule).to_vec()
}

/// Whether the rules are those, in whatever order and words.
fn is_wanted(found: &[Rule], wanted: Vec<Value>) -> bool {
    let wanted: Vec<Rule> = wanted.into_iter().filter_map(|rule| serde_json::from_value(rule).ok()).collect();
    let all = |rules: &[Rule]| rules.iter().map(in_words).collect::<BTreeSet<_>>();
    found.iter().all(|rule| names_addresses_only(&rule.whom)) && all(found) == all(&wanted)
}

/// A rule in the one form in which it can be compared.
fn in_words(rule: &Rule) -> (String, String, BTreeSet<String>) {
    let ports = if matches!(&*rule.ports, "all" | "") { "0".to_owned() } else { rule.ports.clone() };
    (rule.protocol.clone(), ports, rule.whom.addresses.iter().map(|address| address.to_lowercase()).collect())
}

fn names_addresses_only(whom: &Whom) -> bool {
    *whom == Whom { addresses: whom.addresses.clone(), ..Whom::default() }
}

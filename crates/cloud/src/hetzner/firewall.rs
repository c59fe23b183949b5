//! The one firewall of an installation: nothing comes in but from the edge to the agent's ingress.

use std::collections::HashMap;

use hcloud::models::rule::{Direction, Protocol};
use hcloud::models::{CreateFirewallRequest, Rule, SetRulesRequest};
use stagely_domain::id::InstallationId;
use tokio::sync::Mutex;

use crate::hetzner::http::Http;
use crate::hetzner::{labels, wire};
use crate::rest::parse;
use crate::{CloudError, ErrorKind, Result};

/// The firewalls that are known to be there with the rules that we want.
#[derive(Default)]
pub(super) struct Firewalls {
    known: Mutex<HashMap<(InstallationId, u16), u64>>,
}

impl Firewalls {
    /// The installation's firewall, made or corrected where needed. One call at a time asks; the others wait for it.
    pub(super) async fn ensure(&self, http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<u64> {
        let mut known = self.known.lock().await;
        if let Some(id) = known.get(&(whose, port)) {
            return Ok(*id);
        }
        let id = match find(http, whose).await? {
            Some(found) => correct(http, found, port, from).await?,
            None => make(http, whose, port, from).await?,
        };
        known.retain(|(other, _), _| *other != whose);
        known.insert((whose, port), id);
        Ok(id)
    }

    /// Corrects the installation's firewall, if it has one, whatever is known of it.
    pub(super) async fn protect(&self, http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<()> {
        let mut known = self.known.lock().await;
        known.retain(|(other, _), _| *other != whose);
        if let Some(found) = find(http, whose).await? {
            known.insert((whose, port), correct(http, found, port, from).await?);
        }
        Ok(())
    }

    /// Looks anew next time: somebody has removed it.
    pub(super) async fn forget(&self, whose: InstallationId) {
        self.known.lock().await.retain(|(other, _), _| *other != whose);
    }
}

async fn find(http: &Http, whose: InstallationId) -> Result<Option<wire::Firewall>> {
    let selector = labels::selector(labels::INSTALLATION, whose);
    let query = [("label_selector", &*selector)];
    let mut found: Vec<wire::Firewall> = http.list("look for the firewall", "firewalls", &query).await?;
    found.retain(|firewall| labels::installation(&firewall.labels) == Some(whose));
    Ok(found.into_iter().min_by_key(|firewall| firewall.id))
}

async fn make(http: &Http, whose: InstallationId, port: u16, from: &[String]) -> Result<u64> {
    let doing = "make the firewall";
    let body = CreateFirewallRequest {
        labels: Some(labels::shared(whose)),
        rules: Some(rules(port, from)),
        ..CreateFirewallRequest::new(name(whose))
    };
    match http.post(doing, "firewalls", &body).await {
        Ok(mut answer) => parse::<wire::Firewall>(doing, answer["firewall"].take())
            .map(|firewall| firewall.id)
            .map_err(CloudError::ambiguous),
        // Another process was quicker; or it is somebody else's, and stays theirs.
        Err(error) if error.kind == ErrorKind::Exists => match find(http, whose).await? {
            Some(firewall) => correct(http, firewall, port, from).await,
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn correct(http: &Http, firewall: wire::Firewall, port: u16, from: &[String]) -> Result<u64> {
    let wanted: Vec<wire::Rule> = rules(port, from).into_iter().map(as_read).collect();
    if !wanted.iter().all(|rule| firewall.rules.contains(rule)) || firewall.rules.len() != wanted.len() {
        let doing = "correct the firewall";
        let path = format!("firewalls/{}/actions/set_rules", firewall.id);
        http.post(doing, &path, &SetRulesRequest { rules: rules(port, from) }).await?;
    }
    Ok(firewall.id)
}

/// `stagely-ins-…`: unique in a project, as names of firewalls must be.
fn name(whose: InstallationId) -> String {
    format!("stagely-{}", whose.label())
}

/// A firewall without rules admits nothing; one takes up to 100 sources.
fn rules(port: u16, from: &[String]) -> Vec<Rule> {
    let rule = |sources: &[String]| Rule {
        port: Some(Some(port.to_string())),
        source_ips: Some(sources.to_vec()),
        ..Rule::new(Direction::In, Protocol::Tcp)
    };
    from.chunks(100).map(rule).collect()
}

fn as_read(rule: Rule) -> wire::Rule {
    wire::Rule {
        direction: "in".to_owned(),
        protocol: "tcp".to_owned(),
        port: rule.port.flatten().unwrap_or_default(),
        source_ips: rule.source_ips.unwrap_or_default(),
    }
}

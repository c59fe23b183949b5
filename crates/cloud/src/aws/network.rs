//! Where machines are, and who may reach them: a subnet for each zone, and one security group for each installation and
//! role that admits the edge to the agent's port.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroup};
use stagely_domain::id::InstallationId;
use stagely_domain::machine::{Arch, Role};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::aws::actions::{
    AUTHORIZE_INGRESS, CREATE_SECURITY_GROUP, DESCRIBE_SECURITY_GROUPS, DESCRIBE_SUBNETS, REVOKE_INGRESS,
};
use crate::aws::refusal::Refused;
use crate::aws::{Aws, tags};
use crate::{CloudError, ErrorKind, Result};

const LOOK: &str = "look for the firewall";
const MAKE: &str = "make the firewall";
const CORRECT: &str = "correct the firewall";

const ROLES: [Role; 3] = [Role::Preview, Role::Builder, Role::Bake];

/// A place for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) id: String,
    pub(super) zone: String,
    pub(super) vpc: String,
}

#[derive(Default)]
pub(super) struct Subnets(Mutex<Option<Vec<Subnet>>>);

/// The groups that are known to be there with the rules that we want.
#[derive(Default)]
pub(super) struct Groups(Mutex<HashMap<(InstallationId, Role, String), String>>);

impl Aws {
    /// One subnet for each zone: those of the account's settings, or the default VPC's.
    pub(super) async fn subnets(&self) -> Result<Vec<Subnet>> {
        let mut known = self.subnets.0.lock().await;
        if let Some(subnets) = &*known {
            return Ok(subnets.clone());
        }
        let doing = "look for subnets";
        let request = self.client.ec2.describe_subnets();
        let which = Filter::builder();
        let which = if self.config.subnets.is_empty() {
            which.name("default-for-az").values("true")
        } else {
            // Not by their ids, since one that is in another region would be an error.
            which.name("subnet-id").set_values(Some(self.config.subnets.clone()))
        };
        let request = request.filters(which.build());
        let answer = self.client.send(doing, &DESCRIBE_SUBNETS, request.send()).await?;
        let mut found: Vec<Subnet> = answer
            .subnets()
            .iter()
            .filter_map(|subnet| {
                let text = |value: Option<&str>| value.map(str::to_owned);
                let (id, zone) = (text(subnet.subnet_id())?, text(subnet.availability_zone())?);
                Some(Subnet { id, zone, vpc: text(subnet.vpc_id())? })
            })
            .filter(|subnet| is_wanted(&subnet.zone, &self.config.locations))
            .collect();
        // The same one every time, since the token of a create names it.
        found.sort_by(|one, other| (&one.zone, &one.id).cmp(&(&other.zone, &other.id)));
        found.dedup_by(|one, other| one.zone == other.zone);
        if found.is_empty() {
            let message = if self.config.subnets.is_empty() {
                "no subnet: the region has no default VPC, or none of its zones is among the locations"
            } else {
                "no subnet: none of those in the settings is in this region, or in a zone that is among the locations"
            };
            return Err(CloudError::new(ErrorKind::Invalid, doing, message));
        }
        *known = Some(found.clone());
        Ok(found)
    }

    /// Those of the settings that are not in this region.
    pub(super) async fn missing_subnets(&self) -> Result<Vec<String>> {
        if self.config.subnets.is_empty() {
            return Ok(Vec::new());
        }
        let which = Filter::builder().name("subnet-id").set_values(Some(self.config.subnets.clone())).build();
        let request = self.client.ec2.describe_subnets().filters(which).send();
        let answer = self.client.send("look for subnets", &DESCRIBE_SUBNETS, request).await?;
        let is_here = |id: &String| answer.subnets().iter().any(|subnet| subnet.subnet_id() == Some(id));
        Ok(self.config.subnets.iter().filter(|id| !is_here(id)).cloned().collect())
    }

    pub(super) async fn subnet_in(&self, zone: &str) -> Result<Subnet> {
        let found = self.subnets().await?.into_iter().find(|subnet| subnet.zone == zone);
        let message = || format!("there is no subnet in {zone}");
        found.ok_or_else(|| CloudError::new(ErrorKind::Invalid, "look for subnets", message()))
    }

    /// The group, made or corrected where needed. One call at a time asks; the others wait for it.
    pub(super) async fn group(&self, whose: InstallationId, role: Role, port: u16, vpc: &str) -> Result<String> {
        let mut known = self.groups.0.lock().await;
        let key = (whose, role, vpc.to_owned());
        if let Some(id) = known.get(&key) {
            return Ok(id.clone());
        }
        let id = match self.find_group(whose, role, vpc).await? {
            Some(group) => group_id(&group)?,
            None => self.make_group(whose, role, vpc).await?,
        };
        self.correct_group(&id, port).await?;
        known.insert(key, id.clone());
        Ok(id)
    }

    /// Looks anew for everything next time.
    pub(super) async fn forget(&self, arch: Arch) {
        self.forget_images(arch).await;
        self.forget_groups().await;
        *self.subnets.0.lock().await = None;
    }

    pub(super) async fn forget_groups(&self) {
        self.groups.0.lock().await.clear();
    }

    async fn find_group(&self, whose: InstallationId, role: Role, vpc: &str) -> Result<Option<SecurityGroup>> {
        let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let request = self.client.ec2.describe_security_groups();
        let request = request.filters(filter("group-name", &name(whose, role))).filters(filter("vpc-id", vpc));
        let answer = self.client.send(LOOK, &DESCRIBE_SECURITY_GROUPS, request.send()).await?;
        let Some(group) = answer.security_groups().first() else { return Ok(None) };
        if tags::installation(group.tags()) != Some(whose) {
            let message = format!("the security group {} is somebody else's", name(whose, role));
            return Err(CloudError::new(ErrorKind::Exists, LOOK, message));
        }
        Ok(Some(group.clone()))
    }

    async fn make_group(&self, whose: InstallationId, role: Role, vpc: &str) -> Result<String> {
        let request = self
            .client
            .ec2
            .create_security_group()
            .group_name(name(whose, role))
            .description("Stagely: the edge, and nobody else")
            .vpc_id(vpc)
            .tag_specifications(tags::shared(whose, ResourceType::SecurityGroup, role));
        match self.client.send(MAKE, &CREATE_SECURITY_GROUP, request.send()).await {
            Ok(answer) => answer.group_id().map(str::to_owned).ok_or_else(|| protocol(MAKE).ambiguous()),
            // Another process was quicker, or a call before this one whose answer was lost.
            Err(Refused { error, .. }) if error.kind == ErrorKind::Exists => {
                match self.find_group(whose, role, vpc).await? {
                    Some(group) => group_id(&group),
                    None => Err(CloudError::new(ErrorKind::Conflict, MAKE, "it exists, and nothing shows it yet")),
                }
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Lets in whom we want, and then nobody else. A group that was just made may not be known everywhere yet.
    async fn correct_group(&self, id: &str, port: u16) -> Result<()> {
        let deadline = Instant::now() + self.config.timing.action;
        loop {
            match self.correct_rules(id, port).await {
                Err(error) if error.kind == ErrorKind::NotFound && Instant::now() < deadline => {
                    sleep(self.config.timing.poll).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn correct_rules(&self, id: &str, port: u16) -> Result<()> {
        let look = self.client.ec2.describe_security_groups().group_ids(id).send();
        let answer = self.client.send(LOOK, &DESCRIBE_SECURITY_GROUPS, look).await?;
        self.correct(id, answer.security_groups().first().ok_or_else(|| protocol(LOOK))?, port).await
    }

    /// Corrects every group that the installation has here, whatever is known of it.
    pub(super) async fn correct_groups(&self, whose: InstallationId, port: u16) -> Result<()> {
        let request = self.client.ec2.describe_security_groups().filters(tags::filter(tags::INSTALLATION, whose));
        let stream = request.into_paginator().stop_on_duplicate_token(false).send();
        let pages = self.client.pages(LOOK, &DESCRIBE_SECURITY_GROUPS, stream).await?;
        let mut outcome = Ok(());
        for group in pages.iter().flat_map(|page| page.security_groups()) {
            // What else a person has given our tag is not for machines.
            if ROLES.iter().any(|role| group.group_name() == Some(&*name(whose, *role))) {
                outcome = outcome.and(self.correct(&group_id(group)?, group, port).await);
            }
        }
        outcome
    }

    /// Lets in whom we want, and then nobody else, where `group` is how it is now.
    async fn correct(&self, id: &str, group: &SecurityGroup, port: u16) -> Result<()> {
        let ec2 = &self.client.ec2;
        let (missing, surplus) = difference(group.ip_permissions(), port, &self.config.ingress_from);
        if let Some(rules) = missing {
            let request = ec2.authorize_security_group_ingress().group_id(id).ip_permissions(rules).send();
            match self.client.send(CORRECT, &AUTHORIZE_INGRESS, request).await {
                Err(Refused { error, .. }) if error.kind != ErrorKind::Exists => return Err(error),
                _ => {}
            }
        }
        if !surplus.is_empty() {
            let request = ec2.revoke_security_group_ingress().group_id(id).set_ip_permissions(Some(surplus)).send();
            self.client.send(CORRECT, &REVOKE_INGRESS, request).await?;
        }
        Ok(())
    }
}

/// Whether every subnet of the settings is somewhere.
pub(super) fn all_found(missing: &[String]) -> Result<()> {
    let message = || format!("there is no subnet {}", missing.join(", "));
    let error = || CloudError::new(ErrorKind::Invalid, "look for subnets", message());
    if missing.is_empty() { Ok(()) } else { Err(error()) }
}

/// Whether machines may be in this zone; a region stands for its zones.
fn is_wanted(zone: &str, locations: &[String]) -> bool {
    let is_in = |place: &String| zone.strip_prefix(place.as_str()).is_some_and(|rest| rest.len() < 2);
    locations.is_empty() || locations.iter().any(is_in)
}

/// `stagely-ins-…-preview`: unique in a VPC, as names of groups must be.
fn name(whose: InstallationId, role: Role) -> String {
    format!("stagely-{}-{role}", whose.label())
}

/// What must be let in beside what is, and what is and must not.
fn difference(found: &[IpPermission], port: u16, from: &[String]) -> (Option<IpPermission>, Vec<IpPermission>) {
    let port = i32::from(port);
    let wanted: BTreeSet<String> = from.iter().map(|cidr| canonical(cidr)).collect();
    let mut missing: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut surplus = Vec::new();
    for rule in found {
        let ours = rule.ip_protocol() == Some("tcp") && (rule.from_port(), rule.to_port()) == (Some(port), Some(port));
        let mut extra = rule.clone();
        if ours {
            let keep = |cidr: Option<&str>| cidr.is_some_and(|cidr| wanted.contains(cidr));
            for cidr in rule.ip_ranges().iter().filter_map(IpRange::cidr_ip) {
                missing.remove(cidr);
            }
            for cidr in rule.ipv6_ranges().iter().filter_map(Ipv6Range::cidr_ipv6) {
                missing.remove(cidr);
            }
            extra.ip_ranges = Some(rule.ip_ranges().iter().filter(|range| !keep(range.cidr_ip())).cloned().collect());
            let six = rule.ipv6_ranges().iter().filter(|range| !keep(range.cidr_ipv6()));
            extra.ipv6_ranges = Some(six.cloned().collect());
        }
        let admits_none = extra.ip_ranges().is_empty()
            && extra.ipv6_ranges().is_empty()
            && extra.user_id_group_pairs().is_empty()
            && extra.prefix_list_ids().is_empty();
        if !admits_none {
            surplus.push(extra);
        }
    }
    let (six, four): (Vec<&str>, Vec<&str>) = missing.into_iter().partition(|cidr| cidr.contains(':'));
    let rules = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(port)
        .to_port(port)
        .set_ip_ranges(Some(four.iter().map(|cidr| IpRange::builder().cidr_ip(*cidr).build()).collect()))
        .set_ipv6_ranges(Some(six.iter().map(|cidr| Ipv6Range::builder().cidr_ipv6(*cidr).build()).collect()))
        .build();
    let none = four.is_empty() && six.is_empty();
    ((!none).then_some(rules), surplus)
}

/// As the provider writes it: a rule of ours that it shows in other words would be taken for somebody else's.
fn canonical(cidr: &str) -> String {
    let parsed = cidr.split_once('/').and_then(|(ip, prefix)| Some((ip.parse().ok()?, prefix.parse::<u32>().ok()?)));
    match parsed {
        Some((IpAddr::V4(ip), prefix)) if prefix <= 32 => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            format!("{}/{prefix}", Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        Some((IpAddr::V6(ip), prefix)) if prefix <= 128 => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            format!("{}/{prefix}", Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
        // The provider will say what is wrong with it.
        _ => cidr.to_owned(),
    }
}

fn group_id(group: &SecurityGroup) -> Result<String> {
    group.group_id().map(str::to_owned).ok_or_else(|| protocol(LOOK))
}

fn protocol(doing: &'static str) -> CloudError {
    CloudError::new(ErrorKind::Protocol, doing, "an answer without a group")
}

#[cfg(test)]
mod tests;

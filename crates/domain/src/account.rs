//! What a cloud account holds besides its name: where machines are made, and what proves who asks for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::machine::Provider;
use crate::secret::Secret;

/// Where and how machines are made in an account. All of it is shown to members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "CloudAccountSettings")]
pub struct Settings {
    /// AWS: the region, such as `eu-central-1`, where there is only one.
    pub region: Option<String>,
    /// AWS, instead of `region`: several regions, the best first. A machine is made in the next one when no type has
    /// room in those before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// AWS: the subnets in which machines are made, at most one for each zone of any region; they give public addresses.
    /// Default: those of each region's default VPC.
    pub subnets: Vec<String>,
    /// The places in which machines may be made, in the provider's names, the best first. Empty: anywhere. On AWS they
    /// are regions of the account or zones of them.
    pub locations: Vec<String>,
    /// The image that machines boot, in the provider's name. Default: the provider's Debian 13.
    pub image: Option<String>,
    /// The networks from which the edge proxy reaches machines, in CIDR notation; a firewall keeps all others away.
    pub ingress_from: Vec<String>,
    /// At DigitalOcean: ids or fingerprints of SSH keys of the account that machines are made with. Without one the
    /// provider makes a password for each machine and mails it to the account's owner.
    pub ssh_keys: Vec<String>,
}

impl Settings {
    /// Whether an account of this kind can work with them.
    ///
    /// # Errors
    /// What is wrong, naming the field.
    pub fn check(&self, kind: Provider) -> Result<(), String> {
        if kind == Provider::Qemu {
            let nothing = *self == Self::default();
            return nothing.then_some(()).ok_or_else(|| "`settings`: a `qemu` account has none".to_owned());
        }
        if kind == Provider::Aws {
            self.check_regions()?;
        } else if self.region.is_some() || !self.regions.is_empty() || !self.subnets.is_empty() {
            let fix = "say places in `locations`";
            return Err(format!("`settings`: `region`, `regions` and `subnets` are for `aws`; {fix}"));
        }
        if kind != Provider::Digitalocean && !self.ssh_keys.is_empty() {
            return Err("`settings.ssh_keys`: only a `digitalocean` account has them".to_owned());
        }
        if self.ingress_from.is_empty() {
            let fix = "give the networks from which your edge proxy connects, such as [\"203.0.113.7/32\"]";
            return Err(format!("`settings.ingress_from`: {fix}"));
        }
        match self.ingress_from.iter().find(|network| !is_network(network)) {
            Some(wrong) => Err(format!("`settings.ingress_from`: {wrong:?} is no network in CIDR notation")),
            None => Ok(()),
        }
    }

    /// Every region of an account at AWS, the best first.
    #[must_use]
    pub fn all_regions(&self) -> Vec<String> {
        self.region.iter().chain(&self.regions).cloned().collect()
    }

    /// Where machines are to be made, the best first; anywhere when it is empty.
    #[must_use]
    pub fn places(&self) -> &[String] {
        if self.locations.is_empty() { &self.regions } else { &self.locations }
    }

    fn check_regions(&self) -> Result<(), String> {
        let regions = self.all_regions();
        if regions.is_empty() {
            let fix = "say in which region machines are made, such as eu-central-1, or several in `settings.regions`";
            return Err(format!("`settings.region`: {fix}"));
        }
        if self.region.is_some() && !self.regions.is_empty() {
            return Err("`settings.region` and `settings.regions`: give one of them, not both".to_owned());
        }
        let field = if self.region.is_some() { "region" } else { "regions" };
        if let Some(wrong) = regions.iter().find(|region| !is_region(region)) {
            return Err(format!("`settings.{field}`: {wrong:?} is no region, such as eu-central-1"));
        }
        if let Some((_, twice)) = regions.iter().enumerate().find(|(at, region)| regions[..*at].contains(region)) {
            return Err(format!("`settings.regions`: {twice:?} is there twice"));
        }
        let is_known = |place: &&String| regions.iter().any(|region| is_in(place, region));
        if let Some(lost) = self.locations.iter().find(|place| !is_known(place)) {
            let fix = format!("name {} or zones of it", regions.join(", "));
            return Err(format!("`settings.locations`: {lost:?} is in no region of the account; {fix}"));
        }
        if regions.len() > 1 && self.image.as_ref().is_some_and(|image| image.starts_with("ami-")) {
            let fix = "with several regions, give a parameter of SSM, or `tag:key=value` for an image in each";
            return Err(format!("`settings.image`: an `ami-…` is of one region; {fix}"));
        }
        Ok(())
    }
}

/// Whether a place at AWS is this region or in it: `eu-central-1a` and `eu-central-1-ham-1a` are in `eu-central-1`, and
/// `eu-west-12a` is not in `eu-west-1`.
#[must_use]
pub fn is_in(place: &str, region: &str) -> bool {
    place.strip_prefix(region).is_some_and(|rest| match rest.as_bytes() {
        [] => true,
        [zone] => zone.is_ascii_lowercase(),
        [first, ..] => *first == b'-',
    })
}

/// It becomes part of host names.
fn is_region(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=32).contains(&text.len()) && text.bytes().all(fits) && text.contains('-')
}

/// `address/prefix` (RFC 4632, section 3.1; RFC 4291, section 2.3).
fn is_network(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let longest = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
}

/// What an access key of AWS needs that runs out.
const SESSION_TOKEN: &str = "session_token";

/// What proves to the provider who asks, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, Secret>);

impl Credentials {
    /// Takes what was given for an account of this kind, to be used from now on.
    ///
    /// # Errors
    /// Which name is missing, unknown or of something that runs out; never a value.
    pub fn new(kind: Provider, given: BTreeMap<String, Secret>) -> Result<Self, String> {
        if kind == Provider::Aws && given.contains_key(SESSION_TOKEN) {
            let fix = "give an access key that stays, perhaps with a `role_arn`";
            let why = format!("a key that runs out in hours is none for an account; {fix}");
            return Err(format!("`credentials.{SESSION_TOKEN}`: {why}"));
        }
        Self::temporary(kind, given)
    }

    /// The same to be used at once and not kept: on AWS a key that runs out is taken too, with its `session_token`.
    ///
    /// # Errors
    /// Which name is missing or unknown; never a value.
    pub fn temporary(kind: Provider, given: BTreeMap<String, Secret>) -> Result<Self, String> {
        let (needed, possible): (&[&str], &[&str]) = match kind {
            Provider::Qemu => (&[], &[]),
            Provider::Hetzner | Provider::Digitalocean => (&["token"], &[]),
            Provider::Aws => (&["access_key_id", "secret_access_key"], &["role_arn", "external_id", SESSION_TOKEN]),
        };
        let lacks = |name: &&&str| given.get(**name).is_none_or(Secret::is_empty);
        if let Some(name) = needed.iter().find(lacks) {
            return Err(format!("`credentials.{name}` is missing"));
        }
        let is_known = |name: &str| needed.contains(&name) || possible.contains(&name);
        match given.keys().find(|name| !is_known(name)) {
            Some(name) => Err(format!("`credentials.{name}` is unknown for this kind of account")),
            None => Ok(Self(given)),
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// Whether there are none, as for a metal host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them as one text, to be sealed.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let plain: BTreeMap<&str, &str> = self.0.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        // A map of texts always has a form in JSON.
        Secret::new(serde_json::to_string(&plain).unwrap_or_default())
    }

    /// Reads what [`Credentials::to_text`] wrote.
    ///
    /// # Errors
    /// As [`Credentials::new`]; a text of another form counts as empty.
    pub fn from_text(kind: Provider, text: &Secret) -> Result<Self, String> {
        Self::new(kind, serde_json::from_str(text.reveal()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Credentials, Settings};
    use crate::machine::Provider;
    use crate::secret::Secret;

    fn given(names: &[&str]) -> BTreeMap<String, Secret> {
        names.iter().map(|name| ((*name).to_owned(), Secret::new("v"))).collect()
    }

    #[test]
    fn each_kind_needs_its_own_credentials_and_takes_no_others() {
        for (kind, names) in [
            (Provider::Qemu, &[][..]),
            (Provider::Hetzner, &["token"]),
            (Provider::Digitalocean, &["token"]),
            (Provider::Aws, &["access_key_id", "secret_access_key"]),
            (Provider::Aws, &["access_key_id", "secret_access_key", "role_arn", "external_id"]),
        ] {
            let credentials = Credentials::new(kind, given(names)).unwrap();
            assert_eq!(Credentials::from_text(kind, &credentials.to_text()), Ok(credentials));
        }
        let wrong = |kind, names: &[&str]| Credentials::new(kind, given(names)).unwrap_err();
        assert_eq!(wrong(Provider::Hetzner, &[]), "`credentials.token` is missing");
        assert_eq!(wrong(Provider::Aws, &["access_key_id"]), "`credentials.secret_access_key` is missing");
        assert_eq!(wrong(Provider::Qemu, &["token"]), "`credentials.token` is unknown for this kind of account");
    }

    #[test]
    fn a_key_that_runs_out_is_used_at_once_and_not_kept() {
        let names = ["access_key_id", "secret_access_key", "session_token"];
        let refused = Credentials::new(Provider::Aws, given(&names)).unwrap_err();
        assert!(refused.starts_with("`credentials.session_token`: a key that runs out in hours"), "{refused}");
        let temporary = Credentials::temporary(Provider::Aws, given(&names)).unwrap();
        assert_eq!(temporary.get("session_token"), Some(&Secret::new("v")));
        assert!(Credentials::temporary(Provider::Hetzner, given(&["token", "session_token"])).is_err());
    }

    #[test]
    fn an_account_at_aws_names_its_region() {
        let with = |region: &str| Settings {
            region: Some(region.to_owned()),
            ingress_from: vec!["203.0.113.7/32".to_owned()],
            ..Settings::default()
        };
        assert_eq!(with("eu-central-1").check(Provider::Aws), Ok(()));
        for wrong in ["", "frankfurt", "eu-central-1.example.com", "EU-central-1"] {
            assert!(with(wrong).check(Provider::Aws).unwrap_err().contains("settings.region"), "{wrong}");
        }
        assert!(Settings::default().check(Provider::Aws).unwrap_err().contains("settings.region"));
        assert!(with("eu-central-1").check(Provider::Hetzner).unwrap_err().contains("for `aws`"));
    }

    #[test]
    fn several_regions_are_in_order_and_no_region_is_beside_them() {
        let with = |regions: &[&str]| Settings {
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            ingress_from: vec!["203.0.113.7/32".to_owned()],
            ..Settings::default()
        };
        let two = with(&["eu-west-1", "eu-central-1"]);
        assert_eq!(two.check(Provider::Aws), Ok(()));
        assert_eq!((two.all_regions(), two.places()), (two.regions.clone(), &*two.regions));
        let one = Settings { region: Some("eu-central-1".to_owned()), regions: vec![], ..two.clone() };
        assert_eq!((one.check(Provider::Aws), one.all_regions().len(), one.places().len()), (Ok(()), 1, 0));
        let says = |settings: &Settings, field: &str, word: &str| {
            let error = settings.check(Provider::Aws).unwrap_err();
            assert!(error.contains(field) && error.contains(word), "{error}");
        };
        says(&Settings { region: one.region, ..two.clone() }, "settings.regions", "not both");
        says(&with(&["eu-west-1", "frankfurt"]), "settings.regions", "frankfurt");
        says(&with(&["eu-west-1", "eu-west-1"]), "settings.regions", "twice");
        says(&Settings { image: Some("ami-0123".to_owned()), ..two.clone() }, "settings.image", "tag:");
        assert!(with(&["eu-west-1"]).check(Provider::Hetzner).unwrap_err().contains("for `aws`"));
        for (place, is_one) in [("eu-west-1", true), ("eu-central-1b", true), ("eu-west-1-atl-1a", true)]
            .into_iter()
            .chain([("eu-west-12a", false), ("eu-west", false), ("eu-north-1a", false)])
        {
            let placed = Settings { locations: vec![place.to_owned()], ..two.clone() };
            assert_eq!(placed.check(Provider::Aws).is_ok(), is_one, "{place}");
            assert_eq!(placed.places(), [place]);
        }
        // What a program of before reads has no field that it does not know.
        assert!(!serde_json::to_string(&Settings::default()).unwrap().contains("regions"));
    }

    #[test]
    fn a_network_is_an_address_and_a_prefix() {
        let with = |network: &str| Settings { ingress_from: vec![network.to_owned()], ..Settings::default() };
        for right in ["203.0.113.7/32", "0.0.0.0/0", "2001:db8::/48"] {
            assert_eq!(with(right).check(Provider::Hetzner), Ok(()), "{right}");
        }
        for wrong in ["203.0.113.7", "203.0.113.7/33", "example.com/8", "/8", "::/129"] {
            assert!(with(wrong).check(Provider::Hetzner).is_err(), "{wrong}");
        }
        assert!(Settings::default().check(Provider::Digitalocean).unwrap_err().contains("ingress_from"));
        assert_eq!(Settings::default().check(Provider::Qemu), Ok(()));
    }

    #[test]
    fn only_digitalocean_takes_ssh_keys() {
        let keys = Settings {
            ssh_keys: vec!["512189".to_owned()],
            ingress_from: vec!["::/0".to_owned()],
            ..Settings::default()
        };
        assert_eq!(keys.check(Provider::Digitalocean), Ok(()));
        assert!(keys.check(Provider::Hetzner).unwrap_err().contains("ssh_keys"));
    }
}

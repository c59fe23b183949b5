//! What our tags say. A tag here is one flat word, `<name>:<value>`, and a droplet has all of its tags from the create call
//! on. A snapshot of a droplet is made with a name and without tags: the name says whose it is from the first moment,
//! and one tag, given last, says all that is needed to wake from it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use stagely_domain::id::{EnvironmentId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::Role;

use crate::{CreateRequest, rest};

const INSTALLATION: &str = "stagely-installation";
const MACHINE: &str = "stagely-machine";
const ENVIRONMENT: &str = "stagely-environment";
const ROLE: &str = "stagely-role";
/// In seconds since 1970.
const EXPIRES: &str = "stagely-expires";
/// Where the agent's ingress listens.
const PORT: &str = "stagely-port";
/// On a droplet that woke: the first droplet that the machine was.
const ROOT: &str = "stagely-root";
/// On a snapshot: everything about the machine that sleeps in it.
const ASLEEP: &str = "stagely-asleep";
/// Set by a person on what must stay.
const HOLD: &str = "stagely-hold";
/// What the names of snapshots, firewalls and keys begin with.
const NAME: &str = "stagely";

/// All that a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) machine: MachineId,
    pub(super) installation: InstallationId,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) port: u16,
    pub(super) role: String,
    /// The first droplet that it was, where it is not this one.
    pub(super) root: Option<u64>,
    /// The tag by which a person holds it, whole.
    pub(super) hold: Option<String>,
}

impl Tags {
    /// Whether an image is to be made of it.
    pub(super) fn bakes(&self) -> bool {
        self.role == Role::Bake.as_str()
    }

    /// What a machine that is asked for will be.
    pub(super) fn of(request: &CreateRequest) -> Self {
        Self {
            machine: request.machine,
            installation: request.installation,
            environment: request.environment,
            expires_at: request.expires_at,
            port: request.config.ingress_port,
            role: request.role.to_string(),
            root: None,
            hold: None,
        }
    }

    /// What a droplet says of itself; `None` when it is not ours, or was changed so that it cannot be told.
    pub(super) fn read(tags: &[String]) -> Option<Self> {
        Some(Self {
            machine: value(tags, MACHINE)?,
            installation: value(tags, INSTALLATION)?,
            environment: value(tags, ENVIRONMENT),
            expires_at: DateTime::from_timestamp(value(tags, EXPIRES)?, 0)?,
            port: value(tags, PORT)?,
            role: value(tags, ROLE)?,
            root: value(tags, ROOT),
            hold: hold(tags),
        })
    }

    pub(super) fn all(&self) -> Vec<String> {
        let mut tags = vec![installation_tag(self.installation), machine_tag(self.machine)];
        tags.extend(self.environment.map(|environment| format!("{ENVIRONMENT}:{environment}")));
        tags.push(format!("{ROLE}:{}", self.role));
        tags.push(format!("{EXPIRES}:{}", self.expires_at.timestamp()));
        tags.push(format!("{PORT}:{}", self.port));
        tags.extend(self.root.map(|root| format!("{ROOT}:{root}")));
        tags.extend(self.hold.clone());
        tags
    }
}

/// The name of a snapshot: whose it is, and of which droplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) installation: InstallationId,
    pub(super) machine: MachineId,
    /// The first droplet that the machine was.
    pub(super) root: u64,
    /// The droplet that it is a copy of.
    pub(super) droplet: u64,
}

impl Origin {
    pub(super) fn name(&self) -> String {
        format!("{NAME}-{}-{}-{}-{}", self.installation.label(), self.machine.label(), self.root, self.droplet)
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        let mut words = name.split('-');
        let mut next = || words.next();
        if next()? != NAME {
            return None;
        }
        let installation = format!("{}-{}", next()?, next()?).parse().ok()?;
        let machine = format!("{}-{}", next()?, next()?).parse().ok()?;
        let (root, droplet) = (next()?.parse().ok()?, next()?.parse().ok()?);
        next().is_none().then_some(Self { installation, machine, root, droplet })
    }
}

/// The name of an image that machines boot, which is a snapshot too: whose it is, and which. It says nothing of a machine, as
/// that of a sleeping machine's snapshot does, so neither can be taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Golden {
    pub(super) installation: InstallationId,
    pub(super) image: ImageId,
}

impl Golden {
    pub(super) fn name(&self) -> String {
        format!("{}-{}", prefix(self.installation), self.image.label())
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('-').collect();
        let [NAME, kind, installation, of, image] = words[..] else { return None };
        let installation = format!("{kind}-{installation}").parse().ok()?;
        Some(Self { installation, image: format!("{of}-{image}").parse().ok()? })
    }
}

/// What is needed to wake: the machine, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bed {
    pub(super) tags: Tags,
    pub(super) size: String,
    pub(super) region: String,
}

impl Bed {
    /// The tag that is given to a snapshot last.
    pub(super) fn tag(&self, origin: &Origin) -> String {
        let environment =
            self.tags.environment.map_or_else(|| "none".to_owned(), |environment| environment.to_string());
        let (expires, port, role) = (self.tags.expires_at.timestamp(), self.tags.port, &self.tags.role);
        let (size, region) = (&self.size, &self.region);
        format!("{ASLEEP}:{}:{expires}:{port}:{role}:{size}:{region}:{environment}", origin.droplet)
    }

    /// What the tags of a snapshot say; `None` when it has not got all of them yet.
    pub(super) fn read(origin: &Origin, tags: &[String]) -> Option<Self> {
        let asleep: String = value(tags, ASLEEP)?;
        let mut words = asleep.split(':');
        let mut next = || words.next();
        if next()?.parse() != Ok(origin.droplet) {
            return None;
        }
        let expires_at = DateTime::from_timestamp(next()?.parse().ok()?, 0)?;
        let (port, role) = (next()?.parse().ok()?, next()?.to_owned());
        let (size, region, environment) = (next()?.to_owned(), next()?.to_owned(), next()?.parse().ok());
        let (machine, installation, root) = (origin.machine, origin.installation, Some(origin.root));
        let tags = Tags { machine, installation, environment, expires_at, port, role, root, hold: hold(tags) };
        Some(Self { tags, size, region })
    }
}

/// What everything of the installation carries, and what its firewall is for.
pub(super) fn installation_tag(installation: InstallationId) -> String {
    format!("{INSTALLATION}:{installation}")
}

pub(super) fn machine_tag(machine: MachineId) -> String {
    format!("{MACHINE}:{machine}")
}

/// What the name of something begins with that has no tags of its own.
pub(super) fn prefix(installation: InstallationId) -> String {
    format!("{NAME}-{}", installation.label())
}

pub(super) fn installation(tags: &[String]) -> Option<InstallationId> {
    value(tags, INSTALLATION)
}

pub(super) fn machine(tags: &[String]) -> Option<MachineId> {
    value(tags, MACHINE)
}

/// Why [`Tags::read`] cannot read what carries our tag, or is the machine `id` by its name or number, and what to do about it.
pub(super) fn damage(what: &str, tags: &[String], id: Option<MachineId>) -> String {
    let is_time = |secs: i64| DateTime::from_timestamp(secs, 0).is_some();
    let wrong = [
        (MACHINE, machine(tags).is_none_or(|found| id.is_some_and(|id| id != found))),
        (INSTALLATION, installation(tags).is_none()),
        (EXPIRES, !value(tags, EXPIRES).is_some_and(is_time)),
        (PORT, value::<u16>(tags, PORT).is_none()),
        (ROLE, value::<String>(tags, ROLE).is_none()),
    ];
    rest::damaged(what, "tags", &wrong)
}

pub(super) fn is_held(tags: &[String]) -> bool {
    hold(tags).is_some()
}

/// The tag by which a person holds what carries it.
pub(super) fn hold(tags: &[String]) -> Option<String> {
    let holds = |tag: &&String| tag.strip_prefix(HOLD).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    tags.iter().find(holds).cloned()
}

fn value<T: FromStr>(tags: &[String], name: &str) -> Option<T> {
    tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':'))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::{ImageId, InstallationId, MachineId};

    use super::{Bed, Golden, Origin, Tags, damage, is_held};
    use crate::contract::request;

    #[test]
    fn tags_and_names_say_it_all_and_are_legal() {
        let mut request = request(InstallationId::generate(), &SystemClock);
        for environment in [request.environment, None] {
            request.environment = environment;
            let tags = Tags { root: Some(4711), hold: Some("stagely-hold:ada".to_owned()), ..Tags::of(&request) };
            let all = tags.all();
            assert_eq!(Tags::read(&all).as_ref(), Some(&tags));
            let origin =
                Origin { installation: tags.installation, machine: tags.machine, root: 4711, droplet: 123_456_789 };
            assert_eq!(Origin::read(&origin.name()), Some(origin));
            let bed = Bed { tags, size: "so1_5-2vcpu-16gb".to_owned(), region: "fra1".to_owned() };
            let asleep = bed.tag(&origin);
            assert_eq!(Bed::read(&origin, &[asleep.clone(), "stagely-hold:ada".to_owned()]).as_ref(), Some(&bed));
            assert_eq!(Bed::read(&origin, &all), None);
            for tag in all.iter().chain([&asleep]) {
                let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_:".contains(c);
                assert!(tag.len() <= 255 && tag.chars().all(legal), "{tag}");
            }
            assert!(origin.name().len() <= 100);
        }
    }

    #[test]
    fn an_image_is_never_taken_for_what_a_machine_sleeps_in() {
        let request = request(InstallationId::generate(), &SystemClock);
        let (installation, machine) = (request.installation, request.machine);
        let golden = Golden { installation, image: ImageId::generate() };
        let bed = Origin { installation, machine, root: 1, droplet: 2 }.name();
        assert_eq!((Golden::read(&golden.name()), Origin::read(&golden.name())), (Some(golden), None));
        assert_eq!(Golden::read(&bed), None);
        for foreign in [&*format!("{}-1", golden.name()), &format!("x{}", golden.name()), "stagely", ""] {
            assert_eq!(Golden::read(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_damaged_or_foreign_is_not_ours() {
        let request = request(InstallationId::generate(), &SystemClock);
        let mut tags = Tags::of(&request).all();
        tags.retain(|tag| !tag.starts_with("stagely-expires"));
        tags.push("stagely-expires:soon".to_owned());
        assert_eq!(Tags::read(&tags), None);
        let told = damage("droplet 7", &tags, None);
        assert!(told.contains("droplet 7") && told.contains("stagely-expires was changed"), "{told}");
        let told = damage("droplet 7", &Tags::of(&request).all(), Some(MachineId::generate()));
        assert!(told.contains(" and stagely-machine was changed"), "{told}");
        let (installation, machine) = (request.installation, request.machine);
        let name = Origin { installation, machine, root: 1, droplet: 2 }.name();
        for foreign in
            ["", "stagely", &name[..20], &format!("{name}-3"), &format!("x{name}"), &name.replace("mch", "env")]
        {
            assert_eq!(Origin::read(foreign), None, "{foreign}");
        }
        let held = |tag: &str| is_held(&[tag.to_owned()]);
        assert!(held("stagely-hold") && held("stagely-hold:ada") && !held("stagely-holder"));
    }
}

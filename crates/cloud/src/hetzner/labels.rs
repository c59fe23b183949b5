//! What our labels say, on machines and on what belongs to them.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use stagely_domain::id::{EnvironmentId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::Role;

use crate::hetzner::wire::Labels;
use crate::{CreateRequest, rest};

pub(super) const INSTALLATION: &str = "stagely-installation";
pub(super) const MACHINE: &str = "stagely-machine";
/// On an image that machines boot: no machine sleeps in what carries it.
pub(super) const IMAGE: &str = "stagely-image";
const ENVIRONMENT: &str = "stagely-environment";
const ROLE: &str = "stagely-role";
/// In seconds since 1970.
const EXPIRES: &str = "stagely-expires";
/// Where the agent's ingress listens.
const PORT: &str = "stagely-port";
/// The type and place to which a sleeping machine returns.
const TYPE: &str = "stagely-type";
const LOCATION: &str = "stagely-location";
/// On a snapshot: the server that it is a copy of.
const SERVER: &str = "stagely-server";
/// Set by a person on what must stay.
const HOLD: &str = "stagely-hold";

/// All that a machine is. Every value is an id, a number or a name of the provider's: none needs quoting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) machine: MachineId,
    pub(super) installation: InstallationId,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) port: u16,
    /// Type and location.
    pub(super) place: Option<(String, String)>,
    /// The server that this is a snapshot of.
    pub(super) server: Option<u64>,
    pub(super) role: Option<String>,
    /// What a person wrote who holds it.
    pub(super) hold: Option<String>,
}

impl Tags {
    /// What a machine that is asked for will be.
    pub(super) fn of(request: &CreateRequest, server_type: &str, location: &str) -> Self {
        Self {
            machine: request.machine,
            installation: request.installation,
            environment: request.environment,
            expires_at: request.expires_at,
            port: request.config.ingress_port,
            place: Some((server_type.to_owned(), location.to_owned())),
            server: None,
            role: Some(request.role.to_string()),
            hold: None,
        }
    }

    /// What a server or snapshot says of itself; `None` when it is not ours, or was changed so that it cannot be told.
    pub(super) fn read(labels: &Labels) -> Option<Self> {
        if labels.contains_key(IMAGE) {
            return None;
        }
        Some(Self {
            machine: value(labels, MACHINE)?,
            installation: value(labels, INSTALLATION)?,
            environment: value(labels, ENVIRONMENT),
            expires_at: DateTime::from_timestamp(value(labels, EXPIRES)?, 0)?,
            port: value(labels, PORT)?,
            place: labels.get(TYPE).cloned().zip(labels.get(LOCATION).cloned()),
            server: value(labels, SERVER),
            role: labels.get(ROLE).cloned(),
            hold: labels.get(HOLD).cloned(),
        })
    }

    /// Whether an image is to be made of it.
    pub(super) fn bakes(&self) -> bool {
        self.role.as_deref() == Some(Role::Bake.as_str())
    }

    pub(super) fn labels(&self) -> Labels {
        let (kind, location) = self.place.clone().unzip();
        let all = [
            (MACHINE, Some(self.machine.to_string())),
            (INSTALLATION, Some(self.installation.to_string())),
            (ENVIRONMENT, self.environment.map(|environment| environment.to_string())),
            (EXPIRES, Some(self.expires_at.timestamp().to_string())),
            (PORT, Some(self.port.to_string())),
            (TYPE, kind),
            (LOCATION, location),
            (SERVER, self.server.map(|server| server.to_string())),
            (ROLE, self.role.clone()),
            (HOLD, self.hold.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Selects what carries this label.
pub(super) fn selector(name: &str, value: impl ToString) -> String {
    format!("{name}={}", value.to_string())
}

/// What is only the installation's.
pub(super) fn shared(installation: InstallationId) -> Labels {
    Labels::from([(INSTALLATION.to_owned(), installation.to_string())])
}

/// For an image that machines boot. It says nothing of a machine: it outlives the one that it was made of.
pub(super) fn of_image(image: ImageId, installation: InstallationId) -> Labels {
    let mut labels = shared(installation);
    labels.insert(IMAGE.to_owned(), image.to_string());
    labels
}

pub(super) fn installation(labels: &Labels) -> Option<InstallationId> {
    value(labels, INSTALLATION)
}

pub(super) fn machine(labels: &Labels) -> Option<MachineId> {
    value(labels, MACHINE)
}

pub(super) fn image(labels: &Labels) -> Option<ImageId> {
    value(labels, IMAGE)
}

/// Whether a machine sleeps in a snapshot with these labels, or did, so far as they say.
pub(super) fn is_of_machine(labels: &Labels) -> bool {
    labels.contains_key(MACHINE) && !labels.contains_key(IMAGE)
}

/// Why [`Tags::read`] cannot read what carries our label, or bears the name of the machine `id`, and what to do about it.
pub(super) fn damage(what: &str, labels: &Labels, id: Option<MachineId>) -> String {
    let is_time = |secs: i64| DateTime::from_timestamp(secs, 0).is_some();
    let wrong = [
        (MACHINE, machine(labels).is_none_or(|found| id.is_some_and(|id| id != found))),
        (INSTALLATION, installation(labels).is_none()),
        (EXPIRES, !value(labels, EXPIRES).is_some_and(is_time)),
        (PORT, value::<u16>(labels, PORT).is_none()),
        (IMAGE, labels.contains_key(IMAGE)),
    ];
    rest::damaged(what, "labels", &wrong)
}

/// The same labels, and that what carries them must stay.
pub(super) fn held(labels: &Labels, hold: &str) -> Labels {
    let mut labels = labels.clone();
    labels.entry(HOLD.to_owned()).or_insert_with(|| hold.to_owned());
    labels
}

pub(super) fn is_held(labels: &Labels) -> bool {
    labels.contains_key(HOLD)
}

fn value<T: FromStr>(labels: &Labels, name: &str) -> Option<T> {
    labels.get(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::{InstallationId, MachineId};

    use super::{Tags, damage};
    use crate::contract::request;

    #[test]
    fn labels_say_it_all_and_are_legal() {
        let request = request(InstallationId::generate(), &SystemClock);
        let tags = Tags { server: Some(4711), hold: Some("ada".to_owned()), ..Tags::of(&request, "cx23", "nbg1") };
        let labels = tags.labels();
        assert_eq!(Tags::read(&labels), Some(tags));
        for value in labels.values() {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(value.len() <= 63 && value.chars().all(legal), "{value}");
        }
        let with = |name: &str, value: &str| {
            let mut labels = labels.clone();
            labels.insert(name.to_owned(), value.to_owned());
            labels
        };
        assert_eq!(Tags::read(&with("stagely-image", "anything")), None, "no machine sleeps in an image");
        let mut damaged = with("stagely-expires", "soon");
        damaged.remove("stagely-port");
        assert_eq!(Tags::read(&damaged), None);
        let told = damage("server 7", &damaged, None);
        assert!(told.contains("server 7") && told.contains("stagely-expires, stagely-port was changed"), "{told}");
        let told = damage("server 7", &labels, Some(MachineId::generate()));
        assert!(told.contains(" and stagely-machine was changed"), "{told}");
    }
}

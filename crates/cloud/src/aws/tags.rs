//! What our tags say, on machines and on what belongs to them.

use std::str::FromStr;

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use chrono::{DateTime, Utc};
use stagely_domain::id::{EnvironmentId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::Role;

use crate::CreateRequest;

pub(super) const INSTALLATION: &str = "stagely-installation";
pub(super) const MACHINE: &str = "stagely-machine";
/// On an image that machines boot, and on its snapshots.
const IMAGE: &str = "stagely-image";
const ENVIRONMENT: &str = "stagely-environment";
pub(super) const ROLE: &str = "stagely-role";
/// In seconds since 1970.
const EXPIRES: &str = "stagely-expires";
/// Where the agent's ingress listens.
const PORT: &str = "stagely-port";
/// Set by a person on what must stay.
pub(super) const HOLD: &str = "stagely-hold";
/// What the provider's console shows as the name.
pub(super) const NAME: &str = "Name";

/// All that a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) machine: MachineId,
    pub(super) installation: InstallationId,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) port: u16,
    pub(super) role: Option<String>,
}

impl Tags {
    /// Whether an image is to be made of it.
    pub(super) fn bakes(&self) -> bool {
        self.role.as_deref() == Some(Role::Bake.as_str())
    }

    /// What a machine that is asked for will be.
    pub(super) fn of(request: &CreateRequest) -> Self {
        Self {
            machine: request.machine,
            installation: request.installation,
            environment: request.environment,
            expires_at: request.expires_at,
            port: request.config.ingress_port,
            role: Some(request.role.to_string()),
        }
    }

    /// What something says of itself; `None` when it is not ours, or was changed so that it cannot be told.
    pub(super) fn read(tags: &[Tag]) -> Option<Self> {
        Some(Self {
            machine: value(tags, MACHINE)?,
            installation: value(tags, INSTALLATION)?,
            environment: value(tags, ENVIRONMENT),
            expires_at: DateTime::from_timestamp(value(tags, EXPIRES)?, 0)?,
            port: value(tags, PORT)?,
            role: value(tags, ROLE),
        })
    }

    /// For the machine, its disk and its network interface, in the very call that makes them.
    pub(super) fn specifications(&self) -> Vec<TagSpecification> {
        let tags: Vec<Tag> = [
            (NAME, Some(self.machine.label())),
            (MACHINE, Some(self.machine.to_string())),
            (INSTALLATION, Some(self.installation.to_string())),
            (ENVIRONMENT, self.environment.map(|environment| environment.to_string())),
            (EXPIRES, Some(self.expires_at.timestamp().to_string())),
            (PORT, Some(self.port.to_string())),
            (ROLE, self.role.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(Tag::builder().key(key).value(value?).build()))
        .collect();
        [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface]
            .map(|kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build())
            .into()
    }
}

/// For an image and its snapshots, in the very call that makes them. They say nothing of a machine: they outlive it.
pub(super) fn of_image(image: ImageId, installation: InstallationId) -> Vec<TagSpecification> {
    let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
    [ResourceType::Image, ResourceType::Snapshot]
        .map(|kind| {
            TagSpecification::builder()
                .resource_type(kind)
                .tags(tag(NAME, image.label()))
                .tags(tag(INSTALLATION, installation.to_string()))
                .tags(tag(IMAGE, image.to_string()))
                .build()
        })
        .into()
}

/// What all machines of this role share.
pub(super) fn shared(installation: InstallationId, kind: ResourceType, role: Role) -> TagSpecification {
    let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
    TagSpecification::builder()
        .resource_type(kind)
        .tags(tag(INSTALLATION, installation.to_string()))
        .tags(tag(ROLE, role.to_string()))
        .build()
}

/// Finds what carries this tag.
pub(super) fn filter(key: &str, value: impl ToString) -> Filter {
    Filter::builder().name(format!("tag:{key}")).values(value.to_string()).build()
}

pub(super) fn installation(tags: &[Tag]) -> Option<InstallationId> {
    value(tags, INSTALLATION)
}

pub(super) fn machine(tags: &[Tag]) -> Option<MachineId> {
    value(tags, MACHINE)
}

pub(super) fn image(tags: &[Tag]) -> Option<ImageId> {
    value(tags, IMAGE)
}

pub(super) fn is_held(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.key() == Some(HOLD))
}

fn value<T: FromStr>(tags: &[Tag], key: &str) -> Option<T> {
    tags.iter().find(|tag| tag.key() == Some(key))?.value()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::Tag;
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::InstallationId;

    use super::Tags;
    use crate::contract::request;

    #[test]
    fn tags_say_it_all_on_all_that_a_machine_is_made_of() {
        let tags = Tags::of(&request(InstallationId::generate(), &SystemClock));
        let specifications = tags.specifications();
        let kinds: Vec<&str> = specifications.iter().filter_map(|one| Some(one.resource_type()?.as_str())).collect();
        assert_eq!(kinds, ["instance", "volume", "network-interface"]);
        for one in &specifications {
            assert_eq!(Tags::read(one.tags()), Some(tags.clone()));
            assert!(one.tags().iter().all(|tag| tag.key().unwrap().len() <= 128 && tag.value().unwrap().len() <= 256));
        }
        let mut damaged = specifications[0].tags().to_vec();
        damaged.retain(|tag| tag.key() != Some("stagely-expires"));
        damaged.push(Tag::builder().key("stagely-expires").value("soon").build());
        assert_eq!(Tags::read(&damaged), None);
    }
}

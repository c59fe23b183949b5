//! Everything of an installation that costs money or quota and is no machine. What is attached to a machine goes with
//! it, and is not listed.

use aws_sdk_ec2::types::{Filter, NetworkInterfaceStatus, SpotInstanceState, Tag, VolumeState};
use chrono::{DateTime, Utc};
use stagely_domain::id::InstallationId;

use crate::aws::actions::{
    CANCEL_SPOT_INSTANCE_REQUESTS, DELETE_NETWORK_INTERFACE, DELETE_SECURITY_GROUP, DELETE_SNAPSHOT, DELETE_VOLUME,
    DEREGISTER_IMAGE, DESCRIBE_ADDRESSES, DESCRIBE_IMAGES, DESCRIBE_NETWORK_INTERFACES, DESCRIBE_SECURITY_GROUPS,
    DESCRIBE_SNAPSHOTS, DESCRIBE_SPOT_INSTANCE_REQUESTS, DESCRIBE_VOLUMES, RELEASE_ADDRESS,
};
use crate::aws::machine::time_of;
use crate::aws::{Aws, tags};
use crate::{CloudError, DeleteProgress, ErrorKind, Residue, ResidueKind, Residues, Result};

const LIST: &str = "list what is left over";
const DELETE: &str = "delete what is left over";

/// Images come before their snapshots, which stay as long as an image has them.
const KINDS: [ResidueKind; 7] = [
    ResidueKind::Volume,
    ResidueKind::Image,
    ResidueKind::Snapshot,
    ResidueKind::Address,
    ResidueKind::Interface,
    ResidueKind::Firewall,
    ResidueKind::SpotRequest,
];

impl Aws {
    /// What there is.
    pub(super) async fn residue_of(&self, installation: InstallationId) -> Result<Residues> {
        let mut readings = Vec::new();
        for kind in KINDS {
            readings.push(self.of_kind(kind, installation).await);
        }
        Residues::of_kinds(installation, readings)
    }

    async fn of_kind(&self, kind: ResidueKind, installation: InstallationId) -> Result<Vec<Residue>> {
        let (ec2, client) = (&self.client.ec2, &self.client);
        let filters: Option<Vec<Filter>> = Some(vec![tags::filter(tags::INSTALLATION, installation)]);
        let mut items = Vec::new();
        match kind {
            ResidueKind::Volume => {
                let stream =
                    ec2.describe_volumes().set_filters(filters).into_paginator().stop_on_duplicate_token(false).send();
                for page in client.pages(LIST, &DESCRIBE_VOLUMES, stream).await? {
                    let loose = page.volumes().iter().filter(|one| one.state() != Some(&VolumeState::InUse));
                    items.extend(
                        loose.filter_map(|one| residue(kind, one.volume_id(), one.tags(), at(one.create_time()))),
                    );
                }
            }
            ResidueKind::Snapshot => {
                let request = ec2.describe_snapshots().owner_ids("self").set_filters(filters);
                let stream = request.into_paginator().stop_on_duplicate_token(false).send();
                for page in client.pages(LIST, &DESCRIBE_SNAPSHOTS, stream).await? {
                    let found = page.snapshots().iter();
                    items.extend(
                        found.filter_map(|one| residue(kind, one.snapshot_id(), one.tags(), at(one.start_time()))),
                    );
                }
            }
            ResidueKind::Image => {
                let stream = ec2
                    .describe_images()
                    .owners("self")
                    .set_filters(filters)
                    .into_paginator()
                    .stop_on_duplicate_token(false)
                    .send();
                for page in client.pages(LIST, &DESCRIBE_IMAGES, stream).await? {
                    items.extend(
                        page.images()
                            .iter()
                            .filter_map(|one| residue(kind, one.image_id(), one.tags(), written(one.creation_date()))),
                    );
                }
            }
            ResidueKind::Address => {
                let request = ec2.describe_addresses().set_filters(filters).send();
                let found = client.send(LIST, &DESCRIBE_ADDRESSES, request).await?;
                let found = found.addresses().iter();
                items.extend(found.filter_map(|one| residue(kind, one.allocation_id(), one.tags(), None)));
            }
            ResidueKind::Interface => {
                let stream = ec2
                    .describe_network_interfaces()
                    .set_filters(filters)
                    .into_paginator()
                    .stop_on_duplicate_token(false)
                    .send();
                for page in client.pages(LIST, &DESCRIBE_NETWORK_INTERFACES, stream).await? {
                    let in_use = Some(&NetworkInterfaceStatus::InUse);
                    let loose = page.network_interfaces().iter().filter(|one| one.status() != in_use);
                    let each = loose.filter_map(|one| residue(kind, one.network_interface_id(), one.tag_set(), None));
                    items.extend(each);
                }
            }
            ResidueKind::Firewall => {
                let stream = ec2
                    .describe_security_groups()
                    .set_filters(filters)
                    .into_paginator()
                    .stop_on_duplicate_token(false)
                    .send();
                for page in client.pages(LIST, &DESCRIBE_SECURITY_GROUPS, stream).await? {
                    let found = page.security_groups().iter();
                    items.extend(found.filter_map(|one| residue(kind, one.group_id(), one.tags(), None)));
                }
            }
            ResidueKind::SpotRequest => {
                let stream = ec2
                    .describe_spot_instance_requests()
                    .set_filters(filters)
                    .into_paginator()
                    .stop_on_duplicate_token(false)
                    .send();
                for page in client.pages(LIST, &DESCRIBE_SPOT_INSTANCE_REQUESTS, stream).await? {
                    let waits = [SpotInstanceState::Open, SpotInstanceState::Active];
                    let found = page.spot_instance_requests().iter();
                    let open = found.filter(|one| one.state().is_none_or(|state| waits.contains(state)));
                    items.extend(open.filter_map(|one| {
                        residue(kind, one.spot_instance_request_id(), one.tags(), at(one.create_time()))
                    }));
                }
            }
            ResidueKind::Key => {}
        }
        Ok(items)
    }

    /// Removes one of them. What something still uses is asked for again.
    pub(super) async fn remove_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        let id = checked(residue)?;
        let (ec2, client) = (&self.client.ec2, &self.client);
        let outcome = match residue.kind {
            ResidueKind::Volume => {
                client.send(DELETE, &DELETE_VOLUME, ec2.delete_volume().volume_id(id).send()).await.map(drop)
            }
            ResidueKind::Snapshot => {
                client.send(DELETE, &DELETE_SNAPSHOT, ec2.delete_snapshot().snapshot_id(id).send()).await.map(drop)
            }
            ResidueKind::Image => {
                // Without this its snapshots would stay, and cost.
                let request = ec2.deregister_image().image_id(id).delete_associated_snapshots(true).send();
                client.send(DELETE, &DEREGISTER_IMAGE, request).await.map(drop)
            }
            ResidueKind::Address => {
                client.send(DELETE, &RELEASE_ADDRESS, ec2.release_address().allocation_id(id).send()).await.map(drop)
            }
            ResidueKind::Interface => {
                let request = ec2.delete_network_interface().network_interface_id(id).send();
                client.send(DELETE, &DELETE_NETWORK_INTERFACE, request).await.map(drop)
            }
            ResidueKind::Firewall => {
                let outcome =
                    client.send(DELETE, &DELETE_SECURITY_GROUP, ec2.delete_security_group().group_id(id).send()).await;
                self.forget_groups().await;
                outcome.map(drop)
            }
            ResidueKind::SpotRequest => {
                let request = ec2.cancel_spot_instance_requests().spot_instance_request_ids(id).send();
                client.send(DELETE, &CANCEL_SPOT_INSTANCE_REQUESTS, request).await.map(drop)
            }
            ResidueKind::Key => Ok(()),
        };
        match outcome.map_err(CloudError::from) {
            Ok(()) => Ok(DeleteProgress::Gone),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(DeleteProgress::Gone),
            Err(error) if error.kind == ErrorKind::Conflict => Ok(DeleteProgress::InProgress),
            Err(error) => Err(error),
        }
    }
}

/// The id, if it can be one of this kind.
fn checked(residue: &Residue) -> Result<&str> {
    let prefix = match residue.kind {
        ResidueKind::Volume => "vol-",
        ResidueKind::Snapshot => "snap-",
        ResidueKind::Image => "ami-",
        ResidueKind::Address => "eipalloc-",
        ResidueKind::Interface => "eni-",
        ResidueKind::Firewall => "sg-",
        ResidueKind::SpotRequest => "sir-",
        ResidueKind::Key => "key-",
    };
    let is_one = residue
        .id
        .strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    let other = || CloudError::new(ErrorKind::Invalid, DELETE, "not an id of this provider");
    is_one.then_some(&*residue.id).ok_or_else(other)
}

fn residue(kind: ResidueKind, id: Option<&str>, tags: &[Tag], created_at: Option<DateTime<Utc>>) -> Option<Residue> {
    Some(Residue {
        kind,
        id: id?.to_owned(),
        installation: tags::installation(tags)?,
        machine: tags::machine(tags),
        image: tags::image(tags),
        created_at,
        hold: tags::is_held(tags),
    })
}

fn at(time: Option<&aws_sdk_ec2::primitives::DateTime>) -> Option<DateTime<Utc>> {
    time.and_then(|time| time_of(time.secs()))
}

/// Of images alone the time is told in words.
fn written(time: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(time?).ok().map(|time| time.to_utc())
}

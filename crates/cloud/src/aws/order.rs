//! The one call that makes a machine.

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest,
    InstanceNetworkInterfaceSpecification, InstanceType, ShutdownBehavior, VolumeType,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use stagely_domain::id::MachineId;

use crate::aws::image::Image;
use crate::aws::tags::Tags;

/// The only market so far: a spot machine can be taken away, and cannot be stopped.
const MARKET: &str = "on-demand";

pub(super) struct Order<'o> {
    pub(super) tags: &'o Tags,
    pub(super) attempt: u32,
    pub(super) instance_type: &'o str,
    pub(super) subnet: &'o str,
    /// None only where nothing is to be made.
    pub(super) group: Option<&'o str>,
    pub(super) image: &'o Image,
    /// The name by which the caller wants that image, where it is not the account's own.
    pub(super) wanted: Option<&'o str>,
    pub(super) disk_gib: u32,
    pub(super) user_data: &'o str,
}

impl Order<'_> {
    pub(super) fn token(&self) -> String {
        token(self.tags.machine, self.attempt, self.instance_type, self.subnet, MARKET, self.wanted)
    }

    /// The request. The machine ends when it powers itself off, or stops if an image is to be made of it; it has no
    /// profile, and tells its metadata only to whoever asks from the machine itself and not from a container.
    pub(super) fn request(&self, ec2: &aws_sdk_ec2::Client) -> RunInstancesFluentBuilder {
        let disk = EbsBlockDevice::builder()
            .volume_type(VolumeType::Gp3)
            .volume_size(i32::try_from(self.disk_gib.max(self.image.disk_gib)).unwrap_or(i32::MAX))
            .encrypted(true)
            .delete_on_termination(true)
            .build();
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .subnet_id(self.subnet)
            .set_groups(self.group.map(|group| vec![group.to_owned()]))
            .associate_public_ip_address(true)
            .delete_on_termination(true)
            .build();
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_endpoint(InstanceMetadataEndpointState::Enabled)
            .http_tokens(HttpTokensState::Required)
            .http_put_response_hop_limit(1)
            .build();
        let at_power_off = if self.tags.bakes() { ShutdownBehavior::Stop } else { ShutdownBehavior::Terminate };
        ec2.run_instances()
            .client_token(self.token())
            .min_count(1)
            .max_count(1)
            .image_id(&self.image.id)
            .instance_type(InstanceType::from(self.instance_type))
            .network_interfaces(interface)
            .block_device_mappings(BlockDeviceMapping::builder().device_name(&self.image.root).ebs(disk).build())
            .instance_initiated_shutdown_behavior(at_power_off)
            .metadata_options(metadata)
            .user_data(STANDARD.encode(self.user_data))
            .set_tag_specifications(Some(self.tags.specifications()))
    }
}

/// The same for the same request, and another for every other: a token that comes again with other words is refused,
/// and in another subnet makes a second machine. 64 characters, the most that the provider takes.
///
/// The account's own image is no word of it: what that names may change between two tries of one request.
fn token(
    machine: MachineId,
    attempt: u32,
    instance_type: &str,
    subnet: &str,
    market: &str,
    wanted: Option<&str>,
) -> String {
    let mut words = format!("{machine}\n{attempt}\n{instance_type}\n{subnet}\n{market}");
    if let Some(image) = wanted {
        words = format!("{words}\n{image}");
    }
    hex::encode(digest(&SHA256, words.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stagely_domain::id::MachineId;

    use super::token;

    #[test]
    fn a_token_is_firm_and_differs_with_each_of_its_words() {
        let (one, other) = (MachineId::generate(), MachineId::generate());
        let first = token(one, 0, "t3.small", "subnet-1", "on-demand", None);
        assert_eq!(first, token(one, 0, "t3.small", "subnet-1", "on-demand", None));
        let others = [
            token(other, 0, "t3.small", "subnet-1", "on-demand", None),
            token(one, 1, "t3.small", "subnet-1", "on-demand", None),
            token(one, 0, "t3.medium", "subnet-1", "on-demand", None),
            token(one, 0, "t3.small", "subnet-2", "on-demand", None),
            token(one, 0, "t3.small", "subnet-1", "spot", None),
            token(one, 0, "t3.small", "subnet-1", "on-demand", Some("ami-1")),
            token(one, 0, "t3.small", "subnet-1", "on-demand", Some("ami-2")),
        ];
        let all: BTreeSet<&String> = others.iter().chain([&first]).collect();
        assert_eq!(all.len(), 8);
        assert!(all.iter().all(|token| token.is_ascii() && token.len() <= 64));
    }
}

//! Every action that can be sent, by the name of the permission that it needs.

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It reads.
    Read,
    /// It changes something, so that a lost answer leaves doubt.
    Change,
}

/// One action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Action {
    /// `ec2:RunInstances`.
    pub(super) permission: &'static str,
    pub(super) effect: Effect,
}

impl Action {
    const fn read(permission: &'static str) -> Self {
        Self { permission, effect: Effect::Read }
    }

    const fn change(permission: &'static str) -> Self {
        Self { permission, effect: Effect::Change }
    }
}

pub(super) const GET_CALLER_IDENTITY: Action = Action::read("sts:GetCallerIdentity");
pub(super) const ASSUME_ROLE: Action = Action::read("sts:AssumeRole");
pub(super) const GET_PARAMETERS: Action = Action::read("ssm:GetParameters");
pub(super) const GET_PRODUCTS: Action = Action::read("pricing:GetProducts");
pub(super) const DESCRIBE_INSTANCES: Action = Action::read("ec2:DescribeInstances");
pub(super) const DESCRIBE_INSTANCE_TYPES: Action = Action::read("ec2:DescribeInstanceTypes");
pub(super) const DESCRIBE_INSTANCE_TYPE_OFFERINGS: Action = Action::read("ec2:DescribeInstanceTypeOfferings");
pub(super) const DESCRIBE_IMAGES: Action = Action::read("ec2:DescribeImages");
pub(super) const DESCRIBE_SUBNETS: Action = Action::read("ec2:DescribeSubnets");
pub(super) const DESCRIBE_SECURITY_GROUPS: Action = Action::read("ec2:DescribeSecurityGroups");
pub(super) const DESCRIBE_VOLUMES: Action = Action::read("ec2:DescribeVolumes");
pub(super) const DESCRIBE_SNAPSHOTS: Action = Action::read("ec2:DescribeSnapshots");
pub(super) const DESCRIBE_ADDRESSES: Action = Action::read("ec2:DescribeAddresses");
pub(super) const DESCRIBE_NETWORK_INTERFACES: Action = Action::read("ec2:DescribeNetworkInterfaces");
pub(super) const DESCRIBE_SPOT_INSTANCE_REQUESTS: Action = Action::read("ec2:DescribeSpotInstanceRequests");
pub(super) const GET_CONSOLE_OUTPUT: Action = Action::read("ec2:GetConsoleOutput");
pub(super) const RUN_INSTANCES: Action = Action::change("ec2:RunInstances");
/// Never sent by itself: whoever tags in a create needs it.
const CREATE_TAGS: Action = Action::change("ec2:CreateTags");
pub(super) const START_INSTANCES: Action = Action::change("ec2:StartInstances");
pub(super) const STOP_INSTANCES: Action = Action::change("ec2:StopInstances");
pub(super) const TERMINATE_INSTANCES: Action = Action::change("ec2:TerminateInstances");
pub(super) const CREATE_IMAGE: Action = Action::change("ec2:CreateImage");
pub(super) const CREATE_SECURITY_GROUP: Action = Action::change("ec2:CreateSecurityGroup");
pub(super) const AUTHORIZE_INGRESS: Action = Action::change("ec2:AuthorizeSecurityGroupIngress");
pub(super) const REVOKE_INGRESS: Action = Action::change("ec2:RevokeSecurityGroupIngress");
pub(super) const DELETE_SECURITY_GROUP: Action = Action::change("ec2:DeleteSecurityGroup");
pub(super) const DELETE_VOLUME: Action = Action::change("ec2:DeleteVolume");
pub(super) const DELETE_SNAPSHOT: Action = Action::change("ec2:DeleteSnapshot");
pub(super) const DEREGISTER_IMAGE: Action = Action::change("ec2:DeregisterImage");
pub(super) const RELEASE_ADDRESS: Action = Action::change("ec2:ReleaseAddress");
pub(super) const DELETE_NETWORK_INTERFACE: Action = Action::change("ec2:DeleteNetworkInterface");
pub(super) const CANCEL_SPOT_INSTANCE_REQUESTS: Action = Action::change("ec2:CancelSpotInstanceRequests");

/// All of them that a policy must allow. Anybody may ask who he is, and a role is taken on before its policy counts.
const ALL: [Action; 30] = [
    GET_PARAMETERS,
    GET_PRODUCTS,
    DESCRIBE_INSTANCES,
    DESCRIBE_INSTANCE_TYPES,
    DESCRIBE_INSTANCE_TYPE_OFFERINGS,
    DESCRIBE_IMAGES,
    DESCRIBE_SUBNETS,
    DESCRIBE_SECURITY_GROUPS,
    DESCRIBE_VOLUMES,
    DESCRIBE_SNAPSHOTS,
    DESCRIBE_ADDRESSES,
    DESCRIBE_NETWORK_INTERFACES,
    DESCRIBE_SPOT_INSTANCE_REQUESTS,
    GET_CONSOLE_OUTPUT,
    RUN_INSTANCES,
    CREATE_TAGS,
    START_INSTANCES,
    STOP_INSTANCES,
    TERMINATE_INSTANCES,
    CREATE_IMAGE,
    CREATE_SECURITY_GROUP,
    AUTHORIZE_INGRESS,
    REVOKE_INGRESS,
    DELETE_SECURITY_GROUP,
    DELETE_VOLUME,
    DELETE_SNAPSHOT,
    DEREGISTER_IMAGE,
    RELEASE_ADDRESS,
    DELETE_NETWORK_INTERFACE,
    CANCEL_SPOT_INSTANCE_REQUESTS,
];

/// The permissions that an account must give, `ec2:RunInstances` and so on; `deploy/aws/iam-policy.json` gives them.
pub fn permissions() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|action| action.permission)
}

#[cfg(test)]
mod tests;

//! New machines: what EC2 refuses and moto does not, and one machine for one client token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Inside, Outcome, Parameters, between, error, images};

pub(super) async fn run(inside: &Inside, headers: HeaderMap, body: Bytes, given: Parameters) -> Outcome {
    let get = |name: &str| given.get(name).cloned().unwrap_or_default();
    let (kind, subnet) = (get("InstanceType"), get("NetworkInterface.1.SubnetId"));
    let size = STANDARD.decode(get("UserData")).unwrap().len();
    if size > 16 * 1024 {
        return Err(error(400, "InvalidParameterValue", "User data is limited to 16384 bytes"));
    }
    let key = (get("ClientToken"), subnet.clone());
    assert!(key.0.len() <= 64 && !key.0.is_empty());
    let image = inside.ask(&[("Action", "DescribeImages"), ("ImageId.1", &get("ImageId"))]).await;
    let zones = inside.ask(&[("Action", "DescribeSubnets"), ("SubnetId.1", &subnet)]).await;
    let zone = between(&zones, "<availabilityZone>", "<").unwrap_or_default().to_owned();
    let group = get("NetworkInterface.1.SecurityGroupId.1");
    let groups = inside.ask(&[("Action", "DescribeSecurityGroups"), ("GroupId.1", &group)]).await;
    {
        let world = inside.world();
        if let Some((asked, answer, id)) = world.tokens.get(&key) {
            return if world.ended.contains(id) {
                Err(error(400, "IdempotentInstanceTerminated", "The instance of this token was terminated."))
            } else if *asked == given {
                Ok((StatusCode::OK, answer.clone()))
            } else {
                Err(error(400, "IdempotentParameterMismatch", "The token was used with other parameters."))
            };
        }
        if world.knobs.full.iter().any(|(full, place)| *full == kind && (*place == zone || *place == subnet)) {
            return Err(error(500, "InsufficientInstanceCapacity", "We currently do not have sufficient capacity."));
        }
        if world.knobs.at_limit {
            return Err(error(400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your limit."));
        }
    }
    if images::is_pending(inside, &get("ImageId")) {
        return Err(error(400, "InvalidAMIID.Unavailable", "The image is not available."));
    }
    let processor = between(&image, "<architecture>", "<").unwrap_or_default();
    if !image.contains("InvalidAMIID") && processor != processor_of(&kind) {
        let message = format!("The architecture of {kind} does not match the architecture '{processor}' of the AMI.");
        return Err(error(400, "InvalidParameterValue", &message));
    }
    if groups.contains("InvalidGroup") {
        return Err(error(400, "InvalidGroup.NotFound", &format!("The security group '{group}' does not exist")));
    }
    let (status, text) = inside.forward(headers, body).await;
    if text.contains("InvalidInstanceType") {
        return Err(error(400, "InvalidParameterValue", &format!("Invalid value '{kind}' for InstanceType.")));
    }
    if let Some(id) = between(&text, "<instanceId>", "<").filter(|_| status.is_success()) {
        let bakes = inside.world().knobs.bakes_at_once && get("InstanceInitiatedShutdownBehavior") == "stop";
        let vanish = {
            let mut world = inside.world();
            world.made = given.clone();
            let (hidden, slow) = (world.knobs.hidden, world.knobs.slow);
            world.hidden.insert(id.to_owned(), hidden);
            world.passing.insert(id.to_owned(), ("pending", slow));
            world.tokens.insert(key, (given, text.clone(), id.to_owned()));
            world.knobs.vanish.is_some() && world.ended.insert(id.to_owned())
        };
        if bakes {
            inside.ask(&[("Action", "StopInstances"), ("InstanceId.1", id)]).await;
            inside.world().by_itself.insert(id.to_owned());
        }
        if vanish {
            inside.ask(&[("Action", "TerminateInstances"), ("InstanceId.1", id)]).await;
        }
    }
    Ok((status, text))
}

/// `t4g`, `c7gn`: a g after the number says arm.
fn processor_of(kind: &str) -> &'static str {
    let family = kind.split('.').next().unwrap_or_default();
    let after =
        family.trim_start_matches(|c: char| c.is_ascii_lowercase()).trim_start_matches(|c: char| c.is_ascii_digit());
    if after.contains('g') || family == "a1" { "arm64" } else { "x86_64" }
}

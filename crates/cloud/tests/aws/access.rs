//! Whether the credentials suffice, and roles that are taken on.

use std::sync::atomic::{AtomicBool, Ordering};

use stagely_cloud::aws::{Role, permissions};
use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::InstallationId;
use stagely_domain::secret::Secret;

use super::refusals::refusal;
use super::{ONE_AWAKE, Rig, SECRET, config, provider};
use crate::ear::Ear;
use crate::fault_proxy::{Fault, Seen};

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn every_permission_that_lacks_is_named() {
    let rig = Rig::start().await;
    rig.cloud.check_access().await.unwrap();
    rig.moto.world().knobs.denied = ["RunInstances", "DescribeVolumes", "DescribeSubnets"].into();
    let error = provider(config(&rig.proxy.url())).check_access().await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false));
    for name in ["ec2:RunInstances", "ec2:DescribeVolumes", "ec2:DescribeSubnets"] {
        assert_eq!(error.message.matches(name).count(), 1, "{error}");
    }
    assert!(!error.message.contains("CreateSecurityGroup") && !error.message.contains("4GIO"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_permission_that_lacks_beside_that_of_the_action_is_named_and_the_actions_is_not() {
    let rig = Rig::start().await;
    let message = "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ada is not \
                   authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-central-1:123456789012:instance/* \
                   because no identity-based policy allows the ec2:CreateTags action";
    let tags = |seen: &Seen| {
        [&b"Action=RunInstances"[..], b"Action=CreateSecurityGroup"].iter().any(|begin| seen.body.starts_with(begin))
    };
    rig.proxy.harm_when(tags, refusal(403, "UnauthorizedOperation", message));
    let error = rig.cloud.check_access().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    assert_eq!(error.message.matches("ec2:CreateTags").count(), 1, "{error}");
    assert!(!error.message.contains("RunInstances") && !error.message.contains("CreateSecurityGroup"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_is_bound_to_our_tag_is_proved_on_a_machine_of_ours_alone() {
    let rig = Rig::start().await;
    let bound = ["TerminateInstances", "StopInstances", "DeleteVolume"];
    rig.moto.world().knobs.denied = bound.into();
    rig.cloud.check_access().await.unwrap();
    let (_, created) = rig.running().await;
    let error = rig.cloud.check_access().await.unwrap_err();
    for name in ["ec2:TerminateInstances", "ec2:StopInstances"] {
        assert!(error.message.contains(name), "{error}");
    }
    assert!(!error.message.contains("DeleteVolume"));
    rig.moto.world().knobs.denied.clear();
    rig.cloud.check_access().await.unwrap();
    // All of it was without effect.
    assert_eq!(rig.cloud.find(created_machine(&rig).await).await.unwrap()[0].id, created.id);
}

async fn created_machine(rig: &Rig) -> stagely_domain::id::MachineId {
    rig.moto.world().made["TagSpecification.1.Tag.2.Value"].parse().unwrap()
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_caller_who_may_only_look_lacks_what_makes() {
    let rig = Rig::start().await;
    let changes = permissions().filter_map(|name| name.split(':').nth(1));
    let changes = changes.filter(|name| !name.starts_with("Describe") && !name.starts_with("Get"));
    rig.moto.world().knobs.denied = changes.collect();
    let error = rig.cloud.check_access().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.message.contains("ec2:RunInstances") && error.message.contains("ec2:CreateSecurityGroup"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_role_is_taken_on_once_with_its_external_id_and_anew_when_its_keys_are_refused() {
    let rig = Rig::start().await;
    let mut other = config(&rig.proxy.url());
    other.role = Some(Role {
        arn: "arn:aws:iam::123456789012:role/stagely".to_owned(),
        external_id: Some(Secret::new("external-7f3a")),
    });
    let cloud = provider(other.clone());
    for _ in 0..3 {
        cloud.list(InstallationId::generate()).await.unwrap();
    }
    cloud.check_access().await.unwrap();
    let seen = rig.proxy.seen();
    let assumed: Vec<_> = seen.iter().filter(|seen| seen.body.starts_with(b"Action=AssumeRole")).collect();
    assert_eq!(assumed.len(), 1);
    let body = String::from_utf8_lossy(&assumed[0].body).into_owned();
    assert!(body.contains("ExternalId=external-7f3a") && body.contains("RoleSessionName=stagely"), "{body}");
    assert!(seen.iter().skip(1).all(|seen| seen.headers.contains_key("x-amz-security-token")));
    let expired = || {
        let body = "<Response><Errors><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>\
                    </Errors></Response>";
        Fault::Answer { status: 400, headers: vec![], body: body.to_owned() }
    };
    let assumed = |body: &[u8]| body.starts_with(b"Action=AssumeRole");
    let count = |rig: &Rig, begin: &[u8]| rig.proxy.seen().iter().filter(|seen| seen.body.starts_with(begin)).count();
    // The same call is sent again with fresh keys, also one that makes something.
    rig.proxy.harm_nth(1, expired());
    cloud.list(InstallationId::generate()).await.unwrap();
    assert_eq!((count(&rig, b"Action=AssumeRole"), count(&rig, b"Action=DescribeInstances&")), (1, 2));
    let request = rig.request().await;
    let is_refused = AtomicBool::new(false);
    let first =
        move |seen: &Seen| seen.body.starts_with(b"Action=RunInstances") && !is_refused.swap(true, Ordering::Relaxed);
    rig.proxy.harm_when(first, expired());
    cloud.create(&request).await.unwrap();
    assert_eq!((count(&rig, b"Action=AssumeRole"), count(&rig, b"Action=RunInstances")), (1, 2));
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
    // Once, and not for ever.
    rig.proxy.harm_when(move |seen| !assumed(&seen.body), expired());
    assert_eq!(cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Auth);
    assert_eq!((count(&rig, b"Action=AssumeRole"), count(&rig, b"Action=DescribeInstances&")), (1, 2));
    // A role that may not be taken on: nothing else was sent.
    let denied = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized to \
                  perform: sts:AssumeRole</Message></Error></ErrorResponse>";
    rig.proxy.harm_when(
        move |seen| assumed(&seen.body),
        Fault::Answer { status: 403, headers: vec![], body: denied.to_owned() },
    );
    let error = provider(other).create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
    assert!(error.message.contains("sts:AssumeRole"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn secrets_are_in_no_error_no_log_and_no_debug_text() {
    let (rig, ear) = (Rig::start().await, Ear::listen());
    let mut other = config(&rig.proxy.url());
    let external_id = Some(Secret::new("external-7f3a"));
    other.role = Some(Role { arn: "arn:aws:iam::123456789012:role/stagely".to_owned(), external_id });
    other.keys.session_token = Some(Secret::new("session-99"));
    let mut texts = vec![format!("{other:?}")];
    let request = rig.request().await;
    for fault in [Fault::html(403), Fault::Garble, Fault::LoseAnswer, Fault::html(500), Fault::ResetBefore] {
        rig.proxy.harm_when(|_| true, fault);
        let error = rig.cloud.create(&request).await.unwrap_err();
        texts.push(format!("{error} {error:?}"));
        let error = provider(other.clone()).create(&request).await.unwrap_err();
        texts.push(format!("{error} {error:?}"));
    }
    rig.proxy.calm();
    let created = rig.cloud.create(&request).await.unwrap();
    put_to_sleep(&rig.cloud, &created.id).await;
    rig.cloud.wake(&created.id).await.unwrap();
    delete(&rig.cloud, &created.id).await;
    texts.push(ear.heard());
    for text in texts {
        for secret in [SECRET, "external-7f3a", "session-99", "contract-token", "cloud-config"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

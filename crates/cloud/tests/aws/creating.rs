//! Making machines: as asked for, adopted, refused, and behind a firewall.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stagely_cloud::aws::Aws;
use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, VmState};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use super::proxy::between;
use super::{NOTHING, ONE_AWAKE, Rig, config, provider};
use crate::fault_proxy::Fault;

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_create_asks_for_everything_that_a_machine_needs() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let made = rig.moto.world().made.clone();
    let get = |name: &str| made.get(name).map(String::as_str).unwrap_or_default();
    for (name, expected) in [
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
        ("MetadataOptions.HttpTokens", "required"),
        ("MetadataOptions.HttpPutResponseHopLimit", "1"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "40"),
        ("BlockDeviceMapping.1.Ebs.Encrypted", "true"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("NetworkInterface.1.AssociatePublicIpAddress", "true"),
        ("NetworkInterface.1.DeleteOnTermination", "true"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.2.ResourceType", "volume"),
        ("TagSpecification.3.ResourceType", "network-interface"),
        ("TagSpecification.3.Tag.2.Value", &request.machine.to_string()),
        ("TagSpecification.1.Tag.1.Value", &request.machine.label()),
    ] {
        assert_eq!(get(name), expected, "{name}");
    }
    assert!(!made.keys().any(|name| name.starts_with("IamInstanceProfile") || name.starts_with("KeyName")));
    let user_data = String::from_utf8(STANDARD.decode(get("UserData")).unwrap()).unwrap();
    assert!(user_data.starts_with("#cloud-config\n"));
    let vm = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((vm.state, &vm.id, vm.expires_at), (VmState::Running, &created.id, request.expires_at));
    assert_eq!(vm.environment, request.environment);
    assert!(vm.address.is_some_and(|address| address.ends_with(":7443")));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_repeat_with_a_new_enrolment_token_is_the_same_machine() {
    let rig = Rig::start().await;
    let (mut request, created) = rig.running().await;
    request.config.enrolment_token = Secret::new("another-token");
    assert_eq!(rig.cloud.create(&request).await.unwrap().id, created.id);
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
    // Where no list shows it yet, nothing is concluded.
    let fresh = rig.request().await;
    rig.moto.world().knobs.hidden = 100;
    rig.proxy.harm_when(|seen| seen.body.starts_with(b"Action=RunInstances"), Fault::LoseAnswer);
    let lost = rig.cloud.create(&fresh).await.unwrap_err();
    assert!(lost.ambiguous, "{lost}");
    rig.proxy.calm();
    let renewed = {
        let mut renewed = fresh.clone();
        renewed.config.enrolment_token = Secret::new("a-third-token");
        renewed
    };
    let error = rig.cloud.create(&renewed).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Conflict, true), "{error}");
    assert_eq!(rig.bill(fresh.machine).await, ONE_AWAKE);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_is_not_understood_is_adopted_and_not_made_twice() {
    for fault in [Fault::Garble, Fault::Truncate, Fault::LoseAnswer] {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.proxy.harm_when(|seen| seen.body.starts_with(b"Action=RunInstances"), fault);
        let created = rig.cloud.create(&request).await.unwrap();
        assert_eq!(rig.proxy.calm(), 1);
        assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
        assert_eq!(rig.cloud.create(&request).await.unwrap().id, created.id);
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn no_room_and_no_allowance_are_told_apart_and_asked_for_once() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let fitting = candidates(&all, Size::Small, Arch::Amd64, &[]);
    let first = request.offering.clone().unwrap();
    rig.moto.world().knobs.full = [(first.name.clone(), first.location.clone())].into();
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Capacity, false), "{error}");
    assert!(error.message.contains(&first.name));
    let next = CreateRequest { offering: Some(fitting[1].clone()), attempt: 1, ..request.clone() };
    rig.cloud.create(&next).await.unwrap();
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
    rig.moto.world().knobs.at_limit = true;
    let other = CreateRequest { machine: MachineId::generate(), ..next };
    let error = rig.cloud.create(&other).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Quota, false), "{error}");
    assert_eq!(rig.asked("RunInstances"), 3);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_that_is_accepted_and_then_ends_says_why() {
    for (reason, expected) in [
        ("Server.InsufficientInstanceCapacity", ErrorKind::Capacity),
        ("Client.UserInitiatedShutdown", ErrorKind::Invalid),
    ] {
        let rig = Rig::start().await;
        rig.moto.world().knobs.vanish = Some(reason);
        let (request, _) = rig.running().await;
        assert_eq!(rig.cloud.find(request.machine).await.unwrap(), []);
        let error = rig.cloud.create(&request).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (expected, false), "{error}");
        assert!(error.message.contains(reason), "{error}");
        assert_eq!(rig.bill(request.machine).await, NOTHING);
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_type_or_place_that_is_unknown_is_named() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    for (name, location) in [("t99.small", "eu-central-1a"), ("t3.small", "eu-central-9z")] {
        let mut offering = request.offering.clone().unwrap();
        (offering.name, offering.location) = (name.to_owned(), location.to_owned());
        let error = rig.cloud.create(&CreateRequest { offering: Some(offering), ..request.clone() }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains(name) || error.message.contains(location), "{error}");
    }
    assert_eq!(rig.bill(request.machine).await, NOTHING);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn each_processor_gets_its_image_and_a_mismatch_is_refused_unasked() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let arm = candidates(&all, Size::Medium, Arch::Arm64, &[])[0].clone();
    let request = CreateRequest { arch: Arch::Arm64, offering: Some(arm), ..rig.request().await };
    rig.cloud.create(&request).await.unwrap();
    rig.moto.world().actions.clear();
    for offering in [None, request.offering.clone()] {
        let wrong = CreateRequest { arch: Arch::Amd64, offering, ..request.clone() };
        assert_eq!(rig.cloud.create(&wrong).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    let mut long = request.clone();
    long.config.ca_pem = "x".repeat(17_000);
    assert_eq!(rig.cloud.create(&long).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(rig.moto.world().actions, Vec::<String>::new());
    // An image for another processor is found out before a machine is asked for.
    let mut only = config(&rig.proxy.url());
    only.image = only.image.replace("{machine}", "x86_64");
    let error = provider(only).create(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert_eq!(rig.asked("RunInstances"), 0);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_image_is_found_by_its_id_its_tag_or_its_parameter() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let stock = rig.moto.world().made["ImageId"].clone();
    let baked = rig.moto.ask(&[("Action", "CreateImage"), ("InstanceId", &created.id.0), ("Name", "baked")]).await;
    let baked = between(&baked, "<imageId>", "<").unwrap();
    let tag = [("Action", "CreateTags"), ("ResourceId.1", baked), ("Tag.1.Key", "stagely-base"), ("Tag.1.Value", "7")];
    rig.moto.ask(&tag).await;
    for (image, expected) in [(&*stock, &*stock), ("tag:stagely-base=7", baked)] {
        let mut other = config(&rig.proxy.url());
        other.image = image.to_owned();
        let request = CreateRequest { machine: MachineId::generate(), ..request.clone() };
        provider(other).create(&request).await.unwrap();
        assert_eq!(rig.moto.world().made["ImageId"], expected);
    }
    for image in ["/aws/service/debian/release/13/latest/{arch}", "tag:stagely-base=8", "ami-0123456789abcdef0"] {
        let mut other = config(&rig.proxy.url());
        other.image = image.to_owned();
        let error = provider(other).create(&request).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound), "{image}: {error}");
    }
}

/// What the installation's groups admit, as moto tells it.
async fn rules(rig: &Rig) -> String {
    let filter = [
        ("Action", "DescribeSecurityGroups"),
        ("Filter.1.Name", "tag-key"),
        ("Filter.1.Value.1", "stagely-installation"),
    ];
    let groups = rig.moto.ask(&filter).await;
    between(&groups, "<ipPermissions>", "</ipPermissions>").unwrap_or_default().to_owned()
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn only_the_edge_reaches_the_agents_port() {
    let rig = Rig::start().await;
    let (request, _) = rig.running().await;
    let admitted = rules(&rig).await;
    for part in ["<fromPort>7443<", "<toPort>7443<", "<cidrIp>198.51.100.7/32<", "<cidrIpv6>2001:db8:1::/64<"] {
        assert!(admitted.contains(part), "{part} in {admitted}");
    }
    assert_eq!(admitted.matches("<cidrIp").count(), 2);
    // Another edge, told to another process: the rules follow, and the group stays.
    let mut moved = config(&rig.proxy.url());
    moved.ingress_from = vec!["203.0.113.0/24".to_owned()];
    let next = CreateRequest { machine: MachineId::generate(), ..request.clone() };
    provider(moved).create(&next).await.unwrap();
    let admitted = rules(&rig).await;
    assert!(admitted.contains("203.0.113.0/24") && admitted.matches("<cidrIp").count() == 1, "{admitted}");
    assert_eq!(rig.asked("CreateSecurityGroup"), 1);
    let builder = CreateRequest { machine: MachineId::generate(), role: Role::Builder, ..request };
    rig.cloud.create(&builder).await.unwrap();
    assert_eq!(rig.asked("CreateSecurityGroup"), 2);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn rules_that_somebody_changed_come_back_and_a_changed_setting_reaches_machines_that_exist() {
    let rig = Rig::start().await;
    let (request, _) = rig.running().await;
    let good = rules(&rig).await;
    let changes = |rig: &Rig| rig.asked("AuthorizeSecurityGroupIngress") + rig.asked("RevokeSecurityGroupIngress");
    let before = changes(&rig);
    rig.cloud.protect(request.installation, 7443).await.unwrap();
    assert_eq!(changes(&rig), before, "a good one is left alone");
    let group = rig.cloud.list_residue(request.installation).await.unwrap().items.remove(0).id;
    let of = |action, cidr| {
        [
            ("Action", action),
            ("GroupId", &*group),
            ("IpPermissions.1.IpProtocol", "tcp"),
            ("IpPermissions.1.FromPort", "7443"),
            ("IpPermissions.1.ToPort", "7443"),
            ("IpPermissions.1.IpRanges.1.CidrIp", cidr),
        ]
    };
    rig.moto.ask(&of("AuthorizeSecurityGroupIngress", "0.0.0.0/0")).await;
    rig.moto.ask(&of("RevokeSecurityGroupIngress", "198.51.100.7/32")).await;
    let opened = rules(&rig).await;
    assert!(opened.contains("0.0.0.0/0") && !opened.contains("198.51.100.7/32"), "{opened}");
    rig.cloud.protect(request.installation, 7443).await.unwrap();
    let admitted = rules(&rig).await;
    assert!(admitted.contains("198.51.100.7/32") && admitted.contains("2001:db8:1::/64"), "{admitted}");
    assert_eq!(admitted.matches("<cidrIp").count(), good.matches("<cidrIp").count(), "{admitted}");
    let mut moved = config(&rig.proxy.url());
    moved.ingress_from = vec!["203.0.113.0/24".to_owned()];
    let moved = provider(moved);
    moved.protect(request.installation, 7443).await.unwrap();
    let admitted = rules(&rig).await;
    assert!(admitted.contains("203.0.113.0/24") && admitted.matches("<cidrIp").count() == 1, "{admitted}");
    // One that has no machine has no group, and is given none.
    moved.protect(InstallationId::generate(), 7443).await.unwrap();
    assert_eq!(rig.asked("CreateSecurityGroup"), 1);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_group_that_is_not_known_everywhere_yet_is_waited_for() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.moto.world().knobs.hidden_group = 5;
    rig.cloud.create(&request).await.unwrap();
    assert!(rules(&rig).await.contains("198.51.100.7/32"));
    // One that never appears is an error, and the next create finds it.
    let other = CreateRequest { machine: MachineId::generate(), installation: InstallationId::generate(), ..request };
    rig.moto.world().knobs.hidden_group = 1_000_000;
    assert_eq!(rig.cloud.create(&other).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_foreign_group_of_our_name_is_not_used() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let name = format!("stagely-{}-preview", request.installation.label());
    let vpcs = rig.moto.ask(&[("Action", "DescribeVpcs")]).await;
    let vpc = between(&vpcs, "<vpcId>", "<").unwrap();
    let make = [("Action", "CreateSecurityGroup"), ("GroupName", &*name), ("GroupDescription", "mine"), ("VpcId", vpc)];
    rig.moto.ask(&make).await;
    assert_eq!(rig.cloud.create(&request).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(rig.bill(request.machine).await, NOTHING);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_group_that_somebody_removed_is_made_anew() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    let groups = rig.cloud.list_residue(request.installation).await.unwrap().items;
    rig.moto.ask(&[("Action", "DeleteSecurityGroup"), ("GroupId", &groups[0].id)]).await;
    let next = CreateRequest { machine: MachineId::generate(), ..request };
    let first = rig.cloud.create(&next).await;
    assert!(first.is_err_and(|error| !error.ambiguous));
    rig.cloud.create(&next).await.unwrap();
    assert_eq!(rig.bill(next.machine).await, ONE_AWAKE);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn forty_creates_at_once_are_forty_machines_behind_one_firewall() {
    let rig = Rig::start().await;
    let first = rig.request().await;
    let requests: Vec<CreateRequest> =
        (0..40).map(|_| CreateRequest { machine: MachineId::generate(), ..first.clone() }).collect();
    let created = futures::future::join_all(requests.iter().map(|request| rig.cloud.create(request))).await;
    assert!(created.iter().all(Result::is_ok));
    let listing = rig.cloud.list(first.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (40, true));
    assert_eq!((rig.asked("CreateSecurityGroup"), rig.asked("RunInstances")), (1, 40));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn two_processes_that_are_asked_for_one_machine_make_one() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let other = Aws::new(config(&rig.proxy.url()), Arc::new(SystemClock)).unwrap();
    let one = rig.cloud.create(&request).await.unwrap();
    assert_eq!(other.create(&request).await.unwrap().id, one.id);
    assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
}

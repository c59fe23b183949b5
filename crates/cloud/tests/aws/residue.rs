//! What costs money without being a machine.

use std::collections::BTreeSet;

use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, Residue, ResidueKind};
use stagely_domain::id::{InstallationId, MachineId};

use super::Rig;
use super::proxy::between;
use crate::fault_proxy::Fault;

const PLANTED: [(&str, ResidueKind); 7] = [
    ("DescribeVolumes", ResidueKind::Volume),
    ("DescribeSnapshots", ResidueKind::Snapshot),
    ("DescribeImages", ResidueKind::Image),
    ("DescribeAddresses", ResidueKind::Address),
    ("DescribeNetworkInterfaces", ResidueKind::Interface),
    ("DescribeSecurityGroups", ResidueKind::Firewall),
    ("DescribeSpotInstanceRequests", ResidueKind::SpotRequest),
];

/// Makes one thing at moto, and tags it.
async fn make(rig: &Rig, tags: &[(&str, &str)], ask: &[(&str, &str)], start: &str) -> String {
    let answer = rig.moto.ask(ask).await;
    let id = between(&answer, start, "<").unwrap_or_else(|| panic!("{answer}")).to_owned();
    let numbered: Vec<(String, &str)> = (1..)
        .zip(tags)
        .flat_map(|(number, (key, value))| {
            [(format!("Tag.{number}.Key"), *key), (format!("Tag.{number}.Value"), *value)]
        })
        .collect();
    let mut ask = vec![("Action", "CreateTags"), ("ResourceId.1", &*id)];
    ask.extend(numbered.iter().map(|(name, value)| (&**name, *value)));
    rig.moto.ask(&ask).await;
    id
}

/// One of each kind.
async fn plant(rig: &Rig, tags: &[(&str, &str)], name: &str) {
    let volume = [("Action", "CreateVolume"), ("Size", "1"), ("AvailabilityZone", "eu-central-1a")];
    let volume = make(rig, tags, &volume, "<volumeId>").await;
    let snapshot = [("Action", "CreateSnapshot"), ("VolumeId", &*volume)];
    let snapshot = make(rig, tags, &snapshot, "<snapshotId>").await;
    let image = [
        ("Action", "RegisterImage"),
        ("Name", name),
        ("RootDeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", &*snapshot),
    ];
    make(rig, tags, &image, "<imageId>").await;
    make(rig, tags, &[("Action", "AllocateAddress"), ("Domain", "vpc")], "<allocationId>").await;
    let subnets = rig.moto.ask(&[("Action", "DescribeSubnets")]).await;
    let subnet = between(&subnets, "<subnetId>", "<").unwrap();
    let interface = [("Action", "CreateNetworkInterface"), ("SubnetId", subnet)];
    make(rig, tags, &interface, "<networkInterfaceId>").await;
    let group = [("Action", "CreateSecurityGroup"), ("GroupName", name), ("GroupDescription", "x")];
    make(rig, tags, &group, "<groupId>").await;
    let images = rig.moto.ask(&[("Action", "DescribeImages"), ("Owner.1", "amazon")]).await;
    let spot = [
        ("Action", "RequestSpotInstances"),
        ("SpotPrice", "0.1"),
        ("LaunchSpecification.ImageId", between(&images, "<imageId>", "<").unwrap()),
        ("LaunchSpecification.InstanceType", "t3.small"),
        ("LaunchSpecification.SubnetId", subnet),
    ];
    make(rig, tags, &spot, "<spotInstanceRequestId>").await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn every_billable_kind_is_found_and_can_be_removed() {
    let rig = Rig::start().await;
    let (installation, machine) = (InstallationId::generate(), MachineId::generate());
    let (ours, whose) = (installation.to_string(), machine.to_string());
    plant(&rig, &[("stagely-installation", &ours), ("stagely-machine", &whose)], "ours").await;
    let theirs = InstallationId::generate().to_string();
    plant(&rig, &[("stagely-installation", &theirs), ("stagely-machine", &whose)], "theirs").await;
    let held = [("stagely-installation", &*ours), ("stagely-hold", "please")];
    let volume = [("Action", "CreateVolume"), ("Size", "1"), ("AvailabilityZone", "eu-central-1a")];
    make(&rig, &held, &volume, "<volumeId>").await;

    let found = rig.cloud.list_residue(installation).await.unwrap();
    assert!(found.complete);
    let kinds: BTreeSet<ResidueKind> = found.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, PLANTED.iter().map(|(_, kind)| *kind).collect());
    for item in &found.items {
        let untold = matches!(item.kind, ResidueKind::Address | ResidueKind::Interface | ResidueKind::Firewall);
        assert_eq!(item.created_at.is_none(), untold, "{item:?}");
    }
    assert_eq!((found.items.len(), found.items.iter().filter(|item| item.hold).count()), (8, 1));
    // An image holds its snapshot, so it goes first, as the sweep finds out by asking again.
    let mut left: Vec<Residue> = found.items.into_iter().filter(|item| !item.hold).collect();
    assert!(left.iter().all(|item| item.machine == Some(machine)));
    for _ in 0..3 {
        let mut next = Vec::new();
        for item in left {
            if rig.cloud.delete_residue(&item).await.unwrap() != DeleteProgress::Gone {
                next.push(item);
            }
        }
        left = next;
    }
    assert_eq!(left, []);
    let kept = rig.cloud.list_residue(installation).await.unwrap().items;
    assert_eq!(kept.iter().map(|item| (item.kind, item.hold)).collect::<Vec<_>>(), [(ResidueKind::Volume, true)]);
    let others = rig.cloud.list_residue(theirs.parse().unwrap()).await.unwrap().items;
    assert_eq!(others.len(), 7, "{others:?}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_kind_that_cannot_be_listed_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let installation = InstallationId::generate();
    plant(&rig, &[("stagely-installation", &installation.to_string())], "ours").await;
    for (action, _) in PLANTED {
        let begin = format!("Action={action}&");
        rig.proxy.harm_when(move |seen| seen.body.starts_with(begin.as_bytes()), Fault::html(500));
        let found = rig.cloud.list_residue(installation).await.unwrap();
        for item in &found.items {
            let untold = matches!(item.kind, ResidueKind::Address | ResidueKind::Interface | ResidueKind::Firewall);
            assert_eq!(item.created_at.is_none(), untold, "{item:?}");
        }
        assert_eq!((found.items.len(), found.complete), (6, false), "{action}");
    }
    rig.proxy.harm_when(|_| true, Fault::html(500));
    assert_eq!(rig.cloud.list_residue(installation).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_firewall_in_use_stays_until_it_is_not() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let firewall = rig.cloud.list_residue(request.installation).await.unwrap().items.remove(0);
    assert_eq!(firewall.kind, ResidueKind::Firewall);
    assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::InProgress);
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    for _ in 0..2 {
        assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::Gone);
    }
    let next = stagely_cloud::CreateRequest { machine: MachineId::generate(), ..request };
    rig.cloud.create(&next).await.unwrap();
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn an_id_that_is_none_of_its_kind_is_never_sent() {
    let rig = Rig::start().await;
    for id in ["i-0123456789abcdef0", "vol-", "vol-1&Action=TerminateInstances", "snap-1", ""] {
        let residue = Residue {
            kind: ResidueKind::Volume,
            id: id.to_owned(),
            installation: InstallationId::generate(),
            machine: None,
            created_at: None,
            image: None,
            hold: false,
        };
        assert_eq!(rig.cloud.delete_residue(&residue).await.unwrap_err().kind, ErrorKind::Invalid, "{id}");
    }
    assert_eq!(rig.moto.world().actions, Vec::<String>::new());
}

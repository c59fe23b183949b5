//! Lists: every page, nobody else's machines, and what can be had.

use std::collections::BTreeMap;

use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};

use super::{Rig, config, provider};
use crate::fault_proxy::{Fault, Seen};

/// As many machines more, made past the provider: with the tags of `request` but its machine.
async fn plant(rig: &Rig, request: &CreateRequest, count: usize) {
    let made = rig.moto.world().made.clone();
    let (image, subnet) = (made["ImageId"].clone(), made["NetworkInterface.1.SubnetId"].clone());
    let count = count.to_string();
    let mut ask = vec![
        ("Action", "RunInstances"),
        ("ImageId", &*image),
        ("InstanceType", "t3.small"),
        ("SubnetId", &*subnet),
        ("MinCount", &*count),
        ("MaxCount", &*count),
        ("TagSpecification.1.ResourceType", "instance"),
    ];
    let (machine, installation) = (MachineId::generate().to_string(), request.installation.to_string());
    ask.extend([
        ("TagSpecification.1.Tag.1.Key", "stagely-machine"),
        ("TagSpecification.1.Tag.1.Value", &machine),
        ("TagSpecification.1.Tag.2.Key", "stagely-installation"),
        ("TagSpecification.1.Tag.2.Value", &installation),
        ("TagSpecification.1.Tag.3.Key", "stagely-expires"),
        ("TagSpecification.1.Tag.3.Value", "1800000000"),
        ("TagSpecification.1.Tag.4.Key", "stagely-port"),
        ("TagSpecification.1.Tag.4.Value", "7443"),
    ]);
    let answer = rig.moto.ask(&ask).await;
    assert!(answer.contains("RunInstancesResponse"), "{answer}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_list_longer_than_a_page_is_whole_or_an_error() {
    let rig = Rig::start().await;
    let (request, _) = rig.running().await;
    // A page there is a thousand reservations; each of these is one. One after the other: moto gives out addresses in a way
    // that two requests at a time can break.
    for _ in 0..1010 {
        plant(&rig, &request, 1).await;
    }
    rig.proxy.calm();
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (1011, true));
    assert_eq!(rig.proxy.seen().len(), 2);
    rig.proxy.harm_nth(2, Fault::html(502));
    assert_eq!(rig.cloud.list(request.installation).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn pages_that_turn_in_a_circle_end_in_an_error() {
    let rig = Rig::start().await;
    rig.cloud.catalogue().await.unwrap();
    let circle = |action: &'static str| {
        let body = format!("<{action}Response><nextToken>again</nextToken></{action}Response>");
        let begin = format!("Action={action}&");
        let fits = move |seen: &Seen| seen.body.starts_with(begin.as_bytes());
        rig.proxy.harm_when(fits, Fault::Answer { status: 200, headers: vec![], body });
    };
    circle("DescribeInstances");
    let error = rig.cloud.list(InstallationId::generate()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    for action in ["DescribeInstanceTypes", "DescribeInstanceTypeOfferings"] {
        circle(action);
        assert_eq!(rig.cloud.catalogue().await.err().map(|error| error.kind), Some(ErrorKind::Protocol), "{action}");
    }
    rig.proxy.calm();
    let (request, _) = rig.running().await;
    for action in ["DescribeVolumes", "DescribeSnapshots", "DescribeImages", "DescribeNetworkInterfaces"] {
        circle(action);
        assert!(!rig.cloud.list_residue(request.installation).await.unwrap().complete, "{action}");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_newer_state_and_unknown_fields_are_no_error() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let seen = rig.moto.ask(&[("Action", "DescribeInstances"), ("InstanceId.1", &created.id.0)]).await;
    let newer = seen
        .replace("<name>running</name></instanceState>", "<name>meditating</name><mood>calm</mood></instanceState>")
        .replace("<hypervisor>xen</hypervisor>", "<hypervisor>a-newer-one</hypervisor><extra><a/></extra>")
        .replace("<rootDeviceType>ebs</rootDeviceType>", "");
    assert!(newer.contains("meditating"));
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 200, headers: vec![], body: newer });
    let listing = rig.cloud.list(request.installation).await.unwrap();
    let expected = stagely_cloud::VmState::Other("meditating".to_owned());
    assert_eq!((listing.vms[0].state.clone(), listing.complete), (expected, true));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_whose_tags_were_damaged_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    let tag = [
        ("Action", "CreateTags"),
        ("ResourceId.1", &*created.id.0),
        ("Tag.1.Key", "stagely-expires"),
        ("Tag.1.Value", "soon"),
    ];
    rig.moto.ask(&tag).await;
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (0, false));
    let error = rig.cloud.find(request.machine).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.message.contains(&created.id.0), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_person_can_say_at_the_provider_that_a_machine_stays() {
    let rig = Rig::start().await;
    let (request, created) = rig.running().await;
    assert!(!rig.cloud.list(request.installation).await.unwrap().vms[0].hold);
    let id = &*created.id.0;
    let tag = [("Action", "CreateTags"), ("ResourceId.1", id), ("Tag.1.Key", "stagely-hold"), ("Tag.1.Value", "why")];
    rig.moto.ask(&tag).await;
    let vm = rig.cloud.list(request.installation).await.unwrap().vms.remove(0);
    assert!(vm.hold && vm.created_at.is_some());
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn two_installations_in_one_account_do_not_see_each_other() {
    let rig = Rig::start().await;
    let (one, _) = rig.running().await;
    let (other, _) = rig.running().await;
    let fresh = provider(config(&rig.proxy.url()));
    let counted = BTreeMap::from([&one, &other].map(|request| (request.installation, 1)));
    assert_eq!(rig.cloud.installations().await.unwrap(), counted);
    for request in [one, other] {
        for cloud in [&rig.cloud, &fresh] {
            let listing = cloud.list(request.installation).await.unwrap();
            assert_eq!(listing.vms.iter().map(|vm| vm.machine).collect::<Vec<_>>(), [request.machine]);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn the_catalogue_is_the_best_types_of_each_size_in_every_zone_with_a_subnet() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let find = |name: &str, zone: &str| all.iter().find(|one| (&*one.name, &*one.location) == (name, zone));
    let small = find("t3.small", "eu-central-1b").unwrap();
    assert_eq!((small.vcpus, small.memory_mib, small.arch), (2, 2048, Arch::Amd64));
    assert_eq!(find("t4g.medium", "eu-central-1a").unwrap().arch, Arch::Arm64);
    assert!(!all.iter().any(|one| one.name.contains("metal") || one.name.starts_with("mac")));
    assert!(all.is_sorted_by_key(|one| (&one.name, &one.location)));
    // No giants, and some choice of each size.
    assert!(all.iter().all(|one| one.vcpus <= 8 && one.memory_mib <= 32 * 1024));
    for (size, arch) in [(Size::Small, Arch::Amd64), (Size::Medium, Arch::Arm64), (Size::Large, Arch::Amd64)] {
        let mut names: Vec<&str> = candidates(&all, size, arch, &[]).iter().map(|one| &*one.name).collect();
        names.sort_unstable();
        names.dedup();
        assert!((8..=24).contains(&names.len()), "{names:?}");
    }
    let mut one = config(&rig.proxy.url());
    one.locations = vec!["eu-central-1b".to_owned()];
    let fewer = provider(one.clone()).catalogue().await.unwrap();
    assert!(!fewer.is_empty() && fewer.iter().all(|offering| offering.location == "eu-central-1b"));
    one.locations = vec!["eu-west-1".to_owned()];
    assert_eq!(provider(one).catalogue().await.unwrap_err().kind, ErrorKind::Invalid);
    // Any page that fails fails the whole.
    let pages = rig.asked("DescribeInstanceTypes");
    assert!(pages > 1);
    for nth in 1..=2 {
        rig.proxy.harm_nth(nth, Fault::html(500));
        let kind = rig.cloud.catalogue().await.err().map(|error| error.kind);
        assert_eq!(kind, Some(ErrorKind::Unavailable));
    }
}

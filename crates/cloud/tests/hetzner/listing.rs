//! Lists: every page, nobody else's machines, and what can be had.

use serde_json::json;
use stagely_cloud::catalogue::candidates;
use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::InstallationId;
use stagely_domain::machine::{Arch, Size};

use super::double::TOKEN;
use super::{NOTHING, Rig, config, connect};
use crate::ear::Ear;
use crate::fault_proxy::Fault;

#[tokio::test]
async fn pages_that_turn_in_a_circle_end_in_an_error() {
    let rig = Rig::start().await;
    let body = json!({"images": [], "servers": [], "meta": {"pagination": {"next_page": 1}}}).to_string();
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 200, headers: vec![], body });
    assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_list_that_does_not_add_up_is_an_error_and_never_short() {
    let rig = Rig::start().await;
    let page = |next: Option<u32>, total: u32| {
        let meta = json!({"pagination": {"next_page": next, "total_entries": total}});
        let body = json!({"images": [], "servers": [], "meta": meta}).to_string();
        Fault::Answer { status: 200, headers: vec![], body }
    };
    // More than was shown, and no more pages.
    rig.proxy.harm_when(|_| true, page(None, 3));
    assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Protocol);
    // One that changes between its pages may lack what moved: it is read again, and not for ever.
    rig.proxy.harm_when(|seen| seen.path.contains("page=1&"), page(Some(2), 1));
    rig.proxy.also_harm_when(|seen| seen.path.contains("page=2&"), page(None, 0));
    assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(rig.proxy.seen().len(), 6);
}

#[tokio::test]
async fn a_machine_whose_labels_were_damaged_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let (request, _) = rig.running("").await;
    for server in rig.double.world().accounts[0].machines.values_mut() {
        server.labels["stagely-expires"] = json!("soon");
    }
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (0, false));
}

#[tokio::test]
async fn a_machine_whose_labels_were_damaged_is_not_called_gone_awake_or_asleep() {
    for asleep in [false, true] {
        let (rig, ear) = (Rig::start().await, Ear::listen());
        let (request, created) = rig.running("").await;
        if asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        let damage = |label: &str, value: Option<&str>| {
            let mut world = rig.double.world();
            let project = &mut world.accounts[0];
            let images = project.images.values_mut().filter(|image| image.shown["type"] == "snapshot");
            let snapshots = images.map(|image| image.shown["labels"].as_object_mut().unwrap());
            let servers = project.machines.values_mut().map(|server| server.labels.as_object_mut().unwrap());
            for labels in servers.chain(snapshots) {
                match value {
                    Some(value) => labels.insert(label.to_owned(), json!(value)),
                    None => labels.remove(label),
                };
            }
        };
        let bill = rig.bill();
        for (label, good) in [("stagely-port", "7443"), ("stagely-installation", &*request.installation.to_string())] {
            damage(label, None);
            for refused in [
                rig.cloud.find(request.machine).await.map(drop),
                rig.cloud.delete(&created.id).await.map(drop),
                rig.cloud.hibernate(&created.id).await.map(drop),
                rig.cloud.wake(&created.id).await.map(drop),
            ] {
                let error = refused.unwrap_err();
                assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
                assert!(error.message.contains(label) && error.message.contains("put that back"), "{error}");
            }
            assert_eq!(rig.bill(), bill);
            if label == "stagely-port" {
                assert!(!rig.cloud.list(request.installation).await.unwrap().complete);
                assert!(ear.heard().contains("stagely-port was changed or removed"), "{}", ear.heard());
            }
            damage(label, Some(good));
        }
        assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), 1);
        delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

#[tokio::test]
async fn the_catalogue_has_prices_places_and_what_is_gone() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let find = |name: &str, location: &str| {
        all.iter().find(|offering| (&*offering.name, &*offering.location) == (name, location)).unwrap()
    };
    let small = find("cx23", "nbg1");
    assert_eq!((small.vcpus, small.memory_mib, small.arch, small.available), (2, 4096, Arch::Amd64, true));
    let price = small.price.clone().unwrap();
    assert_eq!((price.micros_per_hour, &*price.currency), (4810, "EUR"));
    assert!(!find("cx22", "fsn1").available, "it was withdrawn");
    assert_eq!(candidates(&all, Size::Large, Arch::Arm64, &[])[0].name, "cax21");
    assert!(!all.iter().any(|offering| offering.name.starts_with("cax") && offering.location == "hel1"));
    let mut here = config(&rig.double.url(), TOKEN);
    here.locations = vec!["hel1".to_owned()];
    let fewer = connect(here).catalogue().await.unwrap();
    assert!(!fewer.is_empty() && fewer.iter().all(|offering| offering.location == "hel1"));
}

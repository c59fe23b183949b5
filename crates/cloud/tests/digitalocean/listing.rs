//! Lists: every page, nobody else's machines, and what can be had.

use serde_json::json;
use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::InstallationId;
use stagely_domain::machine::{Arch, Size};

use super::double::TOKEN;
use super::{NOTHING, ONE_AWAKE, Rig, config, connect};
use crate::ear::Ear;
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_list_that_does_not_add_up_is_an_error_and_never_short() {
    let rig = Rig::start().await;
    let next = |page: &str| json!({"pages": {"next": format!("https://elsewhere.example/v2/images?{page}")}});
    for (links, total) in [
        // Pages that turn in a circle, go back, or are no pages.
        (next("page=1"), 0),
        (next("page=0"), 0),
        (next("cursor=x"), 0),
        // More than was shown, and no more pages.
        (json!({}), 3),
    ] {
        let body = json!({"images": [], "droplets": [], "links": links, "meta": {"total": total}}).to_string();
        rig.proxy.harm_when(|_| true, Fault::Answer { status: 200, headers: vec![], body });
        assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Protocol, "{links}");
    }
    // One that changes between its pages may lack what moved: it is read again, and not for ever.
    let page = |next: bool, total: u32| {
        let links = if next { json!({"pages": {"next": "https://x/?page=2"}}) } else { json!({}) };
        let body = json!({"images": [], "links": links, "meta": {"total": total}}).to_string();
        Fault::Answer { status: 200, headers: vec![], body }
    };
    rig.proxy.harm_when(|seen| seen.path.contains("page=1"), page(true, 0));
    rig.proxy.also_harm_when(|seen| seen.path.contains("page=2"), page(false, 1));
    assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(rig.proxy.seen().len(), 6);
}

#[tokio::test]
async fn a_machine_whose_tags_were_damaged_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let (request, _) = rig.running("").await;
    for droplet in rig.double.world().accounts[0].machines.values_mut() {
        droplet.tags.retain(|tag| !tag.starts_with("stagely-expires"));
    }
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (0, false));
}

#[tokio::test]
async fn a_machine_whose_tags_were_damaged_is_not_called_gone() {
    for unlisted in [false, true] {
        let (rig, ear) = (Rig::start().await, Ear::listen());
        let (request, created) = rig.running("").await;
        let mut kept = Vec::new();
        for droplet in rig.double.world().accounts[0].machines.values_mut() {
            kept = droplet.tags.clone();
            droplet.tags.retain(|tag| !tag.starts_with("stagely-port"));
        }
        let mut outcomes = Vec::new();
        if !unlisted {
            assert!(!rig.cloud.list(request.installation).await.unwrap().complete);
            assert!(ear.heard().contains("stagely-port was changed or removed"), "{}", ear.heard());
            outcomes.push(rig.cloud.find(request.machine).await.map(drop));
            outcomes.push(rig.cloud.hibernate(&created.id).await.map(drop));
            outcomes.push(rig.cloud.wake(&created.id).await.map(drop));
        }
        // A young one that no list shows is asked for by its number.
        rig.double.world().knobs.unlisted = unlisted;
        outcomes.push(rig.cloud.delete(&created.id).await.map(drop));
        for refused in outcomes {
            let error = refused.unwrap_err();
            assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
            assert!(error.message.contains("droplet") && error.message.contains("stagely-port"), "{error}");
        }
        assert_eq!(rig.bill(), ONE_AWAKE);
        rig.double.world().knobs.unlisted = false;
        for droplet in rig.double.world().accounts[0].machines.values_mut() {
            droplet.tags.clone_from(&kept);
        }
        stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
        assert_eq!(rig.bill(), NOTHING);
    }
}

#[tokio::test]
async fn what_a_person_holds_is_shown_as_held_awake_and_asleep() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let hold = || "stagely-hold".to_owned();
    let shown = async || rig.cloud.list(request.installation).await.unwrap().vms.remove(0);
    assert!(!shown().await.hold);
    for droplet in rig.double.world().accounts[0].machines.values_mut() {
        droplet.tags.push(hold());
    }
    let awake = shown().await;
    assert!(awake.hold && awake.created_at.is_some());
    stagely_cloud::contract::put_to_sleep(&rig.cloud, &created.id).await;
    for image in rig.double.world().accounts[0].images.values_mut().filter(|image| image.droplet != 0) {
        image.shown["tags"].as_array_mut().unwrap().push(hold().into());
    }
    let asleep = shown().await;
    assert!(asleep.hold && asleep.created_at.is_some());
}

#[tokio::test]
async fn the_catalogue_has_prices_places_and_what_is_gone() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let find = |name: &str, location: &str| {
        all.iter().find(|offering| (&*offering.name, &*offering.location) == (name, location)).unwrap()
    };
    let small = find("s-1vcpu-2gb", "fra1");
    assert_eq!((small.vcpus, small.memory_mib, small.arch, small.available), (1, 2048, Arch::Amd64, true));
    let price = small.price.clone().unwrap();
    assert_eq!((price.micros_per_hour, &*price.currency), (17_860, "USD"));
    assert!(!find("c-2-retired", "fra1").available, "it was withdrawn");
    assert!(!find("s-1vcpu-2gb", "tor1").available, "the region is closed");
    assert_eq!(candidates(&all, Size::Medium, Arch::Amd64, &[])[0].name, "s-2vcpu-4gb");
    assert!(candidates(&all, Size::Small, Arch::Arm64, &[]).is_empty());
    assert!(!all.iter().any(|offering| offering.name.starts_with("gpu")));
    let mut here = config(&rig.double.url(), TOKEN);
    here.locations = vec!["nyc3".to_owned()];
    let fewer = connect(here).catalogue().await.unwrap();
    assert!(!fewer.is_empty() && fewer.iter().all(|offering| offering.location == "nyc3"));
}

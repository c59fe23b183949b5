//! What costs money without being a machine.

use std::collections::BTreeSet;

use stagely_cloud::contract::delete;
use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, ResidueKind};
use stagely_domain::id::{InstallationId, MachineId};

use super::{NOTHING, ONE_ASLEEP, Rig};
use crate::fault_proxy::Fault;

/// Where each is planted, under what id, and what asks for it. The firewall is there by itself.
const PLANTED: [(&str, &str, &str, ResidueKind); 6] = [
    ("volumes", "506f78a4-e098-11e5-ad9f-000f53306ae1", "/volumes?", ResidueKind::Volume),
    ("images", "7", "/images?", ResidueKind::Snapshot),
    ("volume_snapshots", "fbe805e8-866b-11e6-96bf-000f53315a41", "/snapshots?", ResidueKind::Snapshot),
    ("reserved_ips", "198.51.100.99", "/reserved_ips?", ResidueKind::Address),
    ("keys", "512189", "/account/keys?", ResidueKind::Key),
    ("firewalls", "", "/firewalls?", ResidueKind::Firewall),
];

async fn plant(rig: &Rig) -> (InstallationId, MachineId) {
    let (request, created) = rig.running("").await;
    delete(&rig.cloud, &created.id).await;
    let mut tags = vec![
        format!("stagely-{}", request.installation.label()),
        format!("stagely-installation:{}", request.installation),
        format!("stagely-machine:{}", request.machine),
    ];
    let foreign = [format!("stagely-installation:{}", InstallationId::generate())];
    for (number, (kind, id, _, _)) in (1000..).zip(PLANTED).filter(|(_, planted)| !planted.1.is_empty()) {
        rig.double.world().accounts[0].plant(kind, id, &tags);
        rig.double.world().accounts[0].plant(kind, &number.to_string(), &foreign);
    }
    tags.push("stagely-hold:ada".to_owned());
    rig.double.world().accounts[0].plant("volumes", "held", &tags);
    (request.installation, request.machine)
}

#[tokio::test]
async fn every_billable_kind_is_found_and_can_be_removed() {
    let rig = Rig::start().await;
    let (installation, machine) = plant(&rig).await;
    let found = rig.cloud.list_residue(installation).await.unwrap();
    assert!(found.complete);
    assert_eq!(found.items.len(), PLANTED.len() + 1, "{found:#?}");
    let kinds: BTreeSet<ResidueKind> = found.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, PLANTED.iter().map(|(_, _, _, kind)| *kind).collect());
    assert_eq!(found.items.iter().filter(|item| item.hold).count(), 1);
    for item in found.items.iter().filter(|item| !item.hold) {
        // Keys and firewalls belong to no machine.
        let shared = matches!(item.kind, ResidueKind::Key | ResidueKind::Firewall);
        assert_eq!(item.machine, (!shared).then_some(machine), "{item:?}");
        for _ in 0..2 {
            assert_eq!(rig.cloud.delete_residue(item).await.unwrap(), DeleteProgress::Gone);
        }
    }
    assert_eq!(rig.cloud.list_residue(installation).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let (installation, _) = plant(&rig).await;
    for (_, _, path, _) in PLANTED {
        rig.proxy.harm_when(move |seen| seen.path.contains(path), Fault::html(500));
        let found = rig.cloud.list_residue(installation).await.unwrap();
        assert!(!found.complete && found.items.len() >= 5, "{path}: {found:#?}");
    }
    rig.proxy.harm_when(|_| true, Fault::html(500));
    assert_eq!(rig.cloud.list_residue(installation).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_snapshot_without_tags_whose_droplet_a_person_removed_is_residue_and_goes_with_its_machine() {
    for with_machine in [false, true] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("").await;
        rig.proxy.harm_when(|seen| seen.path.contains("/resources"), Fault::ResetBefore);
        while rig.cloud.hibernate(&created.id).await.is_ok() {}
        rig.proxy.calm();
        rig.double.world().accounts[0].machines.clear();
        assert_eq!(rig.bill(), ONE_ASLEEP);
        assert_eq!(rig.cloud.list(request.installation).await.unwrap().vms, []);
        let residues = rig.cloud.list_residue(request.installation).await.unwrap().items;
        let spare = residues.iter().find(|item| item.kind == ResidueKind::Snapshot).unwrap();
        assert_eq!(spare.machine, Some(request.machine));
        if with_machine {
            delete(&rig.cloud, &created.id).await;
        } else {
            assert_eq!(rig.cloud.delete_residue(spare).await.unwrap(), DeleteProgress::Gone);
        }
        assert_eq!(rig.bill(), NOTHING);
    }
}

#[tokio::test]
async fn a_firewall_stays_as_long_as_machines_are_behind_it() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let firewall = rig.cloud.list_residue(request.installation).await.unwrap().items.remove(0);
    assert_eq!(firewall.kind, ResidueKind::Firewall);
    assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::InProgress);
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::Gone);
    // The next machine is behind a new one.
    rig.cloud.create(&request).await.unwrap();
    assert_eq!(rig.asked("POST /v2/firewalls"), 2);
}

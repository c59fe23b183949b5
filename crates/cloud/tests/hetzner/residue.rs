//! What costs money without being a machine.

use std::collections::BTreeSet;

use serde_json::json;
use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, ResidueKind};
use stagely_domain::id::{InstallationId, MachineId};

use super::Rig;
use crate::fault_proxy::Fault;

const PLANTED: [(&str, ResidueKind); 6] = [
    ("volumes", ResidueKind::Volume),
    ("images", ResidueKind::Snapshot),
    ("primary_ips", ResidueKind::Address),
    ("floating_ips", ResidueKind::Address),
    ("ssh_keys", ResidueKind::Key),
    ("firewalls", ResidueKind::Firewall),
];

fn plant(rig: &Rig, installation: InstallationId, machine: MachineId) {
    let labels = json!({"stagely-installation": installation.to_string(), "stagely-machine": machine.to_string()});
    for (number, (kind, _)) in (1..).zip(PLANTED) {
        rig.double.world().accounts[0].plant(kind, number, labels.clone());
    }
}

#[tokio::test]
async fn every_billable_kind_is_found_and_can_be_removed() {
    let rig = Rig::start().await;
    let (installation, machine) = (InstallationId::generate(), MachineId::generate());
    plant(&rig, installation, machine);
    plant(&rig, InstallationId::generate(), machine);
    plant(&rig, installation, machine);
    let held = json!({"stagely-installation": installation.to_string(), "stagely-hold": "please"});
    rig.double.world().accounts[0].plant("volumes", 77, held);
    let found = rig.cloud.list_residue(installation).await.unwrap();
    assert!(found.complete);
    let kinds: BTreeSet<ResidueKind> = found.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, PLANTED.iter().map(|(_, kind)| *kind).collect());
    assert_eq!(found.items.iter().filter(|item| item.hold).count(), 1);
    for item in found.items.iter().filter(|item| !item.hold) {
        assert_eq!(item.machine, Some(machine));
        for _ in 0..2 {
            assert_eq!(rig.cloud.delete_residue(item).await.unwrap(), DeleteProgress::Gone);
        }
    }
    assert_eq!(rig.cloud.list_residue(installation).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_makes_the_list_incomplete() {
    let rig = Rig::start().await;
    let installation = InstallationId::generate();
    plant(&rig, installation, MachineId::generate());
    for (kind, _) in PLANTED {
        rig.proxy.harm_when(move |seen| seen.path.contains(kind), Fault::html(500));
        let found = rig.cloud.list_residue(installation).await.unwrap();
        assert_eq!((found.items.len(), found.complete), (5, false), "{kind}");
    }
    rig.proxy.harm_when(|_| true, Fault::html(500));
    assert_eq!(rig.cloud.list_residue(installation).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_firewall_in_use_stays_until_it_is_not() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let firewall = rig.cloud.list_residue(request.installation).await.unwrap().items.remove(0);
    assert_eq!(firewall.kind, ResidueKind::Firewall);
    assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::InProgress);
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.cloud.delete_residue(&firewall).await.unwrap(), DeleteProgress::Gone);
}

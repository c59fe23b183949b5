//! Making machines: adopted, refused, placed or not, and behind a firewall.

use serde_json::json;
use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, VmState};
use stagely_domain::id::MachineId;
use stagely_domain::machine::{Arch, Size};

use super::double::TOKEN;
use super::{NOTHING, ONE_AWAKE, Rig, config, connect};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_create_does_not_wait_for_the_boot_and_is_known_at_once() {
    let rig = Rig::start().await;
    rig.double.world().knobs.looks = 1_000_000;
    let request = rig.request().await;
    let created = rig.cloud.create(&request).await.unwrap();
    let vm = rig.cloud.find(request.machine).await.unwrap().remove(0);
    assert_eq!((vm.state, vm.id, vm.expires_at), (VmState::Pending, created.id, request.expires_at));
    assert_eq!(vm.environment, request.environment);
    assert_eq!(created.address, vm.address);
    assert!(vm.address.is_some_and(|address| address.ends_with(":7443")));
}

#[tokio::test]
async fn a_machine_that_is_made_first_and_started_then_is_not_shown_as_stopped() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.double.world().knobs.looks = 3;
    rig.cloud.create(&request).await.unwrap();
    assert_eq!(rig.cloud.find(request.machine).await.unwrap()[0].state, VmState::Running);
}

#[tokio::test]
async fn a_foreign_machine_with_our_name_is_neither_adopted_nor_deleted_nor_called_gone() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    for server in rig.double.world().accounts[0].machines.values_mut() {
        server.labels = json!({"owner": "somebody"});
    }
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Exists, false));
    assert_eq!(rig.cloud.delete(&created.id).await.unwrap_err().kind, ErrorKind::Permission);
    assert_eq!(rig.bill(), ONE_AWAKE);
}

#[tokio::test]
async fn what_is_not_understood_is_adopted_and_not_made_twice() {
    for fault in [Fault::Garble, Fault::Truncate, Fault::LoseAnswer] {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.proxy.harm_when(|seen| seen.method == "POST" && seen.path == "/v1/servers", fault);
        let created = rig.cloud.create(&request).await.unwrap();
        assert_eq!(created.id.0, request.machine.label());
        assert_eq!((rig.bill(), rig.proxy.calm()), (ONE_AWAKE, 1));
    }
}

#[tokio::test]
async fn a_machine_that_is_accepted_and_then_not_placed_leaves_nothing() {
    for vanishes in [true, false] {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.double.world().knobs.fail_placing = [("resource_unavailable", vanishes)].into();
        let error = rig.cloud.create(&request).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Capacity, false), "{error}");
        assert_eq!(rig.bill(), NOTHING);
        rig.cloud.create(&request).await.unwrap();
        assert_eq!(rig.bill(), ONE_AWAKE);
    }
}

#[tokio::test]
async fn each_processor_gets_its_image_and_a_mismatch_is_refused_unasked() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let arm = candidates(&all, Size::Medium, Arch::Arm64, &[])[0].clone();
    assert_eq!(arm.name, "cax11");
    let request = CreateRequest { arch: Arch::Arm64, offering: Some(arm), ..rig.request().await };
    rig.cloud.create(&request).await.unwrap();
    rig.double.world().requests.clear();
    for offering in [None, request.offering.clone()] {
        let wrong = CreateRequest { arch: Arch::Amd64, offering, ..request.clone() };
        assert_eq!(rig.cloud.create(&wrong).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(rig.asked(""), 0);
}

#[tokio::test]
async fn a_machine_admits_the_edge_alone_and_a_moved_edge_is_followed() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.cloud.create(&request).await.unwrap();
    let rules = |rig: &Rig| {
        let world = rig.double.world();
        let project = &world.accounts[0];
        let firewalls: Vec<_> = project.things.iter().filter(|((kind, _), _)| *kind == "firewalls").collect();
        assert_eq!(firewalls.len(), 1);
        let ((_, id), shown) = firewalls[0];
        assert!(project.machines.values().all(|server| server.firewalls.contains(id)));
        shown["rules"].clone()
    };
    let found = rules(&rig);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["direction"], "in");
    assert_eq!(found[0]["port"], "7443");
    assert_eq!(found[0]["source_ips"], json!(["198.51.100.7/32", "2001:db8:1::/64"]));
    let mut moved = config(&rig.double.url(), TOKEN);
    moved.ingress_from = vec!["192.0.2.1/32".to_owned()];
    let moved = connect(moved);
    moved.create(&CreateRequest { machine: MachineId::generate(), ..request }).await.unwrap();
    assert_eq!(rules(&rig)[0]["source_ips"], json!(["192.0.2.1/32"]));
}

#[tokio::test]
async fn a_firewall_that_somebody_removed_is_made_again() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    stagely_cloud::contract::delete(&rig.cloud, &created.id).await;
    rig.double.world().accounts[0].things.clear();
    assert!(rig.cloud.create(&request).await.is_err());
    rig.cloud.create(&request).await.unwrap();
    assert_eq!(rig.asked("POST /v1/firewalls"), 2);
}

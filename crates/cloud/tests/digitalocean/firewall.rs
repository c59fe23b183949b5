//! The firewall that stands before every machine.

use serde_json::{Value, json};
use stagely_cloud::{Cloud, CreateRequest};
use stagely_domain::id::{InstallationId, MachineId};

use super::double::TOKEN;
use super::{Rig, config, connect, provider};

/// The one that there is.
fn firewall(rig: &Rig) -> Value {
    let mut found = rig.double.world().accounts[0].things("firewalls");
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn another(request: &CreateRequest) -> CreateRequest {
    CreateRequest { machine: MachineId::generate(), ..request.clone() }
}

#[tokio::test]
async fn a_machine_admits_the_edge_alone_and_a_moved_edge_is_followed() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.cloud.create(&request).await.unwrap();
    let found = firewall(&rig);
    assert_eq!(found["tags"], json!([format!("stagely-installation:{}", request.installation)]));
    let sources = json!({"addresses": ["198.51.100.7/32", "2001:db8:1::/64"]});
    assert_eq!(found["inbound_rules"], json!([{"protocol": "tcp", "ports": "7443", "sources": sources}]));
    assert_eq!(found["outbound_rules"].as_array().unwrap().len(), 3, "what is not let out stays in");
    for (from, rules) in [(vec!["192.0.2.1/32".to_owned()], 1), (Vec::new(), 0)] {
        let mut moved = config(&rig.double.url(), TOKEN);
        moved.ingress_from.clone_from(&from);
        let moved = connect(moved);
        moved.create(&another(&request)).await.unwrap();
        let inbound = firewall(&rig)["inbound_rules"].as_array().unwrap().clone();
        assert_eq!(inbound.len(), rules);
        assert!(inbound.iter().all(|rule| rule["sources"]["addresses"] == json!(from)));
    }
}

#[tokio::test]
async fn one_that_somebody_opened_is_corrected_and_a_good_one_is_left_alone() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.cloud.create(&request).await.unwrap();
    provider(&rig.double.url(), TOKEN).create(&another(&request)).await.unwrap();
    assert_eq!(rig.asked("PUT"), 0);
    for (puts, opened) in (1..).zip([
        json!({"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}}),
        json!({"protocol": "tcp", "ports": "7443", "sources": {"tags": ["everybody"]}}),
    ]) {
        for shown in rig.double.world().accounts[0].things.values_mut() {
            shown["inbound_rules"].as_array_mut().unwrap().push(opened.clone());
        }
        provider(&rig.double.url(), TOKEN).create(&another(&request)).await.unwrap();
        assert_eq!((rig.asked("PUT"), firewall(&rig)["inbound_rules"].as_array().unwrap().len()), (puts, 1));
    }
    // What is gone is made again by whoever does not remember it.
    rig.double.world().accounts[0].things.clear();
    provider(&rig.double.url(), TOKEN).create(&another(&request)).await.unwrap();
    let _ = firewall(&rig);
}

#[tokio::test]
async fn rules_that_somebody_changed_come_back_and_a_changed_setting_reaches_machines_that_exist() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.cloud.create(&request).await.unwrap();
    let good = firewall(&rig)["inbound_rules"].clone();
    rig.cloud.protect(request.installation, 7443).await.unwrap();
    assert_eq!((rig.asked("PUT"), &firewall(&rig)["inbound_rules"]), (0, &good), "a good one is left alone");
    for changed in [json!([]), json!([{"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}}])] {
        for shown in rig.double.world().accounts[0].things.values_mut() {
            shown["inbound_rules"] = changed.clone();
        }
        rig.cloud.protect(request.installation, 7443).await.unwrap();
        assert_eq!(firewall(&rig)["inbound_rules"], good);
    }
    let mut moved = config(&rig.double.url(), TOKEN);
    moved.ingress_from = vec!["192.0.2.1/32".to_owned()];
    let moved = connect(moved);
    moved.protect(request.installation, 7443).await.unwrap();
    let sources = json!({"addresses": ["192.0.2.1/32"]});
    let found = firewall(&rig)["inbound_rules"].clone();
    assert_eq!(found, json!([{"protocol": "tcp", "ports": "7443", "sources": sources}]));
    // One that has no machine has no firewall, and is given none.
    moved.protect(InstallationId::generate(), 7443).await.unwrap();
    assert_eq!((rig.asked("PUT"), rig.asked("POST /v2/firewalls")), (3, 1));
}

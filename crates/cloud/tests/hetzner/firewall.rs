//! The firewall of machines that exist.

use serde_json::{Value, json};
use stagely_cloud::Cloud;
use stagely_domain::id::InstallationId;

use super::double::TOKEN;
use super::{Rig, config, connect};

/// Rules of the one that there is.
fn rules(rig: &Rig) -> Vec<Value> {
    let found = rig.double.world().accounts[0].things("firewalls").ok().unwrap();
    assert_eq!(found.len(), 1);
    found[0]["rules"].as_array().unwrap().clone()
}

#[tokio::test]
async fn rules_that_somebody_changed_come_back_and_a_changed_setting_reaches_machines_that_exist() {
    let rig = Rig::start().await;
    let (request, _) = rig.running("").await;
    let good = rules(&rig);
    rig.cloud.protect(request.installation, 7443).await.unwrap();
    assert_eq!((rules(&rig), rig.asked("POST /v1/firewalls/")), (good.clone(), 0), "a good one is left alone");
    for changed in
        [json!([]), json!([{"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0"]}])]
    {
        for shown in rig.double.world().accounts[0].things.values_mut().filter(|shown| shown.get("rules").is_some()) {
            shown["rules"] = changed.clone();
        }
        rig.cloud.protect(request.installation, 7443).await.unwrap();
        assert_eq!(rules(&rig), good);
    }
    let mut moved = config(&rig.double.url(), TOKEN);
    moved.ingress_from = vec!["192.0.2.1/32".to_owned()];
    let moved = connect(moved);
    moved.protect(request.installation, 7443).await.unwrap();
    let found = rules(&rig);
    assert_eq!(
        (found.len(), &found[0]["source_ips"], &found[0]["port"]),
        (1, &json!(["192.0.2.1/32"]), &json!("7443"))
    );
    // One that has no machine has no firewall, and is given none.
    moved.protect(InstallationId::generate(), 7443).await.unwrap();
    assert_eq!((rules(&rig), rig.asked("POST /v1/firewalls")), (found, 1 + 3));
}

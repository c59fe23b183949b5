//! Machines that lost what they are looked for by, and answers that say nothing of a machine: neither is gone. And by whose
//! clock an end is told.

use chrono::TimeDelta;
use serde_json::json;
use stagely_cloud::Cloud;
use stagely_cloud::contract::delete;
use stagely_domain::id::{InstallationId, MachineId};

use super::rest::lost::is_told_of_its_loss;
use super::{NOTHING, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_machine_that_lost_its_own_label_is_found_by_its_name_and_not_called_gone() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let label = |value: Option<String>| {
        for server in rig.double.world().accounts[0].machines.values_mut() {
            let labels = server.labels.as_object_mut().unwrap();
            match &value {
                Some(value) => labels.insert("stagely-machine".to_owned(), json!(value)),
                None => labels.remove("stagely-machine"),
            };
        }
    };
    for changed in [None, Some(MachineId::generate().to_string()), Some("mine".to_owned())] {
        label(changed);
        is_told_of_its_loss(&rig, request.machine, &created.id).await;
        assert_eq!(rig.bill(), ONE_AWAKE);
    }
    label(Some(request.machine.to_string()));
    assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), 1);
    delete(&rig.cloud, &created.id).await;
    assert_eq!((rig.bill(), rig.cloud.find_removed(request.machine).await.unwrap()), (NOTHING, vec![]));
}

#[tokio::test]
async fn the_providers_clock_is_known_by_its_last_answer() {
    let rig = Rig::start().await;
    assert_eq!(rig.cloud.clock_ahead(), None);
    rig.cloud.list(InstallationId::generate()).await.unwrap();
    assert!(rig.cloud.clock_ahead().is_some_and(|ahead| ahead.abs() < TimeDelta::minutes(1)));
    let headers = vec![("date", "Tue, 01 Jan 2019 00:00:00 GMT".to_owned())];
    rig.proxy.harm_when(|_| true, Fault::Answer { status: 503, headers, body: String::new() });
    assert!(rig.cloud.list(InstallationId::generate()).await.is_err());
    assert!(rig.cloud.clock_ahead().is_some_and(|ahead| ahead > TimeDelta::days(365)));
}

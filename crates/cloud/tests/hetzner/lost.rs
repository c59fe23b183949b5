//! Machines that lost what they are looked for by, and answers that say nothing of a machine: neither is gone.

use serde_json::json;
use stagely_cloud::contract::delete;
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::MachineId;

use super::{NOTHING, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_machine_that_lost_its_own_label_is_found_by_its_name_and_not_called_gone() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    let label = |value: Option<String>| {
        for server in rig.double.world().projects[0].servers.values_mut() {
            let labels = server.labels.as_object_mut().unwrap();
            match &value {
                Some(value) => labels.insert("stagely-machine".to_owned(), json!(value)),
                None => labels.remove("stagely-machine"),
            };
        }
    };
    for changed in [None, Some(MachineId::generate().to_string()), Some("mine".to_owned())] {
        label(changed);
        for refused in [
            rig.cloud.find(request.machine).await.map(drop),
            rig.cloud.find_to_remove(request.machine).await.map(drop),
            rig.cloud.delete(&created.id).await.map(drop),
            rig.cloud.find_removed(request.machine).await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
            assert!(error.message.contains("and stagely-machine was changed or removed"), "{error}");
        }
        assert_eq!(rig.bill(), ONE_AWAKE);
    }
    label(Some(request.machine.to_string()));
    assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), 1);
    delete(&rig.cloud, &created.id).await;
    assert_eq!((rig.bill(), rig.cloud.find_removed(request.machine).await.unwrap()), (NOTHING, vec![]));
}

#[tokio::test]
async fn a_gateways_404_is_no_proof_that_a_machine_is_gone() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("").await;
    rig.proxy.harm_when(|seen| seen.method == "DELETE", Fault::html(404));
    let error = rig.cloud.delete(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    assert_eq!((rig.proxy.calm(), rig.bill()), (1, ONE_AWAKE));
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

//! Machines that lost what they are looked for by, and answers that say nothing of a machine: neither is gone.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::MachineId;

use super::{NOTHING, ONE_AWAKE, Rig};
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_machine_that_lost_its_own_tag_is_found_by_name_or_number_and_not_called_gone() {
    // One that woke has another number than the one in its id.
    for woken in [false, true] {
        let rig = Rig::start().await;
        let (request, created) = rig.running("").await;
        if woken {
            put_to_sleep(&rig.cloud, &created.id).await;
            rig.cloud.wake(&created.id).await.unwrap();
        }
        let tag = |value: Option<String>| {
            for droplet in rig.double.world().teams[0].droplets.values_mut() {
                droplet.tags.retain(|tag| !tag.starts_with("stagely-machine"));
                droplet.tags.extend(value.iter().map(|value| format!("stagely-machine:{value}")));
            }
        };
        for changed in [None, Some(MachineId::generate().to_string())] {
            tag(changed);
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
            // A young one is in no list.
            rig.double.world().knobs.unlisted = true;
            if !woken {
                assert_eq!(rig.cloud.delete(&created.id).await.unwrap_err().kind, ErrorKind::Permission);
            }
            rig.double.world().knobs.unlisted = false;
            assert_eq!(rig.bill(), ONE_AWAKE);
        }
        tag(Some(request.machine.to_string()));
        assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), 1);
        delete(&rig.cloud, &created.id).await;
        assert_eq!((rig.bill(), rig.cloud.find_removed(request.machine).await.unwrap()), (NOTHING, vec![]));
    }
}

#[tokio::test]
async fn a_gateways_404_is_no_proof_that_a_machine_is_gone() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("").await;
    rig.proxy.harm_when(|seen| seen.path.starts_with("/v2/droplets/"), Fault::html(404));
    let error = rig.cloud.delete(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    assert_eq!((rig.proxy.calm(), rig.bill()), (1, ONE_AWAKE));
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

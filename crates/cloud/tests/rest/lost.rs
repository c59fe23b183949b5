//! Machines that lost what they are looked for by, and answers that say nothing of a machine: neither is gone.

use stagely_cloud::contract::delete;
use stagely_cloud::{Cloud, ErrorKind, ProviderId};
use stagely_domain::id::MachineId;

use super::{ONE_AWAKE, Rig};
use crate::double::NOTHING;
use crate::fault_proxy::Fault;

/// Whoever looks for the machine or deletes it is told that it lost what says which it is.
pub async fn is_told_of_its_loss(rig: &Rig, machine: MachineId, id: &ProviderId) {
    for refused in [
        rig.cloud.find(machine).await.map(drop),
        rig.cloud.find_to_remove(machine).await.map(drop),
        rig.cloud.delete(id).await.map(drop),
        rig.cloud.find_removed(machine).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (ErrorKind::Permission, false), "{error}");
        assert!(error.message.contains("and stagely-machine was changed or removed"), "{error}");
    }
}

#[tokio::test]
async fn a_gateways_404_is_no_proof_that_a_machine_is_gone() {
    let rig = Rig::start().await;
    let (_, created) = rig.running("").await;
    let of_one = format!("{}/", Rig::MACHINES);
    rig.proxy.harm_when(move |seen| seen.path.starts_with(&of_one), Fault::html(404));
    let error = rig.cloud.delete(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    assert_eq!((rig.proxy.calm(), rig.bill()), (1, ONE_AWAKE));
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}

//! What costs money without being a machine.

use stagely_cloud::contract::put_to_sleep;
use stagely_cloud::{Cloud, DeleteProgress, ErrorKind, Residue, ResidueKind};
use stagely_domain::id::InstallationId;

use super::{ONE_AWAKE, Rig};
use crate::double::ONE_ASLEEP;
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_sleeping_machine_is_no_residue_and_its_spare_snapshot_is() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    put_to_sleep(&rig.cloud, &created.id).await;
    let residues = rig.cloud.list_residue(request.installation).await.unwrap().items;
    assert_eq!(residues.iter().map(|item| item.kind).collect::<Vec<_>>(), [ResidueKind::Firewall]);
    // A wake that ends before it has removed the snapshot.
    rig.proxy.harm_when(|seen| seen.method == "DELETE", Fault::ResetBefore);
    assert!(rig.cloud.wake(&created.id).await.is_err());
    rig.proxy.calm();
    rig.settle(&request).await;
    let residues = rig.cloud.list_residue(request.installation).await.unwrap().items;
    let spare: Vec<&Residue> = residues.iter().filter(|item| item.kind == ResidueKind::Snapshot).collect();
    assert_eq!((spare.len(), spare[0].machine), (1, Some(request.machine)));
    assert_eq!(rig.cloud.delete_residue(spare[0]).await.unwrap(), DeleteProgress::Gone);
    assert_eq!(rig.bill(), ONE_AWAKE);
    put_to_sleep(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), ONE_ASLEEP);
}

#[tokio::test]
async fn an_id_that_is_none_of_ours_is_never_sent() {
    let rig = Rig::start().await;
    let of_machines = ["servers/1", "droplets/1", "volumes/../servers/1", "volumes/../droplets/1"];
    for id in of_machines.into_iter().chain(["volumes/..", "volumes/1?x", "volumes/", "7", ""]) {
        let residue = Residue {
            kind: ResidueKind::Volume,
            id: id.to_owned(),
            installation: InstallationId::generate(),
            machine: None,
            created_at: None,
            image: None,
            hold: false,
        };
        assert_eq!(rig.cloud.delete_residue(&residue).await.unwrap_err().kind, ErrorKind::Invalid, "{id}");
    }
    assert_eq!(rig.asked(""), 0);
}

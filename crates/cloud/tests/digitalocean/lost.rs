//! Machines that lost what they are looked for by, and answers that say nothing of a machine: neither is gone.

use stagely_cloud::contract::{delete, put_to_sleep};
use stagely_cloud::{Cloud, ErrorKind};
use stagely_domain::id::MachineId;

use super::rest::lost::is_told_of_its_loss;
use super::{NOTHING, ONE_AWAKE, Rig};

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
            for droplet in rig.double.world().accounts[0].machines.values_mut() {
                droplet.tags.retain(|tag| !tag.starts_with("stagely-machine"));
                droplet.tags.extend(value.iter().map(|value| format!("stagely-machine:{value}")));
            }
        };
        for changed in [None, Some(MachineId::generate().to_string())] {
            tag(changed);
            is_told_of_its_loss(&rig, request.machine, &created.id).await;
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

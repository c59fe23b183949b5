//! Lists: every page, and nobody else's machines.

use std::collections::BTreeMap;

use stagely_cloud::contract::put_to_sleep;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind};
use stagely_domain::id::MachineId;

use super::Rig;
use crate::fault_proxy::Fault;

#[tokio::test]
async fn a_list_longer_than_a_page_is_whole_or_an_error() {
    for count in Rig::PAGES {
        let rig = Rig::start().await;
        let first = rig.request().await;
        let requests: Vec<CreateRequest> =
            (0..count).map(|_| CreateRequest { machine: MachineId::generate(), ..first.clone() }).collect();
        for some in requests.chunks(50) {
            for outcome in futures::future::join_all(some.iter().map(|request| rig.cloud.create(request))).await {
                outcome.unwrap();
            }
        }
        let listing = rig.cloud.list(first.installation).await.unwrap();
        assert_eq!((listing.vms.len(), listing.complete), (count, true));
        if count > Rig::PAGES[0] {
            rig.proxy.harm_when(|seen| seen.path.contains("page=2&"), Fault::html(502));
            assert_eq!(rig.cloud.list(first.installation).await.unwrap_err().kind, ErrorKind::Unavailable);
        }
    }
}

#[tokio::test]
async fn two_installations_in_one_account_do_not_see_each_other() {
    for asleep in [false, true] {
        let rig = Rig::start().await;
        let (one, created) = rig.running("").await;
        if asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        let (other, _) = rig.running("").await;
        let counted = BTreeMap::from([&one, &other].map(|request| (request.installation, 1)));
        assert_eq!(rig.cloud.installations().await.unwrap(), counted);
        for request in [one, other] {
            let listing = rig.cloud.list(request.installation).await.unwrap();
            assert_eq!(listing.vms.iter().map(|vm| vm.machine).collect::<Vec<_>>(), [request.machine]);
        }
    }
}

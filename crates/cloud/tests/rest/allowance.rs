//! Very many machines through one account, whose provider counts requests as it has published.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use stagely_cloud::contract::delete;
use stagely_cloud::{Cloud, CreateRequest, DeleteProgress, ErrorKind, VmState};
use stagely_domain::id::MachineId;
use tokio::time::Instant;

use super::double::world::LIMIT;
use super::{Rig, published};
use crate::double::NOTHING;
use crate::fault_proxy::Fault;
use crate::pace::{Bucket, each};

const MACHINES: usize = 500;
/// Of which that many are there at the same time: the double is slow with many, and requests are what is counted.
const AT_ONCE: usize = 10;

/// Requests that a provider takes.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// In an hour; they come back one by one.
    pub hour: u32,
    /// In any minute, where that is limited too.
    pub minute: Option<u32>,
}

/// What a provider has counted.
struct Count {
    hour: Bucket,
    in_minute: Option<usize>,
    recent: VecDeque<Instant>,
}

impl Count {
    fn new(limits: Published) -> Self {
        let hour = f64::from(limits.hour);
        let in_minute = limits.minute.map(|most| usize::try_from(most).unwrap());
        Self { hour: Bucket::full(hour, hour / 3600.0), in_minute, recent: VecDeque::new() }
    }

    /// Counts a request; true when it is one too many.
    fn is_too_many(&mut self) -> bool {
        let now = Instant::now();
        while self.recent.front().is_some_and(|at| now - *at >= Duration::from_secs(60)) {
            self.recent.pop_front();
        }
        if self.in_minute.is_some_and(|most| self.recent.len() >= most) || !self.hour.take() {
            return true;
        }
        self.recent.push_back(now);
        false
    }
}

#[tokio::test]
async fn five_hundred_machines_come_and_go_without_one_request_too_many() {
    let mut rig = Rig::start().await;
    let limits;
    (rig.cloud, limits) = published(&rig.proxy.url());
    let cloud = &rig.cloud;
    let first = rig.request().await;
    let count = Mutex::new(Count::new(limits));
    rig.proxy.harm_when(move |_| count.lock().unwrap().is_too_many(), Fault::too_many("retry-after", 60));
    // What the double itself counts is no limit here.
    let renew = || rig.leave(LIMIT);
    let begun = Instant::now();
    for _ in 0..MACHINES / AT_ONCE {
        let machines: Vec<MachineId> = (0..AT_ONCE).map(|_| MachineId::generate()).collect();
        each(&machines, renew, async |machine| {
            cloud.create(&CreateRequest { machine, ..first.clone() }).await.map(|_| true)
        })
        .await;
        each(&machines, renew, async |machine| {
            Ok(cloud.find(machine).await?.iter().any(|vm| vm.state == VmState::Running))
        })
        .await;
        each(&machines[..1], renew, async |_| {
            let listing = cloud.list(first.installation).await?;
            assert_eq!((listing.vms.len(), listing.complete), (AT_ONCE, true));
            Ok(true)
        })
        .await;
        // As a reconciler does: nothing is gone before a look shows it.
        each(&machines, renew, async |machine| {
            for vm in cloud.find_to_remove(machine).await? {
                if cloud.delete(&vm.id).await? == DeleteProgress::InProgress {
                    return Ok(false);
                }
            }
            Ok(cloud.find_removed(machine).await?.is_empty())
        })
        .await;
    }
    assert_eq!(rig.bill(), NOTHING);
    let (requests, taken) = (rig.proxy.seen().len(), begun.elapsed());
    assert_eq!(rig.proxy.calm(), 0, "requests too many of {requests}");
    println!("{MACHINES} machines came and went within {taken:.0?} with {requests} requests");
    assert!(taken < Duration::from_secs(2 * 3600), "{taken:?}");
}

#[tokio::test]
async fn looks_leave_requests_for_deletes() {
    let rig = Rig::start().await;
    let (request, created) = rig.running("").await;
    rig.leave(300);
    // The first answer tells what is left.
    while rig.cloud.find(request.machine).await.is_ok() {}
    let error = rig.cloud.find(request.machine).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { retry_after: Some(_) }), "{error}");
    assert_eq!(rig.cloud.find_to_remove(request.machine).await.unwrap().len(), 1);
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.cloud.find_to_remove(request.machine).await.unwrap(), []);
    assert_eq!(rig.bill(), NOTHING);
}

//! Very many machines through one account, whose requests are counted as published: a bucket for each action, and those
//! for the machines that are asked for.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use stagely_cloud::aws::Limits;
use stagely_cloud::{Cloud, CreateRequest, DeleteProgress, VmState};
use stagely_domain::id::MachineId;
use tokio::time::Instant;

use super::refusals::refusal;
use super::{Rig, config, provider};
use crate::fault_proxy::Seen;
use crate::pace::{Bucket, each, hurried};

/// moto shows ended machines for ever, and every answer takes longer: 500 of them take it a quarter of an hour.
const MACHINES: usize = 200;
/// Of which that many are there at the same time.
const AT_ONCE: usize = 20;

/// What EC2 has counted for one account in one region: "Request throttling for the Amazon EC2 API" in its guide for
/// developers.
#[derive(Default)]
struct Count {
    requests: HashMap<String, Bucket>,
    machines: HashMap<String, Bucket>,
}

impl Count {
    /// Counts a request; true when it is one too many.
    fn is_too_many(&mut self, seen: &Seen) -> bool {
        let body = String::from_utf8_lossy(&seen.body);
        // Of other services, SSM and the price list, few requests are sent.
        let Some(action) = body.split('&').find_map(|pair| pair.strip_prefix("Action=")) else { return false };
        let (size, per_second) = match action {
            "RunInstances" | "StartInstances" => (5.0, 2.0),
            "TerminateInstances" => (100.0, 5.0),
            _ if action.starts_with("Describe") => (100.0, 20.0),
            _ => (50.0, 5.0),
        };
        let requests = self.requests.entry(action.to_owned()).or_insert_with(|| Bucket::full(size, per_second));
        if !requests.take() {
            return true;
        }
        // One machine in each request is all that is ever asked for.
        let per_second = match action {
            "RunInstances" | "StartInstances" => 2.0,
            "TerminateInstances" => 20.0,
            _ => return false,
        };
        !self.machines.entry(action.to_owned()).or_insert_with(|| Bucket::full(1000.0, per_second)).take()
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn machines_come_and_go_without_one_request_too_many() {
    let (requests, taken) = hurried(come_and_go()).await;
    println!("{MACHINES} machines came and went within {taken:.0?} with {requests} requests");
}

/// How many requests that took, and how much time.
async fn come_and_go() -> (usize, Duration) {
    let mut rig = Rig::start().await;
    let mut settings = config(&rig.proxy.url());
    settings.limits = Limits::Published;
    // moto may be busy with other tests while the time goes by.
    settings.timing.request = Duration::from_secs(600);
    rig.cloud = provider(settings);
    let cloud = &rig.cloud;
    let first = rig.request().await;
    let count = Mutex::new(Count::default());
    let refused = refusal(503, "RequestLimitExceeded", "Request limit exceeded.");
    rig.proxy.harm_when(move |seen| count.lock().unwrap().is_too_many(seen), refused);
    let begun = Instant::now();
    for _ in 0..MACHINES / AT_ONCE {
        let machines: Vec<MachineId> = (0..AT_ONCE).map(|_| MachineId::generate()).collect();
        each(
            &machines,
            || (),
            async |machine| cloud.create(&CreateRequest { machine, ..first.clone() }).await.map(|_| true),
        )
        .await;
        each(
            &machines,
            || (),
            async |machine| Ok(cloud.find(machine).await?.iter().any(|vm| vm.state == VmState::Running)),
        )
        .await;
        let listing = cloud.list(first.installation).await.unwrap();
        assert_eq!((listing.vms.len(), listing.complete), (AT_ONCE, true));
        // As a reconciler does: nothing is gone before a look shows it.
        each(
            &machines,
            || (),
            async |machine| {
                for vm in cloud.find_to_remove(machine).await? {
                    if cloud.delete(&vm.id).await? == DeleteProgress::InProgress {
                        return Ok(false);
                    }
                }
                Ok(cloud.find_removed(machine).await?.is_empty())
            },
        )
        .await;
    }
    assert_eq!(cloud.list(first.installation).await.unwrap().vms, []);
    let (requests, taken) = (rig.proxy.seen().len(), begun.elapsed());
    assert_eq!(rig.proxy.calm(), 0, "requests too many of {requests}");
    assert!(taken < Duration::from_secs(2 * 3600), "{taken:?}");
    (requests, taken)
}

//! Every request of every operation is lost once, before or after its effect, or refused for haste. Whatever is then asked
//! again ends as if nothing had happened: nothing doubled, and nothing left.

use std::time::Duration;

use futures::future::join_all;
use stagely_cloud::contract::put_to_sleep;
use stagely_cloud::{Cloud, CloudError, CreateRequest, Created, DeleteProgress, ErrorKind, SleepProgress};
use stagely_domain::id::{InstallationId, MachineId};

use super::refusals::refusal;
use super::{Bill, NOTHING, ONE_ASLEEP, ONE_AWAKE, Rig, config, is_passing, provider};
use crate::fault_proxy::{Fault, Seen};
use crate::pace;

/// More requests than any operation takes.
const MOST: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Sleep,
    Wake,
    Delete,
}

fn faults() -> [Fault; 5] {
    [Fault::ResetBefore, Fault::LoseAnswer, Fault::Truncate, Fault::Garble, Fault::html(502)]
}

/// One call; true when it was the last that is needed.
async fn once(rig: &Rig, created: &Created, step: Step) -> bool {
    let outcome = match step {
        Step::Sleep => rig.cloud.hibernate(&created.id).await.map(|progress| progress == SleepProgress::Asleep),
        Step::Wake => rig.cloud.wake(&created.id).await.map(|_| true),
        Step::Delete => rig.cloud.delete(&created.id).await.map(|progress| progress == DeleteProgress::Gone),
    };
    match outcome {
        Ok(done) => done,
        Err(error) => {
            bear(&error).await;
            false
        }
    }
}

/// Waits as long as a refusal asks for; any other error passes by itself.
async fn bear(error: &CloudError) {
    match error.kind {
        ErrorKind::RateLimited { retry_after } => pace::pass(retry_after.expect("how long to wait")).await,
        kind => assert!(is_passing(kind), "{error}"),
    }
}

/// Calls until nothing is left to do.
async fn through(rig: &Rig, created: &Created, step: Step) {
    for _ in 0..MOST {
        if once(rig, created, step).await {
            return;
        }
    }
    panic!("{step:?} does not end");
}

const fn after(step: Step) -> Bill {
    match step {
        Step::Sleep => ONE_ASLEEP,
        Step::Wake => ONE_AWAKE,
        Step::Delete => NOTHING,
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_create_that_is_interrupted_anywhere_makes_one_machine() {
    let mut rig = Rig::start().await;
    let first = rig.request().await;
    for fault in faults() {
        for nth in 1..=MOST {
            // A process that knows nothing yet, and an installation that has no firewall.
            rig.cloud = provider(config(&rig.proxy.url()));
            let (machine, installation) = (MachineId::generate(), InstallationId::generate());
            let request = CreateRequest { machine, installation, ..first.clone() };
            rig.proxy.harm_nth(nth, fault.clone());
            let outcome = rig.cloud.create(&request).await;
            let harmed = rig.proxy.calm();
            if let Err(error) = outcome {
                assert!(is_passing(error.kind), "{error}");
                let bill = rig.bill(machine).await;
                assert!(bill == NOTHING || error.ambiguous, "request {nth}, {fault:?}: {error}");
            }
            let created = rig.cloud.create(&request).await.unwrap();
            assert_eq!(rig.bill(machine).await, ONE_AWAKE, "request {nth}, {fault:?}");
            let groups = rig.cloud.list_residue(installation).await.unwrap().items;
            assert_eq!(groups.len(), 1, "{groups:?}");
            through(&rig, &created, Step::Delete).await;
            assert_eq!(rig.bill(machine).await, NOTHING);
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_create_that_is_killed_anywhere_is_one_machine_when_repeated_and_none_when_deleted() {
    let mut rig = Rig::start().await;
    let first = rig.request().await;
    for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
        for nth in 1..=MOST {
            let (machine, installation) = (MachineId::generate(), InstallationId::generate());
            let request = CreateRequest { machine, installation, ..first.clone() };
            rig.cloud = provider(config(&rig.proxy.url()));
            // From the nth request on nothing passes: the call ends there, as a process does that is killed.
            rig.proxy.harm_nth(nth, fault.clone());
            rig.proxy.also_harm_when(move |seen| seen.nth > nth, Fault::ResetBefore);
            let _ = rig.cloud.create(&request).await;
            let harmed = rig.proxy.calm();
            rig.cloud = provider(config(&rig.proxy.url()));
            // Whoever was killed knows no more than the machine's id.
            let found = rig.cloud.find(machine).await.unwrap();
            assert_eq!(found.len(), usize::from(rig.bill(machine).await == ONE_AWAKE), "request {nth}, {fault:?}");
            let created = rig.cloud.create(&request).await.unwrap();
            assert!(found.iter().all(|vm| vm.id == created.id), "request {nth}, {fault:?}");
            assert_eq!(rig.bill(machine).await, ONE_AWAKE, "request {nth}, {fault:?}");
            through(&rig, &created, Step::Delete).await;
            assert_eq!(rig.bill(machine).await, NOTHING, "request {nth}, {fault:?}");
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn sleep_wake_and_delete_that_are_interrupted_anywhere_end_as_if_nothing_had_happened() {
    let rig = Rig::start().await;
    let first = rig.request().await;
    for slow in [0, 2] {
        rig.moto.world().knobs.slow = slow;
        for (from_asleep, step) in
            [(false, Step::Sleep), (true, Step::Wake), (false, Step::Delete), (true, Step::Delete)]
        {
            for fault in faults() {
                for nth in 1..=MOST {
                    let request = CreateRequest { machine: MachineId::generate(), ..first.clone() };
                    let created = rig.cloud.create(&request).await.unwrap();
                    if from_asleep {
                        put_to_sleep(&rig.cloud, &created.id).await;
                    }
                    rig.proxy.harm_nth(nth, fault.clone());
                    through(&rig, &created, step).await;
                    let harmed = rig.proxy.calm();
                    let bill = rig.bill(request.machine).await;
                    assert_eq!(bill, after(step), "{step:?}, request {nth}, {fault:?}");
                    // Asking once more changes nothing.
                    through(&rig, &created, step).await;
                    assert_eq!(rig.bill(request.machine).await, after(step), "{step:?}, request {nth}, {fault:?}");
                    let there = usize::from(step != Step::Delete);
                    assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), there);
                    through(&rig, &created, Step::Delete).await;
                    if harmed == 0 {
                        break;
                    }
                    assert_ne!(nth, MOST);
                }
            }
        }
    }
}

/// No answer within any deadline.
fn late_faults() -> [Fault; 2] {
    let late = Duration::from_secs(90);
    [Fault::Delay(late), Fault::AnswerLate(late)]
}

/// From now on the `nth` request is refused for haste, in the way of the service that it is sent to.
fn refuse_nth(rig: &Rig, nth: usize) {
    let speaks_json = |seen: &Seen| seen.headers.contains_key("x-amz-target");
    let json = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#.to_owned();
    let throttled = Fault::Answer { status: 400, headers: vec![], body: json };
    rig.proxy.harm_when(move |seen| seen.nth == nth && speaks_json(seen), throttled);
    let refused = refusal(503, "RequestLimitExceeded", "Request limit exceeded.");
    rig.proxy.also_harm_when(move |seen| seen.nth == nth, refused);
}

/// One operation, with each of its requests suffering once what `harm` does.
async fn suffers(from_asleep: bool, step: Option<Step>, harm: impl Fn(&Rig, usize)) {
    let mut rig = Rig::start().await;
    let first = rig.request().await;
    let mut impatient = config(&rig.proxy.url());
    impatient.timing.request = Duration::from_secs(2);
    for nth in 1..=MOST {
        // A process that knows nothing yet, and an installation that has no firewall.
        rig.cloud = provider(impatient.clone());
        let (machine, installation) = (MachineId::generate(), InstallationId::generate());
        let request = CreateRequest { machine, installation, ..first.clone() };
        if step.is_none() {
            harm(&rig, nth);
        }
        let created = made(&rig, &request).await;
        if let Some(step) = step {
            if from_asleep {
                through(&rig, &created, Step::Sleep).await;
            }
            harm(&rig, nth);
            through(&rig, &created, step).await;
        }
        let harmed = rig.proxy.calm();
        assert_eq!(rig.bill(machine).await, step.map_or(ONE_AWAKE, after), "{step:?}, request {nth}");
        through(&rig, &created, Step::Delete).await;
        if harmed == 0 {
            assert!(nth > 1);
            return;
        }
    }
    panic!("{step:?} has more requests than {MOST}");
}

/// Asks for it until it is there.
async fn made(rig: &Rig, request: &CreateRequest) -> Created {
    for _ in 0..MOST {
        match rig.cloud.create(request).await {
            Ok(created) => return created,
            Err(error) => bear(&error).await,
        }
    }
    panic!("the machine is not made");
}

const OPERATIONS: [(bool, Option<Step>); 5] = [
    (false, None),
    (false, Some(Step::Sleep)),
    (true, Some(Step::Wake)),
    (false, Some(Step::Delete)),
    (true, Some(Step::Delete)),
];

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_is_refused_for_haste_anywhere_ends_as_if_nothing_had_happened() {
    for (from_asleep, step) in OPERATIONS {
        suffers(from_asleep, step, refuse_nth).await;
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_is_not_answered_anywhere_ends_as_if_nothing_had_happened() {
    let faults = late_faults();
    // They mostly wait, so all at once.
    let all = OPERATIONS.iter().flat_map(|(from_asleep, step)| {
        faults
            .iter()
            .map(move |fault| suffers(*from_asleep, *step, move |rig, nth| rig.proxy.harm_nth(nth, fault.clone())))
    });
    join_all(all).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn whoever_is_killed_half_way_or_changes_his_mind_loses_nothing_and_leaves_nothing() {
    let mut rig = Rig::start().await;
    let first = rig.request().await;
    rig.moto.world().knobs.slow = 1;
    let turns = [
        (false, Step::Sleep, Step::Wake),
        (false, Step::Sleep, Step::Delete),
        (true, Step::Wake, Step::Sleep),
        (true, Step::Wake, Step::Delete),
        (false, Step::Delete, Step::Delete),
        (true, Step::Delete, Step::Delete),
    ];
    for (from_asleep, begun, then) in turns {
        for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
            for nth in 1..=MOST {
                let request = CreateRequest { machine: MachineId::generate(), ..first.clone() };
                let created = rig.cloud.create(&request).await.unwrap();
                if from_asleep {
                    put_to_sleep(&rig.cloud, &created.id).await;
                }
                // From the nth request on nothing passes: the call ends there, as a process does that is killed.
                rig.proxy.harm_nth(nth, fault.clone());
                rig.proxy.also_harm_when(move |seen| seen.nth > nth, Fault::ResetBefore);
                once(&rig, &created, begun).await;
                let harmed = rig.proxy.calm();
                // The process after it remembers nothing.
                rig.cloud = provider(config(&rig.proxy.url()));
                through(&rig, &created, then).await;
                let bill = rig.bill(request.machine).await;
                assert_eq!(bill, after(then), "{begun:?} then {then:?}, request {nth}, {fault:?}");
                through(&rig, &created, Step::Delete).await;
                if harmed == 0 {
                    break;
                }
                assert_ne!(nth, MOST);
            }
        }
    }
}

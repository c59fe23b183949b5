//! Every request of every operation is lost once, before or after its effect. Whatever is then asked again ends as if
//! nothing had happened: nothing doubled, nothing left, and nothing of the past on a disk.

use std::time::Duration;

use futures::future::join_all;
use stagely_cloud::contract::{dropped, offered, put_to_sleep};
use stagely_cloud::{
    CaptureProgress, CaptureRequest, Cloud, CloudError, CreateRequest, Created, DeleteProgress, ErrorKind, Image,
    ProviderId, SleepProgress,
};
use stagely_domain::clock::SystemClock;

use super::{ONE_AWAKE, Rig, is_passing};
use crate::double::{Bill, NOTHING, ONE_ASLEEP};
use crate::fault_proxy::Fault;

/// More requests than any operation takes.
const MOST: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Sleep,
    Wake,
    Delete,
}

fn faults() -> [Fault; 4] {
    [Fault::ResetBefore, Fault::LoseAnswer, Fault::Truncate, Fault::html(502)]
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
            bear(&format!("{step:?}"), &error).await;
            false
        }
    }
}

/// Waits as long as a refusal asks for; any other error passes by itself.
async fn bear(doing: &str, error: &CloudError) {
    match error.kind {
        ErrorKind::RateLimited { retry_after } => tokio::time::sleep(retry_after.expect("how long to wait")).await,
        kind => assert!(is_passing(kind), "{doing}: {error}"),
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
async fn a_create_that_is_interrupted_anywhere_makes_one_machine() {
    for fault in faults() {
        for nth in 1..=MOST {
            let rig = Rig::start().await;
            let request = rig.request().await;
            rig.proxy.harm_nth(nth, fault.clone());
            let first = rig.cloud.create(&request).await;
            let harmed = rig.proxy.calm();
            if let Err(error) = first {
                assert!(is_passing(error.kind), "{error}");
                assert!(rig.bill() == NOTHING || error.ambiguous, "request {nth}, {fault:?}: {error}");
            }
            let created = rig.cloud.create(&request).await.unwrap();
            assert_eq!(rig.bill(), ONE_AWAKE, "request {nth}, {fault:?}");
            through(&rig, &created, Step::Delete).await;
            assert_eq!(rig.bill(), NOTHING);
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

/// No answer within any deadline, and a refusal for haste, which closes the door for a second.
fn slow_faults() -> [Fault; 3] {
    let late = Duration::from_secs(90);
    [Fault::Delay(late), Fault::AnswerLate(late), Fault::too_many("retry-after", 1)]
}

/// One operation, with each of its requests suffering this once.
async fn suffers(from_asleep: bool, step: Option<Step>, fault: &Fault) {
    for nth in 1..=MOST {
        let rig = Rig::start().await;
        let (request, created) = match step {
            Some(_) => rig.running("work").await,
            None => (rig.request().await, Created { id: ProviderId(String::new()), address: None }),
        };
        if from_asleep {
            put_to_sleep(&rig.cloud, &created.id).await;
        }
        rig.proxy.harm_nth(nth, fault.clone());
        match step {
            Some(step) => through(&rig, &created, step).await,
            None => {
                let mut tries = 0;
                while let Err(error) = rig.cloud.create(&request).await {
                    assert!(rig.bill() == NOTHING || error.ambiguous || tries > 0, "request {nth}, {fault:?}: {error}");
                    bear("create", &error).await;
                    tries += 1;
                    assert!(tries < MOST);
                }
            }
        }
        let harmed = rig.proxy.calm();
        assert_eq!(rig.bill(), step.map_or(ONE_AWAKE, after), "{step:?}, request {nth}, {fault:?}");
        if harmed == 0 {
            assert!(nth > 1);
            return;
        }
    }
    panic!("{step:?} has more requests than {MOST}");
}

#[tokio::test]
async fn what_is_refused_for_haste_or_not_answered_anywhere_ends_as_if_nothing_had_happened() {
    let operations = [
        (false, None),
        (false, Some(Step::Sleep)),
        (true, Some(Step::Wake)),
        (false, Some(Step::Delete)),
        (true, Some(Step::Delete)),
    ];
    let faults = slow_faults();
    // They mostly wait, so all at once.
    let all = operations
        .iter()
        .flat_map(|(from_asleep, step)| faults.iter().map(move |fault| suffers(*from_asleep, *step, fault)));
    join_all(all).await;
}

/// From the `nth` request on nothing passes: the call ends there, as a process does that is killed.
fn kill_at(rig: &Rig, nth: usize, fault: &Fault) {
    rig.proxy.harm_nth(nth, fault.clone());
    rig.proxy.also_harm_when(move |seen| seen.nth > nth, Fault::ResetBefore);
}

#[tokio::test]
async fn a_create_that_is_killed_anywhere_is_one_machine_when_repeated_and_none_when_deleted() {
    for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
        for nth in 1..=MOST {
            let mut harmed = 0;
            for repeated in [true, false] {
                let rig = Rig::start().await;
                let request = rig.request().await;
                kill_at(&rig, nth, &fault);
                let _ = rig.cloud.create(&request).await;
                harmed = rig.proxy.calm();
                if repeated {
                    rig.cloud.create(&request).await.unwrap();
                    assert_eq!(rig.bill(), ONE_AWAKE, "request {nth}, {fault:?}");
                }
                // Whoever was killed knows no more than the machine's id.
                let known = Created { id: ProviderId(request.machine.label()), address: None };
                through(&rig, &known, Step::Delete).await;
                assert_eq!(rig.bill(), NOTHING, "request {nth}, {fault:?}");
            }
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_half_way_leaves_what_is_found_again() {
    for nth in 1..=MOST {
        let rig = Rig::start().await;
        let request = rig.request().await;
        rig.proxy.harm_nth(nth, Fault::AnswerLate(Duration::from_secs(30)));
        let gave_up = tokio::time::timeout(Duration::from_millis(1000), rig.cloud.create(&request)).await.is_err();
        rig.proxy.calm();
        let found = rig.cloud.find(request.machine).await.unwrap();
        assert_eq!(found.len(), usize::from(rig.bill() != NOTHING), "request {nth}: what there is is found");
        let created = rig.cloud.create(&request).await.unwrap();
        assert_eq!(rig.bill(), ONE_AWAKE, "request {nth}");
        through(&rig, &created, Step::Delete).await;
        assert_eq!(rig.bill(), NOTHING, "request {nth}");
        if !gave_up {
            assert!(nth > 1);
            return;
        }
    }
    panic!("a create has more requests than {MOST}");
}

#[tokio::test]
async fn sleep_wake_and_delete_that_are_interrupted_anywhere_end_as_if_nothing_had_happened() {
    for (from_asleep, step) in [(false, Step::Sleep), (true, Step::Wake), (false, Step::Delete), (true, Step::Delete)] {
        for fault in faults() {
            for nth in 1..=MOST {
                let rig = Rig::start().await;
                let (request, created) = rig.running("work").await;
                if from_asleep {
                    put_to_sleep(&rig.cloud, &created.id).await;
                }
                rig.proxy.harm_nth(nth, fault.clone());
                through(&rig, &created, step).await;
                let harmed = rig.proxy.calm();
                assert_eq!(rig.bill(), after(step), "{step:?}, request {nth}, {fault:?}");
                // Asking once more changes nothing.
                through(&rig, &created, step).await;
                assert_eq!(rig.bill(), after(step), "{step:?}, request {nth}, {fault:?}");
                let there = usize::from(step != Step::Delete);
                assert_eq!(rig.cloud.list(request.installation).await.unwrap().vms.len(), there);
                if step == Step::Sleep {
                    through(&rig, &created, Step::Wake).await;
                }
                assert_eq!(rig.disk(), if there == 1 { "work" } else { "" });
                if harmed == 0 {
                    break;
                }
                assert_ne!(nth, MOST);
            }
        }
    }
}

#[tokio::test]
async fn whoever_is_killed_half_way_or_changes_his_mind_loses_nothing_and_leaves_nothing() {
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
                let rig = Rig::start().await;
                let (_, created) = rig.running("work").await;
                if from_asleep {
                    put_to_sleep(&rig.cloud, &created.id).await;
                }
                kill_at(&rig, nth, &fault);
                let done = once(&rig, &created, begun).await;
                let harmed = rig.proxy.calm();
                through(&rig, &created, then).await;
                assert_eq!(rig.bill(), after(then), "{begun:?} then {then:?}, request {nth}, {fault:?}");
                if then == Step::Delete {
                    assert!(harmed > 0 || nth > 1);
                } else {
                    // Sleep once more, with something newer on the disk: that is what comes back.
                    through(&rig, &created, Step::Wake).await;
                    assert_eq!(rig.disk(), "work");
                    rig.write("newer");
                    through(&rig, &created, Step::Sleep).await;
                    assert_eq!(rig.bill(), ONE_ASLEEP);
                    through(&rig, &created, Step::Wake).await;
                    assert_eq!((rig.bill(), &*rig.disk()), (ONE_AWAKE, "newer"));
                }
                if harmed == 0 {
                    assert!(done || begun != Step::Wake);
                    break;
                }
                assert_ne!(nth, MOST);
            }
        }
    }
}

/// One call; the image when it is ready.
async fn capture(rig: &Rig, wanted: &CaptureRequest) -> Option<Image> {
    match rig.cloud.capture(wanted).await {
        Ok(CaptureProgress::Ready(image)) => Some(image),
        Ok(CaptureProgress::InProgress) => None,
        Err(error) => {
            assert!(is_passing(error.kind), "capture: {error}");
            None
        }
    }
}

/// Calls until there is an image.
async fn ready(rig: &Rig, wanted: &CaptureRequest) -> Image {
    for _ in 0..MOST {
        if let Some(image) = capture(rig, wanted).await {
            return image;
        }
    }
    panic!("the image does not become ready");
}

/// A machine boots the image with what was baked, and goes.
async fn boots(rig: &Rig, wanted: &CaptureRequest, image: Image) {
    let request = offered(&rig.cloud, wanted.installation, &SystemClock).await;
    let request = CreateRequest { image: Some(image.reference), ..request };
    let created = rig.cloud.create(&request).await.unwrap();
    rig.settle(&request).await;
    assert_eq!(rig.disk(), "base");
    through(rig, &created, Step::Delete).await;
}

#[tokio::test]
async fn an_image_whose_making_is_interrupted_anywhere_is_one_image() {
    for late in [0, 9] {
        for fault in faults() {
            for nth in 1..=MOST {
                let rig = Rig::start().await;
                rig.double.world().knobs.late_images = late;
                let (_, wanted) = rig.baked("base").await;
                rig.proxy.harm_nth(nth, fault.clone());
                let image = ready(&rig, &wanted).await;
                let harmed = rig.proxy.calm();
                let both = Bill { snapshots: 1, ..ONE_AWAKE };
                assert_eq!(rig.bill(), both, "request {nth}, {fault:?}");
                assert_eq!((ready(&rig, &wanted).await, rig.bill()), (image.clone(), both));
                through(&rig, &Created { id: wanted.machine.clone(), address: None }, Step::Delete).await;
                assert_eq!((rig.bill(), rig.cloud.list(wanted.installation).await.unwrap().vms), (ONE_ASLEEP, vec![]));
                boots(&rig, &wanted, image).await;
                dropped(&rig.cloud, wanted.installation, wanted.image).await;
                assert_eq!(rig.bill(), NOTHING, "request {nth}, {fault:?}");
                if harmed == 0 {
                    break;
                }
                assert_ne!(nth, MOST);
            }
        }
    }
}

#[tokio::test]
async fn whoever_is_killed_while_an_image_is_made_makes_one_when_he_repeats_it_and_can_drop_it() {
    for fault in [Fault::ResetBefore, Fault::LoseAnswer] {
        for nth in 1..=MOST {
            let mut harmed = 0;
            for repeated in [true, false] {
                let rig = Rig::start().await;
                let (_, wanted) = rig.baked("base").await;
                kill_at(&rig, nth, &fault);
                while rig.proxy.seen().len() < nth && capture(&rig, &wanted).await.is_none() {}
                harmed = rig.proxy.calm();
                assert!(rig.bill().snapshots <= 1);
                if repeated {
                    ready(&rig, &wanted).await;
                    assert_eq!(rig.bill(), Bill { snapshots: 1, ..ONE_AWAKE }, "request {nth}, {fault:?}");
                }
                through(&rig, &Created { id: wanted.machine.clone(), address: None }, Step::Delete).await;
                dropped(&rig.cloud, wanted.installation, wanted.image).await;
                assert_eq!(rig.bill(), NOTHING, "request {nth}, {fault:?}");
            }
            if harmed == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
async fn removing_an_image_that_is_interrupted_anywhere_is_repeated_until_nothing_is_left() {
    for fault in faults() {
        for nth in 1..=MOST {
            let rig = Rig::start().await;
            let (_, wanted) = rig.baked("base").await;
            ready(&rig, &wanted).await;
            through(&rig, &Created { id: wanted.machine.clone(), address: None }, Step::Delete).await;
            rig.proxy.harm_nth(nth, fault.clone());
            for _ in 0..3 {
                let Ok(found) = rig.cloud.list_residue(wanted.installation).await else { continue };
                for part in found.items.iter().filter(|item| item.image == Some(wanted.image)) {
                    // Whoever fails asks again.
                    let _ = rig.cloud.delete_residue(part).await;
                }
            }
            assert_eq!(rig.bill(), NOTHING, "request {nth}, {fault:?}");
            if rig.proxy.calm() == 0 {
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

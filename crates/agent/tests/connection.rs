use std::time::Duration;

use stagely_agent::agent::Ended;
use stagely_proto::agent::desired::Spec;
use stagely_proto::agent::{Builder, Desired};

use crate::fake_hub::Order;
use crate::rig::{Rig, wait_for};

fn nothing_to_build(generation: u64) -> Desired {
    Desired { generation, spec: Some(Spec::Builder(Builder::default())) }
}

#[tokio::test]
async fn a_machine_enrols_once_and_goes_on_as_itself_after_a_restart() {
    let rig = Rig::new().await;
    let running = rig.start();
    wait_for("connected", || rig.hub.seen.lock().unwrap().connections == 1).await;
    let disk = std::fs::read_to_string(&rig.config.paths.identity).unwrap();
    assert!(!disk.contains("one-time"), "the token is still on disk");
    assert!(rig.config.paths.run.join("enrolled").exists());
    assert_eq!(running.stop().await, Ended::Stopped);

    let running = rig.start();
    wait_for("connected again", || rig.hub.seen.lock().unwrap().connections == 2).await;
    assert_eq!(rig.hub.seen.lock().unwrap().enrolments, 1);
    running.stop().await;
}

/// Replaces a part of the identity that the machine was given.
fn reword(rig: &Rig, from: &str, to: &str) {
    let path = &rig.config.paths.identity;
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Its control plane is gone, or it is not the machine that it says it is: nobody would ever end it.
#[tokio::test]
async fn a_machine_that_is_not_enrolled_in_time_or_is_refused_ends() {
    let mut rig = Rig::new().await;
    rig.config.timing.enrolment = Duration::from_millis(200);
    reword(&rig, "one-time", "another");
    let Ended::MachineOver(reason) = rig.start().ended().await else { panic!("it goes on") };
    assert!(reason.contains("409 Conflict token_used: somebody else used it"), "{reason}");
    reword(&rig, &format!(":{}", rig.hub.address.port()), ":1");
    let Ended::MachineOver(reason) = rig.start().ended().await else { panic!("it goes on") };
    assert_eq!(reason, "not enrolled within 0 s");
}

#[tokio::test]
async fn facts_are_reported_again_after_a_cut_and_old_wishes_are_ignored() {
    let rig = Rig::new().await;
    let running = rig.start();
    let generation = || rig.hub.last().map(|observed| observed.generation);
    rig.hub.tell.send(Order::Send(nothing_to_build(5))).await.unwrap();
    wait_for("generation 5", || generation() == Some(5)).await;
    rig.hub.tell.send(Order::Cut).await.unwrap();
    wait_for("connected again", || rig.hub.seen.lock().unwrap().connections == 2).await;
    rig.hub.seen.lock().unwrap().observed.clear();
    rig.hub.tell.send(Order::Send(nothing_to_build(4))).await.unwrap();
    wait_for("generation 5 again", || generation() == Some(5)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_machine_that_is_not_wanted_ends() {
    let rig = Rig::new().await;
    let running = rig.start();
    rig.hub.tell.send(Order::Close(4410, "machine not wanted")).await.unwrap();
    assert!(matches!(running.ended().await, Ended::MachineOver(_)));
}

#[tokio::test]
async fn a_draining_hub_is_left_and_come_back_to_when_it_says() {
    let rig = Rig::new().await;
    let running = rig.start();
    rig.hub.tell.send(Order::Close(1012, "retry_after=0.3")).await.unwrap();
    let start = tokio::time::Instant::now();
    wait_for("connected again", || rig.hub.seen.lock().unwrap().connections == 2).await;
    assert!(start.elapsed() >= Duration::from_millis(250));
    running.stop().await;
}

#[tokio::test]
async fn a_machine_that_wakes_up_connects_at_once() {
    let rig = Rig::new().await;
    let running = rig.start();
    rig.hub.tell.send(Order::Close(1012, "retry_after=60")).await.unwrap();
    wait_for("connected", || rig.hub.seen.lock().unwrap().connections == 1).await;
    let start = tokio::time::Instant::now();
    while rig.hub.seen.lock().unwrap().connections < 2 {
        assert!(start.elapsed() < Duration::from_secs(10));
        running.woken.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_lease_that_lapses_ends_the_machine() {
    let mut rig = Rig::new().await;
    rig.config.timing.first_lease = Duration::from_millis(100);
    // Enrolled, but the hub's address answers nobody from now on.
    let running = rig.start();
    wait_for("connected", || rig.hub.seen.lock().unwrap().connections == 1).await;
    running.stop().await;
    reword(&rig, &format!(":{}", rig.hub.address.port()), ":1");
    let running = rig.start();
    assert_eq!(running.ended().await, Ended::MachineOver("its lease lapsed".to_owned()));
}

/// A hub whose database is away is there; one that knows a machine no more will never end it.
#[tokio::test]
async fn a_hub_that_puts_its_machine_off_keeps_it_alive_and_one_that_refuses_it_does_not() {
    let mut rig = Rig::new().await;
    rig.config.timing.first_lease = Duration::from_secs(2);
    *rig.hub.goodbye.lock().unwrap() = Some((1013, "retry_after=0.1"));
    let running = rig.start();
    let turned_away = || rig.hub.seen.lock().unwrap().turned_away;
    // Two leases and more: a try each tenth of a second at most.
    wait_for("put off for two leases", || turned_away() > 45).await;
    assert!(!running.task.is_finished(), "it ended while the hub was there");
    *rig.hub.goodbye.lock().unwrap() = Some((4401, "credential refused"));
    assert_eq!(running.ended().await, Ended::MachineOver("its lease lapsed".to_owned()));
}

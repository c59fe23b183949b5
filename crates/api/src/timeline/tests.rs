use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use stagely_domain::id::{BuildJobId, CloudAccountId, EnvironmentId, MachineId, RunId};
use stagely_domain::machine::{Arch, Provider, Size};
use stagely_domain::offering::Offering;
use stagely_domain::spec::Platform;
use stagely_domain::{build, machine, run};
use stagely_store::{BuildView, MachineView, RunView};

use super::phases;

/// `seconds` after the run began.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

fn run_with(phases: serde_json::Value) -> RunView {
    RunView {
        id: RunId::generate(),
        environment: EnvironmentId::generate(),
        generation: 1,
        sha: "a".repeat(40),
        cause: run::Cause::Opened,
        state: run::State::Building,
        failure: None,
        phases,
        created_at: at(0),
        live_at: None,
        finished_at: None,
    }
}

fn build(building: Option<i64>, pushing: Option<i64>, finished: Option<i64>) -> BuildView {
    BuildView {
        id: BuildJobId::generate(),
        run: RunId::generate(),
        target: "api".to_owned(),
        platform: Platform::Amd64,
        state: build::State::Building,
        machine: None,
        image_digest: None,
        failure: None,
        attempt: 0,
        queued_at: at(2),
        assigned_at: building.map(at),
        building_at: building.map(at),
        pushing_at: pushing.map(at),
        finished_at: finished.map(at),
    }
}

fn booted(intended: i64, enrolled: Option<i64>) -> MachineView {
    MachineView {
        id: MachineId::generate(),
        account: CloudAccountId::generate(),
        provider: Provider::Qemu,
        size: Size::Small,
        arch: Arch::Amd64,
        offering: None,
        tried: Vec::new(),
        state: machine::State::Booting,
        intended_at: at(intended),
        placed_at: None,
        enrolled_at: enrolled.map(at),
        last_seen_at: None,
        observed: None,
    }
}

fn bars(run: &RunView, builds: &[BuildView], machine: Option<&MachineView>) -> Vec<(&'static str, Option<i64>)> {
    phases(run, builds, machine).into_iter().map(|phase| (phase.name, phase.ms)).collect()
}

#[test]
fn a_run_that_just_began_only_queues() {
    assert_eq!(bars(&run_with(json!({})), &[], None), [("queue", None)]);
}

#[test]
fn parallel_builds_count_from_the_first_start_to_the_last_end() {
    let run = run_with(json!({ "read": { "started_at": at(1), "finished_at": at(2) } }));
    let builds = [build(Some(5), Some(9), Some(10)), build(Some(6), Some(12), Some(15))];
    let expected = [
        ("queue", Some(1000)),
        ("read", Some(1000)),
        ("builder", Some(4000)),
        ("build", Some(7000)),
        ("push", Some(6000)),
    ];
    assert_eq!(bars(&run, &builds, None), expected);
}

#[test]
fn a_phase_is_open_while_one_of_its_builds_is() {
    let builds = [build(Some(5), Some(9), Some(10)), build(None, None, None)];
    let bars = bars(&run_with(json!({})), &builds, None);
    assert_eq!(bars, [("queue", Some(2000)), ("builder", None), ("build", None), ("push", None)]);
}

#[test]
fn an_image_that_was_there_already_is_no_part_of_a_phase() {
    let reused = BuildView { state: build::State::Succeeded, ..build(None, None, Some(2)) };
    let builds = [build(Some(5), Some(9), Some(10)), reused.clone()];
    let bars_of = |builds: &[BuildView]| bars(&run_with(json!({})), builds, None)[1..].to_vec();
    assert_eq!(bars_of(&builds), [("builder", Some(3000)), ("build", Some(4000)), ("push", Some(1000))]);
    assert!(bars_of(&[reused]).is_empty());
}

#[test]
fn a_failed_build_closes_the_phase_it_failed_in() {
    let builds = [build(Some(5), None, Some(8))];
    assert_eq!(bars(&run_with(json!({})), &builds, None)[1..], [("builder", Some(3000)), ("build", Some(3000))]);
}

#[test]
fn a_machine_from_an_earlier_run_did_not_boot_for_this_one() {
    let run = run_with(json!({}));
    assert_eq!(bars(&run, &[], Some(&booted(3, Some(10))))[1..], [("boot", Some(7000))]);
    assert_eq!(bars(&run, &[], Some(&booted(3, None)))[1..], [("boot", None)]);
    assert!(bars(&run, &[], Some(&booted(-500, Some(-400))))[1..].is_empty());
}

#[test]
fn noted_phases_win_over_rows_and_may_use_the_step_names_of_the_agent() {
    let run = run_with(json!({
        "boot": { "started_at": at(1), "finished_at": at(2) },
        "on_start": { "started_at": at(5), "finished_at": at(6) },
        "route": { "started_at": at(6) },
        "prove": { "started_at": "yesterday" },
    }));
    let bars = bars(&run, &[], Some(&booted(0, Some(30))));
    assert_eq!(bars, [("queue", None), ("boot", Some(1000)), ("hooks", Some(1000)), ("routed", None)]);
}

#[test]
fn a_clock_that_went_back_gives_no_negative_bar() {
    let run = run_with(json!({ "read": { "started_at": at(3), "finished_at": at(2) } }));
    assert_eq!(bars(&run, &[], None)[1..], [("read", Some(0))]);
}

#[test]
fn a_boot_says_where_the_machine_was_made_and_what_had_no_room() {
    let made = Offering {
        name: "cx23".to_owned(),
        location: "fsn1".to_owned(),
        arch: Arch::Amd64,
        vcpus: 2,
        memory_mib: 4096,
        price: None,
        available: true,
    };
    let asked = MachineView { offering: Some(made), tried: vec!["cx23 in nbg1".to_owned()], ..booted(1, None) };
    let detail = |machine: &MachineView| {
        let phases = phases(&run_with(json!({})), &[], Some(machine));
        phases.into_iter().find(|phase| phase.name == "boot").unwrap().detail
    };
    assert_eq!(detail(&asked).as_deref(), Some("no room: cx23 in nbg1"), "it was not made yet");
    let placed = MachineView { placed_at: Some(at(2)), ..asked };
    assert_eq!(detail(&placed).as_deref(), Some("cx23 in fsn1 (no room: cx23 in nbg1)"));
    let without = MachineView { tried: vec!["image img_01".to_owned()], ..placed };
    assert_eq!(detail(&without).as_deref(), Some("cx23 in fsn1"), "an image is no place");
    assert_eq!(detail(&booted(1, None)), None);
}

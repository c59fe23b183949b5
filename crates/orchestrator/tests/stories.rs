//! What a pull request goes through.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, Residue, ResidueKind, contract};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::MachineId;
use stagely_domain::machine::Arch;
use stagely_domain::offering::{Offering, Price};
use stagely_forge::testing::Status;
use stagely_proto::agent::preview::Wish;
use stagely_store::environments::Power;
use uuid::{NoContext, Timestamp, Uuid};

use crate::git_host::{self, REPO, host};
use crate::stack::Stack;
use crate::world::Hold;

#[tokio::test]
async fn an_opened_pull_request_goes_live_and_a_closed_one_leaves_nothing() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
    let checks = host().checks(REPO, &stack.sha());
    assert_eq!(checks.iter().map(|check| check.state.as_str()).collect::<Vec<_>>(), ["success"]);
    let deployments = host().deployments(REPO).into_iter().filter(|deployment| deployment.sha == stack.sha());
    assert_eq!(deployments.map(|deployment| deployment.state).collect::<Vec<_>>(), ["inactive"]);
    assert_eq!((stack.cloud.ever(), stack.cloud.inner.creates()), (1, 1));
    stack.end().await;
}

#[tokio::test]
async fn who_stops_a_preview_is_told_the_variables_that_its_compose_files_need() {
    let stack = Stack::start().await;
    let text: &[u8] = b"version: 2\npreview: {env: {MODE: quiet}}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", text)]).await;
    stack.open().await;
    stack.live().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    let running = stack.world.inside().told[&machine].variables.clone();
    stack.close().await;
    stack.gone().await;
    let stopped = stack.world.inside().told[&machine].clone();
    assert!(stopped.wish() == Wish::Stopped);
    assert_eq!(stopped.variables.get("MODE").map(String::as_str), Some("quiet"));
    assert_eq!(stopped.variables, running);
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_closed_at_any_stage_leaves_nothing() {
    let mut stack = Stack::start().await;
    for (hold, sign) in [
        (Hold::Hub, "Preview: "),
        (Hold::Builds, "Building images"),
        (Hold::Boot, "the machine is booting"),
        (Hold::Deploy, "Starting the services"),
    ] {
        stack.hold(hold);
        stack.open().await;
        stack.says(sign).await;
        let closed = stack.close().await;
        stack.decided(closed).await;
        stack.release(hold);
        stack.gone().await;
        assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
        assert!(stack.cloud.ever() <= 1);
        stack.next().await;
    }
    stack.end().await;
}

#[tokio::test]
async fn a_push_while_it_builds_supersedes_the_run_and_keeps_the_machine() {
    pushed_during(Hold::Builds, "Building images").await;
}

#[tokio::test]
async fn a_push_while_it_deploys_supersedes_the_run_and_keeps_the_machine() {
    pushed_during(Hold::Deploy, "Starting the services").await;
}

async fn pushed_during(hold: Hold, sign: &str) {
    let stack = Stack::start().await;
    stack.hold(hold);
    stack.open().await;
    stack.says(sign).await;
    let older = stack.sha();
    stack.push().await;
    stack.says(&stack.sha()[..12]).await;
    stack.release(hold);
    stack.live().await;
    let runs = "SELECT string_agg(state, ' ' ORDER BY generation) FROM workflow_runs";
    assert_eq!(stack.world.db.text(runs).await, "superseded succeeded");
    let sha = "SELECT sha FROM workflow_runs ORDER BY generation LIMIT 1";
    assert_eq!(stack.world.db.text(sha).await, older);
    stack.close().await;
    stack.gone().await;
    let checks = host().checks(REPO, &older);
    assert_eq!(checks.iter().map(|check| check.state.as_str()).collect::<Vec<_>>(), ["cancelled"]);
    let ended = |deployment: &Status| deployment.sha != older || deployment.state == "inactive";
    assert!(host().deployments(REPO).iter().all(ended), "{:?}", host().deployments(REPO));
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

#[tokio::test]
async fn a_host_that_a_push_takes_away_is_closed_and_not_named_any_more_until_it_comes_back() {
    let stack = Stack::start().await;
    let with: &[u8] =
        b"version: 2\npreview:\n  expose: [{service: web, port: 3000}, {service: db, port: 80, host: db}]\n";
    let without: &[u8] = b"version: 2\npreview: {expose: [{service: web, port: 3000}]}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", with)]).await;
    stack.open().await;
    stack.live().await;
    for (text, state) in [(without, "gone"), (with, "ready"), (without, "gone")] {
        git_host::commit(&stack.branch, &[("stagely.yaml", text)]).await;
        stack.deliver("synchronize").await;
        stack.live().await;
        let host = format!("db--{}", stack.hostname().await);
        let route = format!("SELECT state FROM routes WHERE host = '{host}'");
        assert_eq!(stack.world.db.text(&route).await, state);
        assert_eq!(stack.comment().contains(&host), state == "ready", "{}", stack.comment());
    }
    // What is shown instead of the preview is not shown there.
    stack.power(Power::Asleep).await;
    stack.says("Preview: Asleep").await;
    assert_eq!(stack.world.db.text("SELECT count(*) FROM routes WHERE state = 'gone'").await, "1");
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_commit_that_is_deployed_again_says_so_and_builds_nothing() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    let built = stack.world.inside().built;
    stack.redeploy().await;
    let causes = "SELECT string_agg(cause, ' ' ORDER BY generation) FROM workflow_runs WHERE live_at IS NOT NULL";
    stack.wait("the second run", async || stack.world.db.text(causes).await == "opened redeploy").await;
    assert_eq!(stack.world.inside().built, built);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn an_image_is_taken_again_only_while_all_that_its_build_reads_is_the_same() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    assert_eq!(stack.built_for(&[("web/page.html", b"new")]).await, 1);
    assert_eq!(stack.built_for(&[("README.md", b"new")]).await, 0);
    // A Dockerfile outside of its context is no part of git's name of the context.
    let compose: &[u8] =
        b"services:\n  web: {build: {context: ./web, dockerfile: web.Dockerfile}, ports: ['80:3000']}\n";
    let files = [("docker-compose.yml", compose), ("web.Dockerfile", b"FROM scratch\n")];
    assert_eq!(stack.built_for(&files).await, 1);
    assert_eq!(stack.built_for(&[("web.Dockerfile", b"FROM scratch\nUSER 7\n")]).await, 1);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn of_an_image_for_two_processors_that_of_the_machine_runs() {
    let stack = Stack::start().await;
    let both: &[u8] = b"version: 2\nbuilds:\n  web: {context: web, platforms: [linux/arm64, linux/amd64]}\n";
    git_host::commit(&stack.branch, &[("stagely.yaml", both)]).await;
    stack.open().await;
    stack.live().await;
    assert_eq!(stack.world.inside().built, 2);
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    let overlaid = stack.world.inside().told[&machine].override_yaml.clone();
    assert!(overlaid.contains("@sha256:111") && !overlaid.contains("@sha256:222"), "{overlaid}");
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_had_is_said_on_the_pull_request() {
    let stack = Stack::start().await;
    stack.cloud.refuses.lock().unwrap().0 = Some(ErrorKind::Invalid);
    stack.open().await;
    stack.says("Preview: Failed").await;
    let comment = stack.comment();
    assert!(comment.contains("machine_failed") && comment.contains("may have no machines"), "{comment}");
    assert_eq!(stack.cloud.ever(), 0);
    // The next commit is another chance.
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.push().await;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

fn offering(name: &str, micros_per_hour: u64) -> Offering {
    let price = Some(Price { micros_per_hour, currency: "EUR".to_owned() });
    let (name, location) = (name.to_owned(), "nbg1".to_owned());
    Offering { name, location, arch: Arch::Amd64, vcpus: 4, memory_mib: 8192, price, available: true }
}

#[tokio::test]
async fn a_machine_that_there_is_no_room_for_is_had_as_another_type() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("dear", 30), offering("cheap", 10), offering("fair", 20)]);
    stack.cloud.inner.fill(&["cheap"]);
    stack.open().await;
    stack.live().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    assert_eq!(stack.cloud.inner.created_as(machine), Some(offering("fair", 20)));
    assert_eq!(stack.world.db.text("SELECT tried FROM machines").await, r#"["cheap in nbg1"]"#);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_type_that_was_withdrawn_since_the_catalogue_was_read_is_had_as_another() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("old", 10), offering("new", 20)]);
    stack.cloud.inner.retire("old");
    stack.open().await;
    stack.live().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    assert_eq!(stack.cloud.inner.created_as(machine), Some(offering("new", 20)));
    assert_eq!(stack.world.db.text("SELECT tried FROM machines").await, r#"["old in nbg1"]"#);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_cloud_without_any_room_is_named_with_all_that_was_tried() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("dear", 30), offering("cheap", 10)]);
    stack.cloud.inner.fill(&["cheap", "dear"]);
    stack.open().await;
    stack.says("Preview: Failed").await;
    assert!(stack.comment().contains("tried cheap in nbg1, dear in nbg1"), "{}", stack.comment());
    assert_eq!(stack.cloud.ever(), 0);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_cloud_that_says_later_again_and_again_only_delays() {
    let stack = Stack::start().await;
    let later = ErrorKind::RateLimited { retry_after: Some(Duration::ZERO) };
    stack.cloud.refuses.lock().unwrap().0 = Some(later);
    stack.open().await;
    stack.wait("many refusals", async || stack.cloud.refuses.lock().unwrap().1 > 25).await;
    stack.cloud.refuses.lock().unwrap().0 = None;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

#[tokio::test]
async fn a_failed_deployment_leaves_no_machine_and_says_why() {
    let stack = Stack::start().await;
    stack.world.inside().failure = Some(Failure {
        code: Code::HookFailed,
        phase: "on_start".to_owned(),
        service: Some("web".to_owned()),
        exit_code: Some(3),
        message: "the hook failed".to_owned(),
        log_tail: "no such table".to_owned(),
    });
    stack.open().await;
    stack.says("Preview: Failed").await;
    assert!(stack.comment().contains("no such table"), "{}", stack.comment());
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn what_was_interrupted_while_it_was_proved_leaves_no_machine_when_it_fails() {
    let stack = Stack::start().await;
    stack.hold(Hold::Edge);
    stack.open().await;
    stack.proves().await;
    stack.kill();
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.says("config_invalid").await;
    assert!(!stack.comment().contains("still live"), "{}", stack.comment());
    stack.wait("no machine", async || stack.cloud.inner.machines().is_empty()).await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_closed_while_it_is_proved_does_not_wait_for_the_proof() {
    let stack = Stack::start().await;
    stack.hold(Hold::Edge);
    stack.open().await;
    stack.proves().await;
    stack.close().await;
    stack.gone().await;
    let run = "SELECT state FROM workflow_runs";
    assert_eq!(stack.world.db.text(run).await, "cancelled");
    stack.end().await;
}

#[tokio::test]
async fn what_a_failed_deployment_broke_is_not_called_live_by_the_next_push() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.world.inside().failure = Some(Failure {
        code: Code::Unhealthy,
        phase: "healthy".to_owned(),
        service: Some("web".to_owned()),
        exit_code: None,
        message: "it is not well".to_owned(),
        log_tail: String::new(),
    });
    stack.push().await;
    stack.says("it is not well").await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.says("config_invalid").await;
    let comment = stack.comment();
    assert!(!comment.contains("still live") && !comment.contains("**http"), "{comment}");
    assert!(!stack.is_served().await);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_hub_that_is_away_for_a_while_only_delays() {
    let stack = Stack::start().await;
    for during in ["opening", "closing"] {
        stack.hold(Hold::Hub);
        let missed = stack.world.inside().missed;
        if during == "opening" {
            stack.open().await;
        } else {
            stack.close().await;
        }
        stack.wait("the hub to be missed", async || stack.world.inside().missed > missed + 2).await;
        stack.release(Hold::Hub);
        if during == "opening" {
            stack.live().await;
        } else {
            stack.gone().await;
        }
    }
    assert_eq!(stack.cloud.ever(), 1);
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_lands_after_its_end_is_swept_away() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    stack.close().await;
    stack.gone().await;
    stack.cloud.inner.land_late(machine);
    stack.sweep_until("the late machine to go", || stack.cloud.inner.machines().is_empty()).await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_a_person_holds_stays_until_it_is_let_go() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    stack.cloud.inner.hold(machine, true);
    stack.close().await;
    let held = "SELECT count(*) FROM work WHERE kind = 'machine' AND run_after > now() + interval '1 minute'";
    stack.wait("the hold to be seen", async || stack.world.db.text(held).await == "1").await;
    assert_eq!(stack.cloud.inner.machines(), [machine]);
    stack.cloud.inner.hold(machine, false);
    stack.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'machine'").await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn what_a_machine_left_behind_goes_and_what_is_held_shared_or_in_use_stays() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    let [closed] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    stack.close().await;
    stack.gone().await;
    let mut stack = stack;
    stack.next().await;
    stack.open().await;
    stack.live().await;
    let [live] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    let installation = stack.cloud.inner.find(live).await.unwrap()[0].installation;
    let residue = |id: &str, machine: Option<MachineId>, hold: bool| Residue {
        kind: ResidueKind::Volume,
        id: id.to_owned(),
        installation,
        machine,
        image: None,
        created_at: None,
        hold,
    };
    stack.cloud.inner.leave_behind(vec![
        residue("left", Some(closed), false),
        residue("held", Some(closed), true),
        residue("used", Some(live), false),
        residue("shared", None, false),
    ]);
    // Another process has not looked yet.
    stack.kill();
    let left = || stack.cloud.inner.residue().iter().map(|residue| residue.id.clone()).collect::<Vec<_>>();
    stack.sweep_until("what was left to go", || left() == ["held", "used", "shared"]).await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_pull_request_opened_again_while_its_preview_is_removed_gets_another_once_that_is_gone() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    let first = stack.hostname().await;
    stack.hold(Hold::Hub);
    let closed = stack.close().await;
    stack.decided(closed).await;
    host().change(REPO, stack.number, |pull| pull.open = true);
    let reopened = stack.deliver("reopened").await;
    let waits = format!(
        "SELECT count(*) FROM work WHERE key = '{}' AND run_after BETWEEN now() + interval '1 minute' AND now() + interval '1 hour'",
        reopened.uuid()
    );
    stack.wait("the delivery to wait", async || stack.world.db.text(&waits).await == "1").await;
    stack.release(Hold::Hub);
    stack.decided(reopened).await;
    stack.live().await;
    assert_ne!(stack.hostname().await, first);
    let decision = format!("SELECT decision FROM inbox WHERE id = '{}'", reopened.uuid());
    assert_eq!(stack.world.db.text(&decision).await, "applied");
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_close_that_nobody_told_us_of_is_noticed() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    host().close_silently(REPO, stack.number);
    // A start compares everything that is at rest with the git host.
    stack.kill();
    stack.gone().await;
    assert!(stack.comment().contains("Preview: Removed"), "{}", stack.comment());
    stack.end().await;
}

#[tokio::test]
async fn a_live_preview_that_loses_its_machine_gets_another_but_no_more_time() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.age().await;
    let end = "SELECT expires_at FROM environments";
    let promised = stack.world.db.text(end).await;
    stack.lose_the_machine().await;
    stack.replaced().await;
    let causes = "SELECT string_agg(cause, ' ' ORDER BY generation) FROM workflow_runs";
    assert_eq!(stack.world.db.text(causes).await, "opened machine_lost");
    assert_eq!(stack.world.db.text(end).await, promised);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_whose_agent_alone_is_silent_for_long_is_replaced_and_the_comment_says_so() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.age().await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    stack.world.db.execute("UPDATE agent_connections SET last_seen_at = now() - interval '11 minutes'").await;
    stack.kill();
    stack.says("The machine does not answer").await;
    stack.world.db.execute("UPDATE environments SET updated_at = now() - interval '11 minutes'").await;
    stack.kill();
    stack.a_neighbour_is_heard().await;
    let replacements = "SELECT count(*) FROM workflow_runs WHERE cause = 'machine_lost' AND live_at IS NOT NULL";
    stack.wait("a replacement", async || stack.world.db.text(replacements).await == "1").await;
    stack.says("without its data").await;
    stack.wait("the end of the silent one", async || !stack.cloud.inner.machines().contains(&machine)).await;
    stack.live().await;
    stack.close().await;
    stack.says("Preview: Removed").await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_is_lost_at_once_is_not_replaced_and_nothing_is_said_to_be_live() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.lose_the_machine().await;
    stack.says("Preview: Failed").await;
    let comment = stack.comment();
    assert!(comment.contains("the machine is not there any more") && !comment.contains("still live"), "{comment}");
    assert!(!stack.is_served().await && stack.cloud.ever() == 1);
    // Nor later, when it looks as if it had been live for long.
    let looks = "SELECT lease_until < now() AND lease_owner IS NULL AND run_after > now() + interval '1 minute' \
                 FROM work WHERE kind = 'environment'";
    stack.world.db.execute("UPDATE machines SET drop_at = drop_at - interval '10 minutes'").await;
    stack.age().await;
    stack.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'environment'").await;
    stack.wait("another look", async || stack.world.db.text(looks).await == "true").await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.push().await;
    stack.live().await;
    stack.close().await;
    stack.gone().await;
    assert!(!stack.comment().contains("not there any more"), "{}", stack.comment());
    stack.end().await;
}

#[tokio::test]
async fn a_preview_that_loses_its_machine_asleep_gets_another_at_the_next_visit() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.age().await;
    stack.power(Power::Asleep).await;
    stack.says("Preview: Asleep").await;
    stack.lose_the_machine().await;
    let lost = "SELECT count(*) FROM machines WHERE gone_at IS NOT NULL";
    stack.wait("the loss to be noticed", async || stack.world.db.text(lost).await == "1").await;
    assert!(stack.comment().contains("Preview: Asleep") && stack.cloud.ever() == 1, "{}", stack.comment());
    stack.power(Power::Awake).await;
    stack.replaced().await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_preview_that_loses_its_machine_while_waking_gets_another() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.age().await;
    stack.power(Power::Asleep).await;
    stack.says("Preview: Asleep").await;
    let [machine] = stack.cloud.inner.machines()[..] else { panic!("one machine") };
    stack.cloud.inner.power_off(machine);
    stack.power(Power::Awake).await;
    stack.replaced().await;
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_push_that_fails_before_anything_is_replaced_wakes_what_slept() {
    let stack = Stack::start().await;
    stack.open().await;
    stack.live().await;
    stack.power(Power::Asleep).await;
    stack.says("Preview: Asleep").await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"previw: {}\n")]).await;
    stack.deliver("synchronize").await;
    stack.says("The commit before it is still live").await;
    stack.wait("the commit before it", async || stack.is_served().await).await;
    assert_eq!(stack.cloud.ever(), 1);
    stack.close().await;
    stack.gone().await;
    stack.end().await;
}

#[tokio::test]
async fn a_database_that_was_restored_does_not_take_newer_machines_for_orphans() {
    let stack = Stack::start().await;
    stack
        .wait("a sweep", async || {
            stack.world.db.text("SELECT count(*) FROM sweeps WHERE blind_from IS NULL").await == "1"
        })
        .await;
    let installation = stack.world.db.store().ensure_installation().await.unwrap();
    let made = [1, 3].map(|hours| {
        let at = SystemClock.now() - TimeDelta::hours(hours);
        let stamp = Timestamp::from_unix(NoContext, at.timestamp().unsigned_abs(), 0);
        MachineId::from_uuid(Uuid::new_v7(stamp))
    });
    for machine in made {
        let request = CreateRequest { machine, ..contract::request(installation, &SystemClock) };
        stack.cloud.inner.create(&request).await.unwrap();
    }
    // This database ends two hours ago; what was made an hour ago was made by the one that it replaces.
    stack.world.db.execute("UPDATE sweeps SET swept_at = now() - interval '2 hours'").await;
    let found = stack.sweep().await;
    assert_eq!((found.forgotten, found.orphans, found.seen), (1, 1, 2));
    assert_eq!(stack.sweep().await.forgotten, 1);
    let blind = "SELECT count(*) FROM sweeps WHERE blind_from IS NOT NULL";
    assert_eq!(stack.world.db.text(blind).await, "1");
    // A person looks, and removes it.
    stack.cloud.inner.power_off(made[0]);
    let found = stack.sweep().await;
    assert_eq!((found.forgotten, found.orphans), (0, 1));
    assert_eq!(stack.world.db.text(blind).await, "0");
    stack.cloud.inner.power_off(made[1]);
    stack.end().await;
}

use serde_json::json;

use super::{Verdict, judge};
use crate::docker::Container;

fn container(service: &str, status: &str, code: i32, health: &str, restart: &str) -> Container {
    serde_json::from_value(json!({
        "Id": service, "Name": format!("/p-{service}-1"), "RestartCount": 0,
        "State": {"Status": status, "ExitCode": code, "Health": {"Status": health}},
        "Config": {"Image": "x", "Labels": {"com.docker.compose.service": service}},
        "HostConfig": {"NetworkMode": "p", "RestartPolicy": {"Name": restart}},
    }))
    .unwrap()
}

#[test]
fn healthy_and_plain_running_services_and_finished_one_shots_are_ready() {
    let containers = [
        container("db", "running", 0, "healthy", "always"),
        container("web", "running", 0, "none", "no"),
        container("migrate", "exited", 0, "none", "no"),
    ];
    assert!(matches!(judge(&containers, ""), Verdict::Ready));
}

#[test]
fn a_service_that_ended_badly_is_named_with_its_exit_code() {
    let containers = [container("db", "running", 0, "starting", "no"), container("web", "exited", 3, "none", "no")];
    let Verdict::Failed(fault) = judge(&containers, "") else {
        panic!("not failed");
    };
    assert_eq!((fault.service.as_str(), fault.exit_code), ("web", 3));
}

#[test]
fn an_unhealthy_service_may_still_recover() {
    let containers = [container("db", "running", 0, "unhealthy", "no")];
    let Verdict::Waiting(fault) = judge(&containers, "") else {
        panic!("not waiting");
    };
    assert!(fault.message.contains("unhealthy"), "{}", fault.message);
}

#[test]
fn a_crash_loop_is_given_up() {
    let mut looping = container("web", "restarting", 1, "none", "always");
    assert!(matches!(judge(&[looping.clone()], ""), Verdict::Waiting(_)));
    looping.restart_count = 5;
    assert!(matches!(judge(&[looping], ""), Verdict::Failed(_)));
}

#[test]
fn only_the_named_service_counts_when_there_is_one() {
    let containers = [container("web", "running", 0, "none", "no"), container("worker", "exited", 1, "none", "no")];
    assert!(matches!(judge(&containers, "web"), Verdict::Ready));
    assert!(matches!(judge(&containers, "api"), Verdict::Failed(_)));
}

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use stagely_domain::clock::SystemClock;
use stagely_domain::id::InstallationId;

use super::{BAKE, GENERALISE, INSTALL, START, deadline, render};
use crate::contract::request;
use crate::{AgentDownload, Bake, CreateRequest, ErrorKind};

/// What every provider takes.
const LIMIT: usize = 16 * 1024;

fn wanted() -> CreateRequest {
    request(InstallationId::generate(), &SystemClock)
}

fn baking(images: &[&str]) -> CreateRequest {
    let bake = Bake { base_images: images.iter().map(|image| (*image).to_owned()).collect() };
    let agent = AgentDownload { url: "http://127.0.0.1:1/agent".to_owned(), sha256: "0".repeat(64) };
    CreateRequest { bake: Some(bake), agent, ..wanted() }
}

fn document(text: &str) -> Value {
    serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap()
}

fn paths(document: &Value) -> Vec<&str> {
    document["write_files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect()
}

#[test]
fn the_deadline_is_armed_first_and_the_agent_is_pinned() {
    let mut wanted = wanted();
    wanted.agent.url = "https://x/$(reboot)'\"agent".to_owned();
    wanted.agent.sha256 = "0".repeat(64);
    let text = render(&wanted, LIMIT).unwrap();
    let document = document(&text);
    let first = document["bootcmd"][0][2].as_str().unwrap();
    assert!(first.contains("systemctl start --no-block stagely-deadline.timer") && first.contains("OnActiveSec=600\n"));
    let start = document["runcmd"][0].as_array().unwrap();
    assert_eq!((&start[4], &start[5]), (&wanted.agent.url.into(), &wanted.agent.sha256.into()));
    assert!(paths(&document).contains(&"/etc/stagely/agent.json"));
    assert!(text.len() < LIMIT / 2, "{} bytes", text.len());
}

#[test]
fn a_machine_without_an_agent_installs_nothing_and_has_its_deadline() {
    let text = render(&wanted(), LIMIT).unwrap();
    let document = document(&text);
    assert!(document["bootcmd"][0][2].as_str().unwrap().contains("stagely-deadline.timer"));
    let runs = document["runcmd"].as_array().unwrap();
    assert!(runs.iter().all(|run| !run.to_string().contains("stagely-install")), "{runs:?}");
}

#[test]
fn a_machine_that_bakes_without_an_agent_ends_as_it_is() {
    let text = render(&CreateRequest { bake: Some(Bake::default()), ..wanted() }, LIMIT).unwrap();
    assert_eq!(document(&text)["runcmd"], serde_json::json!([["systemctl", "--no-block", "poweroff"]]));
    assert!(!text.contains("contract-token"));
}

#[test]
fn a_machine_that_bakes_has_more_time_and_knows_no_secret() {
    let wanted = baking(&["debian:13-slim", "registry.example:5000/team/base@sha256:00"]);
    let text = render(&wanted, LIMIT).unwrap();
    let document = document(&text);
    assert!(document["bootcmd"][0][2].as_str().unwrap().contains("OnActiveSec=7200\n"));
    assert!(!paths(&document).contains(&"/etc/stagely/agent.json"));
    for secret in ["contract-token", &wanted.machine.to_string(), "BEGIN CERTIFICATE", "hub_url"] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(!text.contains("enable --now"));
    let bake = document["runcmd"][1].as_array().unwrap();
    assert_eq!(bake[4..], [Value::from("debian:13-slim"), "registry.example:5000/team/base@sha256:00".into()]);
    assert!(text.len() < LIMIT * 3 / 4, "{} bytes", text.len());
}

/// A machine that powers itself off says that its bake went well, so nothing that fails may do it.
#[test]
fn a_bake_powers_off_as_its_last_step_and_at_its_deadline_and_nowhere_else() {
    let text = render(&baking(&["debian:13-slim"]), LIMIT).unwrap();
    let count = |word: &str| text.matches(word).count();
    assert_eq!((count("poweroff"), count("shutdown"), count("reboot"), count("halt")), (2, 0, 0, 0));
    let first = document(&text)["bootcmd"][0][2].as_str().unwrap().to_owned();
    assert!(first.contains("|| systemctl poweroff"), "{first}");
    assert!(GENERALISE.contains("\nset -eu\n") && GENERALISE.ends_with("\nsystemctl poweroff\n"));
}

#[test]
fn what_is_no_image_is_never_sent() {
    for image in ["", "-v", "a b", "x;reboot", "$(reboot)", "a\nb", "--all", "/etc", &"x".repeat(256)] {
        let error = render(&baking(&["debian", image]), LIMIT).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{image:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_sent() {
    let mut wanted = wanted();
    wanted.config.ca_pem = "x".repeat(20_000);
    let error = render(&wanted, LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(!error.to_string().contains("contract-token"));
}

#[test]
fn every_script_is_one_that_a_shell_reads() {
    let first = deadline(super::UNENROLLED);
    for script in [INSTALL, BAKE, GENERALISE, START, &first] {
        let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success(), "{script}");
    }
}

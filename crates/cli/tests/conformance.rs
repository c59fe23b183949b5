//! The providers' contract at an account, which is a double's.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cloud::hetzner::{Double, READ_ONLY, TOKEN};
use crate::stand::stagely;

const NO_WAITING: [&str; 2] = ["--look-millis", "1"];

fn conformance(double: &Double, token: &str, arguments: &[&str]) -> (i32, String, String) {
    let endpoint = format!("{}/v1", double.url());
    let arguments: Vec<&str> =
        ["cloud", "conformance", "--account", "hetzner"].iter().chain(arguments).copied().collect();
    stagely(&arguments, &[("HCLOUD_TOKEN", token), ("HCLOUD_ENDPOINT", &endpoint)])
}

fn made(double: &Double) -> usize {
    double.world().requests.iter().filter(|request| *request == "POST /v1/servers").count()
}

fn left(double: &Double) -> (usize, usize) {
    let world = double.world();
    (world.accounts[0].machines.len(), world.accounts[0].things.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_will_make_is_said_first_and_refused_when_it_may_cost_too_much() {
    let double = Double::start().await;
    let (code, out, err) = conformance(&double, TOKEN, &["--max-spend", "0.05"]);
    assert!(code == 2 && err.contains("--max-spend allows 0.05 EUR"), "{code} {err}");
    assert!(out.contains("times cx23 in") && out.contains("an hour, by the hour that was begun"), "{out}");
    let (code, out, err) = conformance(&double, TOKEN, &["--max-spend", "1.00", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(made(&double), 0, "nothing was made");
    let (code, _, err) = conformance(&double, TOKEN, &["--max-spend", "1.00", "--location", "moon1"]);
    assert!(code == 2 && err.contains("no machine"), "{code} {err}");
    let (code, _, err) = conformance(&double, TOKEN, &[]);
    assert!(code == 2 && err.contains("--max-spend"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_what_it_must_is_told_so_and_left_clean() {
    let double = Double::start().await;
    {
        let knobs = &mut double.world().knobs;
        // The command waits a second before each look at what goes on.
        (knobs.bakes_at_once, knobs.looks) = (true, 1);
    }
    let (code, out, err) = conformance(&double, TOKEN, &[&["--max-spend", "1.00"][..], &NO_WAITING].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("all that was asked holds; nothing is left\n"), "{out}");
    let lines = |end: &str| out.lines().filter(|line| line.contains(end)).count();
    assert_eq!((lines(": ok"), lines("not asked here")), (17, 0), "{out}");
    assert_eq!(left(&double), (0, 0));
    // What was set aside beforehand was enough for all that was made.
    let said = out.lines().filter_map(|line| line.trim_start().split_once(" times ")).map(|(count, _)| count);
    let planned: usize = said.map(|count| count.parse::<usize>().unwrap()).sum();
    assert!(made(&double) <= planned, "{} made, {planned} planned", made(&double));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_fails_case_by_case() {
    let double = Double::start().await;
    let (code, out, err) = conformance(&double, READ_ONLY, &[&["--max-spend", "1.00"][..], &NO_WAITING].concat());
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    let line = |begin: &str| out.lines().find(|line| line.starts_with(begin)).unwrap_or_default().to_owned();
    assert!(line("  1  good").contains("not ok: check the access: expected success, got Permission"), "{out}");
    assert!(line(" 39  ").ends_with(": ok"), "{out}");
    assert!(line("  4  ").contains("not ok: create a machine"), "{out}");
    assert!(out.ends_with("not ok; nothing is left\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_it_finds_the_account_clean() {
    let double = Double::start().await;
    let endpoint = format!("{}/v1", double.url());
    let mut child = Command::new(env!("CARGO_BIN_EXE_stagely"))
        .args(["cloud", "conformance", "--account", "hetzner", "--max-spend", "1.00", "--look-millis", "100"])
        .env_clear()
        .envs([("HCLOUD_TOKEN", TOKEN), ("HCLOUD_ENDPOINT", &endpoint)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let exists = async {
        while double.world().accounts[0].machines.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), exists).await.expect("it makes no machine");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || {
        let (mut first, mut rest) = (String::new(), String::new());
        out.read_line(&mut first).unwrap();
        out.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap().code(), first + &rest)
    });
    let (code, out) = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it does not end").unwrap();
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(": interrupted\n") && out.ends_with("nothing is left\n"), "{out}");
    assert_eq!(left(&double), (0, 0), "{out}");
}

//! The edges between crates and services are those of `docs/architecture.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Edges = BTreeMap<String, BTreeSet<String>>;

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The lists of one table of the file: plain enough to be read line by line.
fn written(table: &str) -> Edges {
    let text = std::fs::read_to_string(workspace().join("docs/architecture.toml")).unwrap();
    let (_, rest) = text.split_once(&format!("[{table}]\n")).unwrap();
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let entry = |line: &str| {
        let (name, list) = line.split_once(" = ")?;
        let list = list.trim_matches(['[', ']']).split(", ").map(|item| item.trim_matches('"').to_owned());
        Some((name.to_owned(), list.filter(|item| !item.is_empty()).collect()))
    };
    lines.filter_map(entry).collect()
}

#[test]
fn crates_depend_only_on_what_the_map_allows() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--format-version=1", "--offline"]).current_dir(workspace());
    let output = command.output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &str| name.trim_start_matches("stagely-").to_owned();
    let mut found = Edges::new();
    for package in metadata["packages"].as_array().unwrap() {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter(|dependency| dependency["kind"].is_null() && dependency["source"].is_null());
        let names = ours.map(|dependency| short(dependency["name"].as_str().unwrap())).collect();
        found.insert(short(package["name"].as_str().unwrap()), names);
    }
    assert_eq!(found, written("crates"));
}

#[test]
fn services_call_only_whom_the_map_allows() {
    let peers = [
        ("Peer::Api", "api"),
        ("Peer::Orchestrator", "orchestrator"),
        ("Peer::BuilderScheduler", "builder-scheduler"),
        ("Peer::AgentHub", "agent-hub"),
        ("Peer::EdgeProxy", "edge-proxy"),
        ("Peer::Reaper", "reaper"),
    ];
    let mut found = Edges::new();
    for name in written("grpc").keys() {
        let mut called = BTreeSet::new();
        let mut open = vec![workspace().join("crates").join(name).join("src")];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split(".connect(").skip(1).map(|rest| &rest[..rest.len().min(60)]);
                for call in calls {
                    called.extend(
                        peers.iter().filter(|(peer, _)| call.starts_with(peer)).map(|(_, name)| (*name).to_owned()),
                    );
                }
            }
        }
        found.insert(name.clone(), called);
    }
    assert_eq!(found, written("grpc"));
}

//! One call to `qemu` in a process of its own, for tests that kill it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::qemu::{Config, Qemu};
use stagely_cloud::{Cloud, ProviderId, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use tokio::process::Command;
use tokio::time::timeout;

/// What the process is told by.
const TOLD: &str = "STAGELY_TEST_CALL";

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Call {
    Create,
    Hibernate,
    Wake,
    Delete,
}

/// A call about a machine.
#[derive(serde::Serialize, serde::Deserialize)]
struct Told {
    call: Call,
    machine: MachineId,
    installation: InstallationId,
    paths: BTreeMap<String, PathBuf>,
}

/// Has another process make the call, and kills it after a while; true when it had ended well by then.
pub async fn killed_after(
    time: Duration,
    config: &Config,
    call: Call,
    machine: MachineId,
    installation: InstallationId,
) -> bool {
    let Config { state_dir, image_dir, agent_binary, .. } = config.clone();
    let paths = [("state", state_dir), ("image", image_dir), ("agent", agent_binary)];
    let paths = paths.into_iter().map(|(name, path)| (name.to_owned(), path)).collect();
    let told = serde_json::to_string(&Told { call, machine, installation, paths }).unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim::makes_one_call"])
        .env(TOLD, told)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    match timeout(time, process.wait()).await {
        Ok(ended) => {
            assert!(ended.unwrap().success(), "{call:?} failed");
            true
        }
        Err(_) => {
            process.kill().await.unwrap();
            false
        }
    }
}

#[tokio::test]
#[ignore = "started, and killed, by a test of qemu"]
#[expect(clippy::disallowed_methods, reason = "what to do is told by the environment")]
async fn makes_one_call() {
    let Told { call, machine, installation, mut paths } = serde_json::from_str(&std::env::var(TOLD).unwrap()).unwrap();
    let mut path = |name: &str| paths.remove(name).unwrap();
    let config =
        Config { state_dir: path("state"), image_dir: path("image"), agent_binary: path("agent"), templates: true };
    let cloud = Qemu::new(config, Arc::new(SystemClock)).unwrap();
    let id = ProviderId(machine.label());
    match call {
        Call::Create => {
            let mut request = contract::request(installation, &SystemClock);
            request.machine = machine;
            request.config.machine = machine;
            cloud.create(&request).await.map(drop)
        }
        Call::Hibernate => cloud.hibernate(&id).await.map(drop),
        Call::Wake => cloud.wake(&id).await.map(drop),
        Call::Delete => cloud.delete(&id).await.map(drop),
    }
    .unwrap();
}

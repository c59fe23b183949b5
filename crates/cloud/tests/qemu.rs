use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::qemu::{Config, Qemu};
use stagely_cloud::{Cloud, DeleteProgress, ProviderId, VmState, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};
use tokio::time::{Instant, sleep};

use crate::victim::{Call, killed_after};

/// Between one moment at which a process is killed and the next.
const STEP: Duration = Duration::from_millis(100);

/// Set by `cargo xtask test e2e`, which has built both.
#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn artifact(name: &str) -> PathBuf {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test e2e`")).into()
}

#[tokio::test]
#[ignore = "boots real machines: cargo xtask test e2e"]
async fn qemu_keeps_the_contract_with_cold_machines() {
    let state = tempfile::tempdir().unwrap();
    let config = Config {
        state_dir: state.path().to_owned(),
        image_dir: artifact("STAGELY_TEST_IMAGE_DIR"),
        agent_binary: artifact("STAGELY_TEST_AGENT"),
        templates: false,
    };
    let clock = Arc::new(SystemClock);
    contract::keeps(&Qemu::new(config, clock).unwrap(), &SystemClock, &[39, 29, 28]).await;
    let left: Vec<_> = std::fs::read_dir(state.path().join("machines")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "boots real machines: cargo xtask test e2e"]
async fn qemu_keeps_the_contract_with_copies_of_a_template() {
    let state = tempfile::tempdir().unwrap();
    let config = Config {
        state_dir: state.path().to_owned(),
        image_dir: artifact("STAGELY_TEST_IMAGE_DIR"),
        agent_binary: artifact("STAGELY_TEST_AGENT"),
        templates: true,
    };
    let qemu = Qemu::new(config.clone(), Arc::new(SystemClock)).unwrap();
    let (cold, ()) = timed(async { qemu.prepare(Size::Small, Arch::Amd64).await.unwrap() }).await;
    let request = contract::request(InstallationId::generate(), &SystemClock);
    let (restored, created) = timed(async { qemu.create(&request).await.unwrap() }).await;
    let (asleep, _) = timed(async { qemu.hibernate(&created.id).await.unwrap() }).await;
    let (awake, _) = timed(async { qemu.wake(&created.id).await.unwrap() }).await;
    qemu.delete(&created.id).await.unwrap();
    println!("cold {cold:?}, restored with its identity {restored:?}, hibernated {asleep:?}, woken {awake:?}");
    contract::keeps(&qemu, &SystemClock, &[39, 29, 28]).await;
    let left: Vec<_> = std::fs::read_dir(state.path().join("machines")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    for call in [Call::Create, Call::Hibernate, Call::Wake, Call::Delete] {
        let mut moments = 0;
        while !interrupted(&config, call, STEP * moments, moments % 2 == 0).await {
            moments += 1;
            assert!(moments < 100, "{call:?} does not end");
        }
        println!("{call:?}: killed at {moments} moments, and nothing was left");
    }
}

/// A process was killed between the two steps of a removal: its machine is nowhere, and its disk in the trash.
#[tokio::test]
async fn what_a_removal_left_in_the_trash_is_removed_by_its_repetition_and_at_the_start() {
    let state = tempfile::tempdir().unwrap();
    let config = Config {
        state_dir: state.path().to_owned(),
        image_dir: state.path().to_owned(),
        agent_binary: state.path().join("agent"),
        templates: false,
    };
    let machine = MachineId::generate();
    let grave = state.path().join("trash").join(machine.label());
    let bury = || {
        std::fs::create_dir_all(&grave).unwrap();
        std::fs::write(grave.join("disk.qcow2"), "data").unwrap();
    };
    let qemu = Qemu::new(config.clone(), Arc::new(SystemClock)).unwrap();
    bury();
    assert_eq!(qemu.delete(&ProviderId(machine.label())).await.unwrap(), DeleteProgress::Gone);
    assert!(!grave.exists(), "the repetition left it");
    bury();
    Qemu::new(config, Arc::new(SystemClock)).unwrap();
    assert!(!grave.exists(), "the start left it");
}

/// The process that makes the call is killed after a while. Another makes the call again and gets what was wanted, or wants
/// nothing of it any more; deleted, nothing is left. True when the call had ended by then.
async fn interrupted(config: &Config, call: Call, after: Duration, again: bool) -> bool {
    let next = Qemu::new(config.clone(), Arc::new(SystemClock)).unwrap();
    let request = contract::request(InstallationId::generate(), &SystemClock);
    let (machine, installation) = (request.machine, request.installation);
    if call != Call::Create {
        let created = next.create(&request).await.unwrap();
        if call == Call::Wake {
            next.hibernate(&created.id).await.unwrap();
        }
    }
    let had_ended = killed_after(after, config, call, machine, installation).await;
    let listed = next.list(installation).await.unwrap();
    assert!(listed.complete && listed.vms.len() <= 1, "{call:?} after {after:?}: {listed:?}");
    let id = ProviderId(machine.label());
    let wanted = match call {
        _ if !again => None,
        Call::Create => {
            next.create(&request).await.unwrap();
            Some(VmState::Running)
        }
        Call::Hibernate => {
            next.hibernate(&id).await.unwrap();
            Some(VmState::Hibernated)
        }
        Call::Wake => {
            next.wake(&id).await.unwrap();
            Some(VmState::Running)
        }
        Call::Delete => None,
    };
    if let Some(wanted) = wanted {
        let states: Vec<_> = next.list(installation).await.unwrap().vms.into_iter().map(|vm| vm.state).collect();
        assert_eq!(states, [wanted], "{call:?} after {after:?}");
    }
    next.delete(&id).await.unwrap();
    let label = machine.label();
    assert!(
        !config.state_dir.join("machines").join(&label).exists(),
        "{call:?} after {after:?}: its directory is left"
    );
    // Who watched over its process ends a moment later.
    let until = Instant::now() + Duration::from_secs(10);
    while is_run(&label) {
        assert!(Instant::now() < until, "{call:?} after {after:?}: a process is left");
        sleep(Duration::from_millis(10)).await;
    }
    had_ended
}

/// Whether a process was started with this in its arguments.
fn is_run(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    commands.any(|command| String::from_utf8_lossy(&command).contains(word))
}

async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = Instant::now();
    let done = work.await;
    (begun.elapsed(), done)
}

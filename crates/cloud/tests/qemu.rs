use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::Cloud;
use stagely_cloud::contract;
use stagely_cloud::qemu::{Config, Qemu};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::InstallationId;
use stagely_domain::machine::{Arch, Size};

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
    let qemu = Qemu::new(config, Arc::new(SystemClock)).unwrap();
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
}

async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = tokio::time::Instant::now();
    let done = work.await;
    (begun.elapsed(), done)
}

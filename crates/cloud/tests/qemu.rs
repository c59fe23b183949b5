use std::path::PathBuf;
use std::sync::Arc;

use stagely_cloud::qemu::{Config, Qemu};
use stagely_domain::clock::SystemClock;

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
    stagely_cloud::contract::run(&Qemu::new(config, clock).unwrap(), &SystemClock).await;
    let left: Vec<_> = std::fs::read_dir(state.path().join("machines")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

//! Where a machine is made: what `preview.region`, `preview.provider` and `preview.arch` say, and what is said of it.

use stagely_cloud::Offering;
use stagely_domain::account::Settings;
use stagely_domain::id::{CloudAccountId, MachineId};
use stagely_domain::machine::{Arch, Provider};
use stagely_domain::secret::Secret;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;

use crate::stack::Stack;
use crate::{clouds, git_host};

fn offering(name: &str, location: &str) -> Offering {
    let (name, location) = (name.to_owned(), location.to_owned());
    Offering { name, location, arch: Arch::Amd64, vcpus: 4, memory_mib: 8192, price: None, available: true }
}

async fn push(stack: &Stack, yaml: &str) {
    git_host::commit(&stack.branch, &[("stagely.yaml", yaml.as_bytes())]).await;
    stack.deliver("synchronize").await;
}

/// Another account of the stack's team, which nobody asks for machines.
async fn insert_hetzner(stack: &Stack) {
    let db = &stack.world.db;
    let team = db.store().find_team("acme").await.unwrap().unwrap();
    let id = CloudAccountId::generate();
    let ring = KeyRing::single(&Secret::new(clouds::KEY.repeat(32))).unwrap();
    let account = CloudAccount {
        id,
        team,
        name: "hetzner-eu".to_owned(),
        kind: Provider::Hetzner,
        settings: Settings { ingress_from: vec!["198.51.100.7/32".to_owned()], ..Settings::default() },
        credentials_sealed: Some(ring.seal(&CloudAccount::place(id, team), br#"{"token":"t"}"#).unwrap()),
        generation: 1,
    };
    let tx = db.store().begin().await.unwrap();
    tx.insert_cloud_account(&account).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_wish_for_regions_is_kept_in_its_order_and_the_next_is_tried_when_one_is_full() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("a", "fsn1"), offering("n", "nbg1"), offering("h", "hel1")]);
    stack.cloud.inner.fill(&["n"]);
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\npreview:\n  region: [nbg1, hel1]\n")]).await;
    stack.open_until_live().await;
    let machine = stack.only_machine();
    assert_eq!(stack.cloud.inner.created_as(machine), Some(offering("h", "hel1")));
    assert_eq!(stack.world.db.text("SELECT locations FROM machines").await, r#"["nbg1", "hel1"]"#);
    // Punctuation of others' words is escaped in Markdown.
    let comment = stack.comment();
    assert!(comment.contains(r"on h in hel1 \(no room\: n in nbg1\)"), "{comment}");
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_region_that_the_account_does_not_have_fails_the_run_and_names_those_that_it_has() {
    let stack = Stack::start().await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\npreview:\n  region: nbg1\n")]).await;
    stack.open().await;
    stack.wait_for_comment("knows no regions").await;
    stack.cloud.inner.sell(vec![offering("a", "fsn1"), offering("h", "hel1")]);
    stack.world.db.execute("UPDATE cloud_providers SET generation = generation + 1").await;
    push(&stack, "version: 2\npreview:\n  region: [fsn1, mars1]\n").await;
    stack.wait_for_comment("it has fsn1, hel1").await;
    assert!(stack.comment().contains("mars1"), "{}", stack.comment());
    assert_eq!(stack.cloud.ever(), 0);
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_region_that_cannot_be_read_is_not_said_to_be_missing() {
    let stack = Stack::start().await;
    stack.cloud.inner.sell(vec![offering("a", "fsn1"), offering("h", "hel1")]);
    stack.cloud.inner.cut_off(Some("hel1"));
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\npreview:\n  region: hel1\n")]).await;
    stack.open().await;
    stack.wait_for_comment("hel1 does not answer").await;
    // Nor does it keep a machine from another that is wished for as well.
    push(&stack, "version: 2\npreview:\n  region: [hel1, fsn1]\n").await;
    stack.wait_until_live().await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_processor_that_the_account_has_not_is_refused_before_there_is_a_machine() {
    let stack = Stack::start().await;
    stack.cloud.has_only(&[Arch::Amd64]);
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\npreview:\n  arch: arm64\n")]).await;
    stack.open().await;
    stack.wait_for_comment("metal").await;
    let comment = stack.comment();
    assert!(comment.contains("has no arm64 machines") && comment.contains("such as AWS or Hetzner"), "{comment}");
    insert_hetzner(&stack).await;
    push(&stack, "version: 2\npreview:\n  arch: arm64\n# Again\n").await;
    stack.wait_for_comment(r"hetzner\-eu").await;
    assert_eq!(stack.world.db.text("SELECT count(*) FROM machines WHERE role = 'preview'").await, "0");
    push(&stack, "version: 2\npreview:\n  provider: nowhere\n").await;
    stack.wait_for_comment("no cloud account").await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_processor_that_there_is_no_agent_for_is_refused_before_a_machine_is_made() {
    let stack = Stack::start().await;
    git_host::commit(&stack.branch, &[("stagely.yaml", b"version: 2\npreview:\n  arch: arm64\n")]).await;
    stack.open().await;
    stack.wait_for_comment("no agent for arm64 machines").await;
    assert_eq!(stack.world.db.text("SELECT count(*) FROM machines WHERE role = 'preview'").await, "0");
    // One that was wished for while there was an agent for it.
    let machine = MachineId::generate();
    let wished = format!(
        "INSERT INTO machines (id, team_id, project_id, account_id, role, size, arch, state, expires_at) \
         SELECT '{}', team_id, id, cloud_provider_id, 'builder', 'small', 'arm64', 'intended', now() + interval '1 hour' \
         FROM projects",
        machine.uuid(),
    );
    stack.world.db.execute(&wished).await;
    stack.restart_and_wake(machine).await;
    let failure = format!("SELECT failure->>'message' FROM machines WHERE id = '{}'", machine.uuid());
    stack.wait("a refusal", async || stack.world.db.text(&failure).await.contains("`agent_binaries.arm64`")).await;
    assert_eq!(stack.cloud.ever(), 0);
    stack.close_and_end().await;
}

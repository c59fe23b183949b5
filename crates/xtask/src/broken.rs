//! Tests that bite: the work queue, and what makes and removes machines, are broken on purpose in a copy of the
//! workspace, and the test that is there for it must fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::{cargo, print_result, progress, workspace};

/// One way to break it.
struct Variant {
    what: &'static str,
    file: &'static str,
    /// What is right, and what stands in its place.
    changes: &'static [(&'static str, &'static str)],
    /// Where the test is that must notice.
    suite: &'static [&'static str],
    test: &'static str,
}

// The two packages on which everything else depends are selected too, so that all that they need is there already, with the
// features that it has for the other tests.
const STORE: &[&str] = &["-p", "stagely-store", "-p", "stagely-standalone", "-p", "xtask", "--test", "main"];
const ORCHESTRATOR: &[&str] = &["-p", "stagely-orchestrator", "-p", "stagely-standalone", "-p", "xtask", "--lib"];
const SIMULATION: &str = "reconcile::simulation::\
                          after_all_that_can_go_wrong_the_cloud_holds_what_the_rows_intend_and_cost_no_more";

const VARIANTS: [Variant; 8] = [
    Variant {
        what: "a holder whose lease lapsed may still finish",
        file: "crates/store/src/work.rs",
        changes: &[("epoch = $3", "epoch >= $3")],
        suite: STORE,
        test: "work::a_lease_keeps_others_away_until_it_lapses_and_the_stale_holder_is_refused",
    },
    Variant {
        what: "a holder whose lease lapsed may still write",
        file: "crates/store/src/tx.rs",
        changes: &[("epoch = $3 FOR UPDATE", "epoch >= $3 FOR UPDATE")],
        suite: STORE,
        test: "leases::a_zombie_writes_nothing_with_the_fence_and_would_without",
    },
    Variant {
        what: "the fence is not held until the commit",
        file: "crates/store/src/tx.rs",
        changes: &[("epoch = $3 FOR UPDATE", "epoch = $3")],
        suite: STORE,
        test: "leases::a_holder_that_is_writing_is_not_overtaken_between_fence_and_commit",
    },
    Variant {
        what: "leases lapse by a clock that is ahead",
        file: "crates/store/src/work.rs",
        changes: &[("AND lease_until <= now()", "AND lease_until <= now() + interval '1 minute'")],
        suite: STORE,
        test: "work::a_lease_keeps_others_away_until_it_lapses_and_the_stale_holder_is_refused",
    },
    Variant {
        what: "a create is not written down before it is sent",
        file: "crates/orchestrator/src/reconcile/machine/create.rs",
        changes: &[(
            "Outcome::Written => tx.machine_creating(id, CREATE_LIMIT, chosen, boots).await",
            "Outcome::Written => Ok(Outcome::Written)",
        )],
        suite: ORCHESTRATOR,
        test: SIMULATION,
    },
    Variant {
        what: "a create that may still land is not waited for",
        file: "crates/orchestrator/src/reconcile/machine.rs",
        changes: &[("deadline > self.context.now()", "deadline < machine.intended_at")],
        suite: ORCHESTRATOR,
        test: SIMULATION,
    },
    Variant {
        what: "a sweep leaves what landed after its row was closed",
        file: "crates/orchestrator/src/reconcile/sweep/decide.rs",
        changes: &[("RowStatus::Closed => Verdict::Remove", "RowStatus::Closed => Verdict::Keep")],
        suite: ORCHESTRATOR,
        test: SIMULATION,
    },
    // Either alone does no harm: the one makes good the other.
    Variant {
        what: "a sweep reads the rows before the cloud's list, and asks for no row by its id",
        file: "crates/orchestrator/src/reconcile/sweep.rs",
        changes: &[(LIST, ""), (ROWS, ROWS_THEN_LIST), (ROW_BY_ID, NO_ROW)],
        suite: ORCHESTRATOR,
        test: "reconcile::simulation::cases::what_is_made_while_the_cloud_lists_is_no_orphan",
    },
];

const LIST: &str = "let listing = opened.list(context.installation()).await.map_err(cloud_error(doing))?;";
const ROWS: &str = "let rows = context.list_account_machines(account).await.map_err(store_error(doing))?;";
const ROWS_THEN_LIST: &str = "let rows = context.list_account_machines(account).await.map_err(store_error(doing))?;
        let listing = opened.list(context.installation()).await.map_err(cloud_error(doing))?;";
const ROW_BY_ID: &str = "self.context.get_machine(machine).await";
const NO_ROW: &str = "Err::<Machine, _>(StoreError::NotFound(\"machine\"))";

/// Breaks it in each way; fails when a test does not notice. `environment` is what the tests need.
pub async fn run(environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let copy = workspace().join("target/broken");
    copy_sources(&copy).await?;
    let outcome = break_all(&copy, environment).await;
    // Cargo takes a package of the copy for the same package of the workspace; without its sources it is compiled anew.
    std::fs::remove_dir_all(&copy).with_context(|| format!("remove {}", copy.display()))?;
    outcome
}

async fn break_all(copy: &Path, environment: &[(&str, &str)]) -> anyhow::Result<()> {
    // Whole first: a test that fails anyhow notices nothing. One after the other, so that little is compiled twice.
    let tests: BTreeMap<&str, &Variant> = VARIANTS.iter().map(|variant| (variant.test, variant)).collect();
    for variant in tests.values() {
        ensure!(passes(copy, variant, environment).await?, "{} fails on what is not broken", variant.test);
    }
    for variant in &VARIANTS {
        let path = copy.join(variant.file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut broken = text.clone();
        for (right, wrong) in variant.changes {
            ensure!(text.contains(right), "{} does not contain `{right}` any more", variant.file);
            broken = broken.replace(right, wrong);
        }
        let write = |text: &str| std::fs::write(&path, text).with_context(|| format!("write {}", path.display()));
        write(&broken)?;
        if passes(copy, variant, environment).await? {
            bail!("no test noticed that {}", variant.what);
        }
        write(&text)?;
        print_result(format!("broken: {} ... noticed", variant.what));
    }
    Ok(())
}

/// What git knows of, as it stands in the working tree.
async fn copy_sources(copy: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(copy);
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(workspace());
    let listed = list.output().await.context("run git")?;
    let listed = String::from_utf8(listed.stdout).context("read git's list of files")?;
    for name in listed.split('\0').filter(|name| !name.is_empty() && workspace().join(name).is_file()) {
        let target = copy.join(name);
        let directory = target.parent().context("every file is in a directory")?;
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        std::fs::copy(workspace().join(name), &target).with_context(|| format!("copy {name}"))?;
    }
    Ok(())
}

/// Whether it compiles and the test passes. What does not compile is an error, and no noticing.
async fn passes(copy: &Path, variant: &Variant, environment: &[(&str, &str)]) -> anyhow::Result<bool> {
    let test = variant.test;
    let cargo = |arguments: &[&str]| {
        let mut command = cargo();
        command.current_dir(copy).args(["test", "--locked", "--quiet"]).args(variant.suite);
        command.arg("--target-dir").arg(workspace().join("target")).args(arguments);
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        command
    };
    progress(format!("cargo test {test}, in {}", copy.display()));
    let built = cargo(&["--no-run"]).status().await.context("run cargo")?;
    ensure!(built.success(), "the copy in {} does not compile", copy.display());
    let ended = cargo(&["--", "--exact", test]).output().await.context("run cargo")?;
    let told = String::from_utf8_lossy(&ended.stdout);
    ensure!(told.contains("running 1 test"), "there is no test {test}");
    Ok(ended.status.success())
}

#[cfg(test)]
mod tests {
    use super::VARIANTS;
    use crate::workspace;

    #[test]
    fn every_variant_finds_what_it_breaks() {
        for variant in &VARIANTS {
            let text = std::fs::read_to_string(workspace().join(variant.file)).unwrap();
            for (right, _) in variant.changes {
                assert!(text.contains(right), "{} does not contain `{right}` any more", variant.file);
            }
        }
    }
}

//! The contract of the cloud providers: `qemu` on real machines, the others against doubles, which are judged in turn by
//! clients and checkers that others wrote. And what the orchestrator makes of any of them, on a simulated cloud; of that
//! the integration tests live fewer lives, so that all tests need no second, optimized build of everything.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::suites::{WHOLE, cargo_test, with_services};
use crate::{artifacts, packages, print_result, progress, scratch, workspace};

/// Clients of providers, and a server that stands for one, from PyPI.
const CLIENTS: [&str; 3] = ["hcloud==2.27.0", "moto[ec2,server,ssm,sts]==5.2.5", "pydo==0.44.0"];
/// Checks requests and answers by an OpenAPI document; from npm.
const CHECKER: &str = "@stoplight/prism-cli@5.16.0";

/// Lives of machines that are simulated: some seconds, once it is compiled.
const SEEDS: &str = "20000";

/// The test that compares the table of cases with the tests that there are, and prints it.
const TABLE: &str = "every_case_is_held_at_every_provider";

/// The parts, in their order.
const PARTS: [&str; 4] = ["simulation", "providers", "story", "first boot"];

/// How much of it to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breadth {
    /// Everything.
    Whole,
    /// What all tests together have time for: without a second, optimized build of everything, the emulated boots of stock
    /// images and of machines without a template, and [`SLOW`].
    Tests,
}

/// Tests at AWS' double that take minutes each: thousands of its slow answers.
const SLOW: [&str; 4] = [
    "aws::allowance::",
    "an_image_whose_making_is_interrupted",
    "whoever_is_killed_while_an_image",
    "interrupted_anywhere_on_its_way",
];

/// The contract: very many simulated lives, every provider, a story at AWS, and the first boot at a cloud. With `only`, the
/// parts whose name contains it.
pub async fn run(only: Option<&str>) -> anyhow::Result<()> {
    parts(Breadth::Whole, |part| only.is_none_or(|only| part.contains(only))).await
}

/// As far as it belongs to all tests.
pub async fn with_the_tests() -> anyhow::Result<()> {
    parts(Breadth::Tests, |part| ["providers", "story"].contains(&part)).await
}

async fn parts(breadth: Breadth, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let [simulated, providers, story, first_boot] = PARTS.map(is_wanted);
    ensure!(simulated || providers || story || first_boot, "the parts are {}", PARTS.join(", "));
    if simulated {
        // Optimized, since the number of lives is what it is worth.
        let simulation =
            ["--release", "--package", "stagely-orchestrator", "--lib", "--", "simulation::", "--nocapture"];
        cargo_test(&simulation, &[("SEEDS", SEEDS)]).await?;
    }
    if providers {
        self::providers(breadth).await?;
    }
    if story || first_boot {
        with_services(async |environment| {
            if story {
                self::story(environment).await?;
            }
            if first_boot { self::first_boot(environment).await } else { Ok(()) }
        })
        .await?;
    }
    // Who holds which case, as the last thing that is read.
    cargo_test(&[WHOLE, &["--", "--nocapture", TABLE]].concat(), &[]).await
}

/// Each provider by itself.
async fn providers(breadth: Breadth) -> anyhow::Result<()> {
    let (image, agent) = (artifacts::image().await?, artifacts::agent().await?);
    let (python, prism) = (clients().await?, checker().await?);
    let documents = documents()?;
    let path = |path: &Path| path.display().to_string();
    let moto = path(&moto(&python));
    let (image, agent, python, prism) = (path(&image), path(&agent), path(&python), path(&prism));
    let given = documents.as_deref().map(path).unwrap_or_default();
    let environment = [
        ("STAGELY_TEST_IMAGE_DIR", image.as_str()),
        ("STAGELY_TEST_AGENT", agent.as_str()),
        ("STAGELY_TEST_PYTHON", python.as_str()),
        ("STAGELY_TEST_MOTO", moto.as_str()),
        ("STAGELY_TEST_PRISM", prism.as_str()),
        ("STAGELY_SPECS_DIR", given.as_str()),
    ];
    let mut doubles =
        vec!["--", "--ignored", "--test-threads=2", "--nocapture", "aws::", "digitalocean::", "hetzner::"];
    if documents.is_none() {
        print_result(
            "not run: 2 checks of requests and answers with the providers' OpenAPI documents, which are not here",
        );
        doubles.extend(["--skip", "openapi_document"]);
    }
    if breadth == Breadth::Tests {
        doubles.extend(SLOW.iter().flat_map(|test| ["--skip", test]));
    }
    cargo_test(&[WHOLE, &doubles].concat(), &environment).await?;
    // Machines have the processors to themselves.
    let mut metal = vec!["--", "--ignored", "--test-threads=1", "--nocapture", "qemu::"];
    if breadth == Breadth::Tests {
        metal.extend(["--skip", "with_cold_machines"]);
    }
    cargo_test(&[WHOLE, &metal].concat(), &environment).await
}

/// A pull request's whole life with machines at the server that stands for AWS; the other clouds' are integration tests.
async fn story(services: &[(&str, &str)]) -> anyhow::Result<()> {
    let moto = moto(&clients().await?).display().to_string();
    let environment = [services, &[("STAGELY_TEST_MOTO", moto.as_str())]].concat();
    cargo_test(&[WHOLE, &["--", "--ignored", "clouds::"]].concat(), &environment).await
}

/// The first boot at a cloud: real machines with the user data that providers are given, over an image like theirs.
async fn first_boot(services: &[(&str, &str)]) -> anyhow::Result<()> {
    let (image, agent) = (artifacts::stock_image().await?, artifacts::agent().await?);
    let store = scratch().join("base-images");
    xtask::base_images::ensure(&workspace(), &scratch().join("cache"), &store).await?;
    let path = |path: &Path| path.display().to_string();
    let (image, agent, store) = (path(&image), path(&agent), path(&store));
    let needed = [
        ("STAGELY_TEST_STOCK_IMAGE_DIR", image.as_str()),
        ("STAGELY_TEST_AGENT", agent.as_str()),
        ("STAGELY_TEST_BASE_IMAGES", store.as_str()),
    ];
    let environment = [services, &needed].concat();
    cargo_test(&[WHOLE, &["--", "--ignored", "--nocapture", "first_boot::"]].concat(), &environment).await
}

/// The program that stands for AWS, beside the Python that it is for.
fn moto(python: &Path) -> PathBuf {
    python.with_file_name("moto_server")
}

/// The providers' OpenAPI documents, which are no part of the project.
#[expect(clippy::disallowed_methods, reason = "where they are is told by the environment")]
fn documents() -> anyhow::Result<Option<PathBuf>> {
    let given = std::env::var_os("STAGELY_SPECS_DIR").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| workspace().join("../shared/specs"));
    if directory.is_dir() { directory.canonicalize().map(Some).context("find the documents") } else { Ok(None) }
}

/// A Python with the clients.
async fn clients() -> anyhow::Result<PathBuf> {
    let directory = scratch().join("contract/python");
    let (python, done) = (directory.join("bin/python"), directory.join("done"));
    let wanted = CLIENTS.join(" ");
    if std::fs::read_to_string(&done).is_ok_and(|has| has == wanted) {
        return Ok(python);
    }
    packages::ensure(&[("/usr/bin/python3", "python3"), ("/usr/lib/python3.11/ensurepip/__init__.py", "python3-venv")])
        .await?;
    succeed(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&directory)).await?;
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(CLIENTS)).await?;
    std::fs::write(&done, wanted).with_context(|| format!("write {}", done.display()))?;
    Ok(python)
}

/// The checker's program.
async fn checker() -> anyhow::Result<PathBuf> {
    let directory = scratch().join("contract/node");
    let program = directory.join("node_modules/.bin/prism");
    if program.is_file() {
        return Ok(program);
    }
    packages::ensure(&[("/usr/bin/npm", "npm")]).await?;
    let arguments = ["install", "--no-audit", "--no-fund", "--silent", CHECKER, "--prefix"];
    succeed(Command::new("npm").args(arguments).arg(&directory)).await?;
    Ok(program)
}

async fn succeed(command: &mut Command) -> anyhow::Result<()> {
    progress(format!("{:?}", command.as_std()));
    let status = command.stdin(Stdio::null()).status().await.context("start a program")?;
    ensure!(status.success(), "{:?} failed ({status})", command.as_std());
    Ok(())
}

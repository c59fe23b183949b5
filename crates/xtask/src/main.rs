//! Everything that a contributor or CI runs: `cargo xtask demo | test | up | bench | contract | image`.

mod artifacts;
mod bench;
mod broken;
mod contract;
mod control_plane;
mod demo;
mod machine;
mod packages;
mod pull_request;
mod rows;
mod services;
mod stack;
mod stories;
mod suites;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use control_plane::Mode;
use tokio::process::Command;

#[derive(Parser)]
#[command(about = "Stagely's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A pull request of the sample application becomes a live URL on a virtual machine of its own.
    Demo {
        /// Then push, close, check that nothing is left, and end.
        #[arg(long)]
        once: bool,
        /// The six services as six processes.
        #[arg(long)]
        separate: bool,
    },
    /// Run the tests.
    Test {
        /// Which of them; default all.
        suite: Option<Suite>,
        /// Of the end-to-end stories only those whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Start the whole stack with a pull request to play with, and leave it running until Ctrl-C.
    Up {
        /// The six services as six processes.
        #[arg(long)]
        separate: bool,
    },
    /// Measure what is promised.
    Bench {
        bench: bench::Bench,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Run the contract of the cloud providers on real machines.
    Contract {
        /// Only the parts whose name contains this: simulation, providers, story, first boot.
        #[arg(long)]
        only: Option<String>,
    },
    /// Build the virtual machines' image, unless it is there.
    Image,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Nothing outside.
    Unit,
    /// A real Postgres, Redis and registry.
    Integration,
    /// The work queue broken on purpose: tests must notice.
    Broken,
    /// Real virtual machines.
    E2e,
}

#[expect(clippy::print_stderr, reason = "a task tells its outcome")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An error means that another provider was installed before, and ring is the only one linked in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.task {
            Task::Demo { once, separate } => demo::run(once, Mode::of(separate)).await,
            Task::Up { separate } => demo::run(false, Mode::of(separate)).await,
            Task::Test { suite, only } => suites::run(suite, only.as_deref()).await,
            Task::Bench { bench, json } => bench::run(bench, json).await,
            Task::Contract { only } => contract::run(only.as_deref()).await,
            Task::Image => artifacts::image().await.map(drop),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap_or(Path::new(".")).to_owned()
}

/// Cargo, as a person starts it. What `cargo run` tells this program of itself would be a reason to compile anew what looks at
/// that, such as `ring`, with everything that is built on it.
fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_LINKS", "CARGO_PKG_NAME"] {
        command.env_remove(name);
    }
    for part in ["MAJOR", "MINOR", "PATCH", "PRE"] {
        command.env_remove(format!("CARGO_PKG_VERSION_{part}"));
    }
    command
}

/// Where everything that is made here is kept: images, templates, logs.
fn scratch() -> PathBuf {
    workspace().join(".stagely")
}

/// How it goes: a line for the person at the terminal.
#[expect(clippy::print_stderr, reason = "a task tells what it does")]
fn progress(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}

/// What came of it: a line that a program may read.
#[expect(clippy::print_stdout, reason = "a task tells its outcome")]
fn print_result(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

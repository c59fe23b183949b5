//! `stagelyd`: all six services in one process, and what an operator needs beside them.

mod admin;
mod certificates;
mod secrets;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stagely_runtime::{config, telemetry};
use stagely_store::Store;

/// Stagely's control plane.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Migrate, then run all six services until SIGTERM.
    Up,
    /// Bring the database's schema up to date, or back.
    Migrate {
        #[command(subcommand)]
        direction: Direction,
    },
    /// Set things up by hand.
    Admin {
        #[command(subcommand)]
        command: admin::Command,
    },
    /// Ask every service of this configuration whether it is ready; exit 1 if one is not.
    Healthcheck,
}

#[derive(Subcommand)]
enum Direction {
    /// Apply what is missing.
    Up,
    /// Undo everything newer than a version (the number before a migration's name); 0 undoes all.
    Down {
        /// The version to go back to.
        target: i64,
    },
}

#[expect(clippy::print_stderr, reason = "the operator must see why nothing started")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stagelyd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = secrets::complete(config::load()?)?;
    telemetry::start(&settings);
    stagely_runtime::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Up => up::run(settings).await,
            Command::Migrate { direction } => {
                let store = Store::connect(settings.database_url()?.reveal(), 2).await?;
                match direction {
                    Direction::Up => store.migrate_up().await?,
                    Direction::Down { target } => store.migrate_down(target).await?,
                }
                Ok(())
            }
            Command::Admin { command } => admin::run(settings, command).await,
            Command::Healthcheck => up::healthcheck(&settings).await,
        }
    })
}

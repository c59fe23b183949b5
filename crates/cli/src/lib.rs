//! The user's command line over the REST API: look at environments, runs, deliveries and images, act on them, and
//! check a `stagely.yaml`, sweep a cloud account or see whether it does what it must without any server.
//!
//! Exit codes: 0 done; 1 the thing asked about is wrong or not there; 2 the command line is wrong; 3 the server
//! refuses the token; 4 the server cannot be reached or is at fault.

mod accounts;
mod client;
mod cloud;
mod commands;
mod config;
mod images;
mod show;
mod validate;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use client::{ClientError, Exit};

/// Preview environments from the command line.
#[derive(Parser)]
#[command(name = "stagely", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Where Stagely is, such as `https://stagely.example.com`.
    #[arg(long, env = "STAGELY_URL", global = true)]
    url: Option<String>,
    /// An API token (`stagelyd admin token` makes one).
    #[arg(long, env = "STAGELY_TOKEN", global = true, hide_env_values = true)]
    token: Option<String>,
    /// The file with `url` and `token`; default `~/.config/stagely/config.toml`.
    #[arg(long, env = "STAGELY_CLI_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[arg(env = "HOME", hide = true, long = "home", global = true)]
    home: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// The server's documents, for programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Check a `stagely.yaml`; needs no server.
    Validate {
        /// The file.
        #[arg(default_value = stagely_domain::spec::FILE, conflicts_with = "schema")]
        file: PathBuf,
        /// Check nothing; print the file's JSON Schema, for editors.
        #[arg(long)]
        schema: bool,
    },
    /// How much there is of everything.
    Status,
    /// Preview environments.
    #[command(subcommand)]
    Env(Env),
    /// Runs: attempts to bring a commit live.
    #[command(subcommand)]
    Run(Run),
    /// Webhook deliveries.
    #[command(subcommand)]
    Deliveries(Deliveries),
    /// Images that a cloud account's machines boot.
    #[command(subcommand)]
    Images(images::Images),
    /// Cloud accounts: those of the team, and without a server by their credentials alone.
    #[command(subcommand)]
    Cloud(cloud::Clouds),
}

/// Commands about environments.
#[derive(Subcommand)]
pub(crate) enum Env {
    /// List them, newest first.
    Ls {
        /// Only in this state, such as `live`.
        #[arg(long)]
        state: Option<String>,
        /// Only of the pull request with this number.
        #[arg(long)]
        pr: Option<u64>,
        /// Also those that are gone.
        #[arg(long)]
        gone: bool,
    },
    /// Show one.
    Show {
        /// `env_…`, or the pull request's number.
        environment: String,
    },
    /// Print logs.
    Logs {
        /// `env_…`, or the pull request's number.
        environment: String,
        /// The log's name (`compose`, `service/web`); without it, every log is printed.
        stream: Option<String>,
        /// Go on until the log ends.
        #[arg(short, long, requires = "stream")]
        follow: bool,
    },
    /// Remove one with its machine and data.
    Destroy {
        /// `env_…`, or the pull request's number.
        environment: String,
    },
    /// Bring the pull request's head live again.
    Redeploy {
        /// `env_…`, or the pull request's number.
        environment: String,
    },
    /// Hibernate it until the next visit.
    Sleep {
        /// `env_…`, or the pull request's number.
        environment: String,
    },
    /// Wake it.
    Wake {
        /// `env_…`, or the pull request's number.
        environment: String,
    },
    /// Keep it past its TTL.
    Pin {
        /// `env_…`, or the pull request's number.
        environment: String,
        /// Let the TTL count again.
        #[arg(long)]
        off: bool,
    },
}

/// Commands about runs.
#[derive(Subcommand)]
pub(crate) enum Run {
    /// Show one with the waterfall of its phases.
    Show {
        /// `run_…`.
        run: String,
    },
}

/// Commands about deliveries.
#[derive(Subcommand)]
pub(crate) enum Deliveries {
    /// List them, newest first.
    Ls,
    /// Apply one again.
    Replay {
        /// `dlv_…`.
        delivery: String,
    },
}

/// Does what the command line says.
pub async fn run(cli: Cli, out: &mut (impl Write + ?Sized), err: &mut (impl Write + ?Sized)) -> Exit {
    let outcome = match &cli.command {
        Command::Validate { schema: true, .. } => validate::schema(out),
        Command::Validate { file, .. } => validate::validate(file, out, err),
        Command::Cloud(cloud::Clouds::Permissions { kind }) => cloud::permissions(*kind, out),
        Command::Cloud(cloud::Clouds::Sweep(sweep)) => cloud::sweep::sweep(sweep, out).await,
        Command::Cloud(cloud::Clouds::Conformance(asked)) => cloud::conformance::conformance(asked, out).await,
        command => remote(&cli, command, out).await,
    };
    match outcome {
        Ok(exit) => exit,
        // Whoever reads our output stopped reading (`stagely env logs | head`): nobody is left to tell.
        Err(ClientError::Output(_)) => Exit::Done,
        Err(error) => {
            let _ = writeln!(err, "stagely: {error}");
            error.exit()
        }
    }
}

async fn remote(cli: &Cli, command: &Command, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let access = config::access(cli.url.clone(), cli.token.clone(), cli.config.clone(), cli.home.as_deref())?;
    let client = client::Client::new(&access)?;
    match command {
        Command::Cloud(cloud::Clouds::Accounts(command)) => {
            accounts::accounts(&client, cli.output, command, out).await?;
        }
        Command::Validate { .. } | Command::Cloud(_) => {}
        Command::Status => commands::status(&client, cli.output, out).await?,
        Command::Env(command) => commands::env(&client, cli.output, command, out).await?,
        Command::Run(Run::Show { run }) => commands::run_show(&client, cli.output, run, out).await?,
        Command::Images(command) => return images::images(&client, cli.output, command, out).await,
        Command::Deliveries(command) => commands::deliveries(&client, cli.output, command, out).await?,
    }
    Ok(Exit::Done)
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

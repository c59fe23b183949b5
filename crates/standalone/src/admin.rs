//! `stagelyd admin`.

use anyhow::Context;
use clap::Subcommand;
use stagely_api::tokens::{NewToken, mint};
use stagely_domain::id::TeamId;
use stagely_domain::role::Role;
use stagely_runtime::Settings;
use stagely_store::Store;

use crate::certificates;

/// What can be set up by hand.
#[derive(Subcommand)]
pub enum Command {
    /// Make an API token, and its team if there is none of that name. The token is shown once.
    Token {
        /// The team's slug.
        #[arg(long, default_value = "default")]
        team: String,
        /// What to call the token.
        #[arg(long, default_value = "bootstrap")]
        name: String,
        /// owner, admin, member or viewer.
        #[arg(long, default_value = "owner")]
        role: Role,
    },
    /// Write the internal certificates of the edge and the registry into `<state_dir>/tls`, as far as they are missing or
    /// have a third of their life left.
    Certificates {
        /// Names and addresses of the registry; without any, those that its certificate has.
        #[arg(long = "registry-name")]
        registry_names: Vec<String>,
    },
}

#[expect(clippy::print_stdout, reason = "the token is the command's output")]
pub async fn run(settings: Settings, command: Command) -> anyhow::Result<()> {
    let store = Store::connect(settings.database_url()?.reveal(), 2).await?;
    match command {
        Command::Token { team, name, role } => {
            let team = ensure_team(&store, &team).await?;
            let (id, token) = mint(&store, NewToken { team, name, role, expires_at: None }).await?;
            tracing::info!(token.id = %id, "made {id}");
            println!("{}", token.reveal());
        }
        Command::Certificates { registry_names } => {
            let files = certificates::ensure(&settings, &store, &registry_names).await?;
            println!("{}", files.ca.parent().context("a directory")?.display());
        }
    }
    Ok(())
}

async fn ensure_team(store: &Store, slug: &str) -> anyhow::Result<TeamId> {
    if let Some(team) = store.find_team(slug).await? {
        return Ok(team);
    }
    let id = TeamId::generate();
    let tx = store.begin().await?;
    tx.insert_team(id, slug, slug).await?;
    tx.commit().await?;
    Ok(id)
}

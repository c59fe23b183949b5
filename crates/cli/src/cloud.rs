//! `stagely cloud`: what can be done with a cloud account's credentials alone, when there is no server to ask.

mod account;
pub(crate) mod conformance;
mod plan;
pub(crate) mod sweep;

use std::io::Write;

use clap::Subcommand;
use stagely_cloud::{CloudError, ErrorKind};

use crate::accounts::Accounts;
use crate::{ClientError, Exit};
pub(crate) use account::Kind;

/// Commands about clouds.
#[derive(Subcommand)]
pub(crate) enum Clouds {
    /// The team's cloud accounts, at the server.
    #[command(subcommand)]
    Accounts(Accounts),
    /// Print the least that an account's credentials must be allowed to do.
    Permissions {
        /// Which cloud.
        kind: Kind,
    },
    /// List everything of an installation at its cloud; with `--delete`, remove what is past its end.
    Sweep(Box<sweep::Sweep>),
    /// Make machines at an account, for money, and see whether the provider does what Stagely relies on.
    Conformance(Box<conformance::Conformance>),
}

/// `stagely cloud permissions`
pub(crate) fn permissions(kind: Kind, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let text = match kind {
        Kind::Aws => include_str!("../../../deploy/aws/iam-policy.json").trim_end(),
        Kind::Digitalocean => include_str!("../../../deploy/digitalocean/token-scopes.txt").trim_end(),
        Kind::Hetzner => "an API token with the permission Read & Write, of a project that holds nothing else",
    };
    writeln!(out, "{text}")?;
    Ok(Exit::Done)
}

fn told(error: CloudError) -> ClientError {
    match error.kind {
        ErrorKind::Auth | ErrorKind::Permission => ClientError::Refused(error.to_string()),
        ErrorKind::Invalid | ErrorKind::Unsupported => ClientError::Setup(error.to_string()),
        _ => ClientError::Unavailable(error.to_string()),
    }
}

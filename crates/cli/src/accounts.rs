//! `stagely cloud accounts`: the team's cloud accounts at the server. Credentials come from the environment or from
//! standard input, never from the command line, where everyone on the host could read them.

use std::io::{Read, Write};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use figment::providers::Env;
use serde_json::{Map, Value, json};

use crate::client::{Client, ClientError};
use crate::commands::{id, print};
use crate::{Output, show};

/// The variables that hold credentials, by kind of account and by the credential's name.
const VARIABLES: [(&str, &str, &str); 7] = [
    ("hetzner", "token", "HCLOUD_TOKEN"),
    ("digitalocean", "token", "DIGITALOCEAN_TOKEN"),
    ("aws", "access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws", "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    // The server refuses it and says why: without it the keys would be called wrong.
    ("aws", "session_token", "AWS_SESSION_TOKEN"),
    ("aws", "role_arn", "AWS_ROLE_ARN"),
    ("aws", "external_id", "AWS_EXTERNAL_ID"),
];

/// Commands about the team's cloud accounts.
#[derive(Subcommand)]
pub(crate) enum Accounts {
    /// List them.
    Ls,
    /// Add one. Credentials come from HCLOUD_TOKEN, DIGITALOCEAN_TOKEN, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    /// (perhaps with AWS_ROLE_ARN and AWS_EXTERNAL_ID).
    Add {
        /// What `preview.provider` is to call it.
        name: String,
        /// Which cloud.
        #[arg(value_parser = PossibleValuesParser::new(["aws", "digitalocean", "hetzner", "qemu"]))]
        kind: String,
        #[command(flatten)]
        settings: Settings,
        /// Read the credentials from standard input instead, as JSON: `{"token": "…"}`.
        #[arg(long)]
        credentials_stdin: bool,
    },
    /// Change one; what is not given stays.
    Edit {
        /// Its name, or `acc_…`.
        account: String,
        /// Another name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        settings: Settings,
        /// Replace the credentials by those in the environment, as for `add`.
        #[arg(long, conflicts_with = "credentials_stdin")]
        credentials: bool,
        /// Replace the credentials by those on standard input, as JSON: `{"token": "…"}`.
        #[arg(long)]
        credentials_stdin: bool,
        /// Take credentials or regions that show none of its machines and golden images: these are gone for certain, or to be
        /// removed by hand.
        #[arg(long)]
        abandon_machines: bool,
    },
    /// Forget one that no machine and no project uses.
    Rm {
        /// Its name, or `acc_…`.
        account: String,
    },
}

/// Where and how machines are made. A list that is given replaces the whole list; one empty text empties it.
#[derive(Args)]
pub(crate) struct Settings {
    /// AWS: a region, the best first; may be repeated.
    #[arg(long = "region")]
    regions: Vec<String>,
    /// A place where machines may be made, the best first; may be repeated.
    #[arg(long = "location")]
    locations: Vec<String>,
    /// AWS: a subnet in which machines are made; may be repeated.
    #[arg(long = "subnet")]
    subnets: Vec<String>,
    /// The image that machines boot.
    #[arg(long)]
    image: Option<String>,
    /// A network from which the edge proxy reaches machines (CIDR); may be repeated.
    #[arg(long = "ingress-from")]
    ingress_from: Vec<String>,
    /// DigitalOcean: an SSH key that machines are made with; may be repeated.
    #[arg(long = "ssh-key")]
    ssh_keys: Vec<String>,
}

impl Settings {
    /// Lays what was given over what there is; whether anything was.
    fn lay_over(&self, settings: &mut Map<String, Value>) -> bool {
        let before = settings.clone();
        if let Some(image) = &self.image {
            settings.insert("image".to_owned(), if image.is_empty() { Value::Null } else { json!(image) });
        }
        if !self.regions.is_empty() {
            // The older word for one of them.
            settings.remove("region");
        }
        for (name, values) in [
            ("regions", &self.regions),
            ("locations", &self.locations),
            ("subnets", &self.subnets),
            ("ingress_from", &self.ingress_from),
            ("ssh_keys", &self.ssh_keys),
        ] {
            if !values.is_empty() {
                let values: Vec<&String> = values.iter().filter(|value| !value.is_empty()).collect();
                settings.insert(name.to_owned(), json!(values));
            }
        }
        *settings != before
    }
}

/// `stagely cloud accounts …`
pub(crate) async fn accounts(
    client: &Client,
    output: Output,
    command: &Accounts,
    out: &mut (impl Write + ?Sized),
) -> Result<(), ClientError> {
    match command {
        Accounts::Ls => {
            let page = client.get("/cloud-accounts").await?;
            print(output, &page, out, show::accounts)
        }
        Accounts::Add { name, kind, settings, credentials_stdin } => {
            let mut given = Map::new();
            settings.lay_over(&mut given);
            let credentials = if *credentials_stdin { from_stdin()? } else { from_environment(kind)? };
            let account = json!({ "name": name, "kind": kind, "settings": given, "credentials": credentials });
            let made = client.post_json("/cloud-accounts", &account).await?;
            print(output, &made, out, |made, out| writeln!(out, "{name}: added as {}", show::text(&made["id"])))
        }
        Accounts::Edit { account, name, settings, credentials, credentials_stdin, abandon_machines } => {
            let before = find(client, account).await?;
            // Whoever changed it since it was read here is not overruled.
            let mut change = json!({ "generation": before["generation"], "abandon_machines": abandon_machines });
            if let Some(name) = name {
                change["name"] = json!(name);
            }
            let mut given = before["settings"].as_object().cloned().unwrap_or_default();
            if settings.lay_over(&mut given) {
                change["settings"] = given.into();
            }
            if *credentials {
                change["credentials"] = from_environment(before["kind"].as_str().unwrap_or_default())?;
            }
            if *credentials_stdin {
                change["credentials"] = from_stdin()?;
            }
            let after = client.patch_json(&path(&before)?, &change).await?;
            print(output, &after, out, |after, out| writeln!(out, "{}: changed", show::text(&after["name"])))
        }
        Accounts::Rm { account } => {
            let account = find(client, account).await?;
            client.delete(&path(&account)?).await?;
            print(output, &account, out, |account, out| writeln!(out, "{}: removed", show::text(&account["name"])))
        }
    }
}

/// An account by its name or id.
pub(crate) async fn find(client: &Client, given: &str) -> Result<Value, ClientError> {
    let mut page = client.get("/cloud-accounts").await?;
    let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let known: Vec<String> = items.iter().map(|item| show::text(&item["name"])).collect();
    items.into_iter().find(|item| item["name"] == given || item["id"] == given).ok_or_else(|| {
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) };
        ClientError::NotThere(format!("no cloud account `{given}`: {known}"))
    })
}

fn path(account: &Value) -> Result<String, ClientError> {
    Ok(format!("/cloud-accounts/{}", id(account["id"].as_str().unwrap_or_default(), "acc_")?))
}

/// What the environment holds for this kind of account. The server says what lacks.
fn from_environment(kind: &str) -> Result<Value, ClientError> {
    let wanted: Vec<(&str, &str)> =
        VARIABLES.into_iter().filter(|(of, ..)| *of == kind).map(|(_, name, variable)| (name, variable)).collect();
    let names: Vec<&str> = wanted.iter().map(|(_, variable)| *variable).collect();
    let mut credentials = Map::new();
    for (variable, value) in Env::raw().only(&names).lowercase(false).iter() {
        let name = wanted.iter().find(|(_, known)| variable == *known).map(|(name, _)| *name);
        if let Some(name) = name.filter(|_| !value.is_empty()) {
            credentials.insert(name.to_owned(), value.into());
        }
    }
    if credentials.is_empty() && !wanted.is_empty() {
        let needed = if kind == "aws" { &names[..2] } else { &names[..] };
        let needed = needed.join(" and ");
        return Err(ClientError::Setup(format!("no credentials: set {needed}, or give --credentials-stdin")));
    }
    Ok(credentials.into())
}

fn from_stdin() -> Result<Value, ClientError> {
    let mut text = String::new();
    let read = std::io::stdin().take(64 * 1024).read_to_string(&mut text);
    let parsed = read.ok().and_then(|_| serde_json::from_str::<Map<String, Value>>(&text).ok());
    // The text is a secret: nothing of it is said.
    parsed.map(Value::from).ok_or_else(|| {
        ClientError::Setup("standard input holds no credentials: write them as JSON, {\"token\": \"…\"}".to_owned())
    })
}

//! `stagely images`: golden images that the machines of a cloud account boot.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use stagely_domain::cost::Money;
use tokio::time::Instant;

use crate::accounts;
use crate::client::{Client, ClientError};
use crate::commands::{all_pages, id, print};
use crate::show::{failure, money, table, text};
use crate::{Exit, Output};

/// The server gives a bake up before that.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
const LOOK: Duration = Duration::from_secs(5);

/// Commands about images.
#[derive(Subcommand)]
pub(crate) enum Images {
    /// Make one: with Docker, compose, the agent and base images, so that machines need not install them.
    Bake(Bake),
    /// List them, newest first; those that failed too.
    Ls,
    /// Remove one; machines that run are not touched, and new ones boot the stock image.
    Rm {
        /// `img_…`.
        image: String,
    },
}

/// What is to be baked.
#[derive(Args)]
pub(crate) struct Bake {
    /// The cloud account, by its name or `acc_…`.
    #[arg(long)]
    account: String,
    /// For which processor.
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// A container image to put on it, such as `debian:13-slim`; may be given several times.
    #[arg(long = "base-image", value_name = "IMAGE")]
    base_images: Vec<String>,
    /// Wait until machines can boot it.
    #[arg(long)]
    wait: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    Amd64,
    Arm64,
}

/// `stagely images …`
pub(crate) async fn images(
    client: &Client,
    output: Output,
    command: &Images,
    out: &mut (impl Write + ?Sized),
) -> Result<Exit, ClientError> {
    match command {
        Images::Bake(bake) => return self::bake(client, output, bake, out).await,
        Images::Ls => print(output, &all_pages(client, "/images?limit=200").await?, out, list)?,
        Images::Rm { image } => {
            let image = id(image, "img_")?;
            let accepted = client.begin_delete(&format!("/images/{image}")).await?;
            print(output, &accepted, out, |_, out| writeln!(out, "{image}: is being removed"))?;
        }
    }
    Ok(Exit::Done)
}

async fn bake(
    client: &Client,
    output: Output,
    bake: &Bake,
    out: &mut (impl Write + ?Sized),
) -> Result<Exit, ClientError> {
    let account = account(client, &bake.account).await?;
    let arch = if bake.arch == Arch::Arm64 { "arm64" } else { "amd64" };
    let body = json!({ "arch": arch, "base_images": bake.base_images });
    let accepted = client.post_json(&format!("/cloud-accounts/{account}/images"), &body).await?;
    let image = id(&text(&accepted["image"]), "img_")?;
    if !bake.wait {
        let then = format!("{image}: is being baked; `stagely images ls` shows when it is ready");
        print(output, &accepted, out, |_, out| writeln!(out, "{then}"))?;
        return Ok(Exit::Done);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The server may be restarted meanwhile.
        match client.get(&format!("/images/{image}")).await {
            Ok(shown) if shown["state"] != "baking" || shown["removing"] == true => {
                print(output, &shown, out, baked)?;
                return Ok(if shown["state"] == "ready" { Exit::Done } else { Exit::Wrong });
            }
            Ok(_) | Err(ClientError::Unavailable(_)) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Ok(_) => return Err(ClientError::Unavailable(format!("{image} is still being baked: look again later"))),
            Err(error) => return Err(error),
        }
    }
}

/// The id behind `acc_…` or an account's name.
async fn account(client: &Client, given: &str) -> Result<String, ClientError> {
    if let Ok(id) = id(given, "acc_") {
        return Ok(id);
    }
    id(&text(&accounts::find(client, given).await?["id"]), "acc_")
}

fn list<W: Write + ?Sized>(items: &Value, out: &mut W) -> std::io::Result<()> {
    let rows = items.as_array().into_iter().flatten().map(|item| {
        let state = if item["removing"] == true { "removing".to_owned() } else { text(&item["state"]) };
        let bases: Vec<String> = item["base_images"].as_array().into_iter().flatten().map(text).collect();
        let why = text(&item["failure"]["message"]);
        let told = if why.is_empty() { bases.join(" ") } else { why };
        vec![text(&item["id"]), text(&item["account"]), text(&item["arch"]), state, text(&item["created_at"]), told]
    });
    table(&["ID", "ACCOUNT", "ARCH", "STATE", "CREATED", "BASE IMAGES"], rows.collect(), out)
}

fn baked<W: Write + ?Sized>(item: &Value, out: &mut W) -> std::io::Result<()> {
    let (image, reference) = (text(&item["id"]), text(&item["reference"]));
    match item["state"].as_str() {
        Some("ready") => writeln!(out, "{image}: new machines boot {reference}")?,
        _ if item["failure"].is_object() => writeln!(out, "{image}: was not baked")?,
        _ => writeln!(out, "{image}: was removed")?,
    }
    let costs: Vec<Money> = item["costs"].as_array().into_iter().flatten().map(money).collect();
    for cost in costs {
        writeln!(out, "its machine cost {cost}")?;
    }
    failure(&item["failure"], out)
}

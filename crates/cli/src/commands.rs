//! The commands that talk to the server.

use std::io::Write;

use serde_json::Value;

use crate::client::{Client, ClientError, LogEvent};
use crate::{Deliveries, Env, Output, show};

type Done = Result<(), ClientError>;

/// `stagely status`
pub(crate) async fn status(client: &Client, output: Output, out: &mut (impl Write + ?Sized)) -> Done {
    let status = client.get("/status").await?;
    print(output, &status, out, show::status)
}

/// `stagely env …`
pub(crate) async fn env(client: &Client, output: Output, command: &Env, out: &mut (impl Write + ?Sized)) -> Done {
    let (environment, verb) = match command {
        Env::Ls { state, pr, gone } => {
            return ls(client, output, state.as_deref(), *pr, *gone, out).await;
        }
        Env::Show { environment } => {
            let environment = client.get(&format!("/environments/{}", resolve(client, environment).await?)).await?;
            return print(output, &environment, out, show::environment);
        }
        Env::Logs { environment, stream, follow } => {
            return logs(client, environment, stream.as_deref(), *follow, out).await;
        }
        Env::Destroy { environment } => (environment, "destroy"),
        Env::Redeploy { environment } => (environment, "redeploy"),
        Env::Sleep { environment } => (environment, "sleep"),
        Env::Wake { environment } => (environment, "wake"),
        Env::Pin { environment, off: false } => (environment, "pin"),
        Env::Pin { environment, off: true } => (environment, "unpin"),
    };
    let id = resolve(client, environment).await?;
    let accepted = client.post(&format!("/environments/{id}/{verb}")).await?;
    print(output, &accepted, out, |_, out| writeln!(out, "{id}: {verb} accepted"))
}

/// `stagely run show`
pub(crate) async fn run_show(client: &Client, output: Output, run: &str, out: &mut (impl Write + ?Sized)) -> Done {
    let run = client.get(&format!("/runs/{}", id(run, "run_")?)).await?;
    print(output, &run, out, show::run)
}

/// `stagely deliveries …`
pub(crate) async fn deliveries(
    client: &Client,
    output: Output,
    command: &Deliveries,
    out: &mut (impl Write + ?Sized),
) -> Done {
    match command {
        Deliveries::Ls => {
            let page = client.get("/deliveries").await?;
            print(output, &page, out, show::deliveries)
        }
        Deliveries::Replay { delivery } => {
            let delivery = id(delivery, "dlv_")?;
            let replayed = client.post(&format!("/deliveries/{delivery}/replay")).await?;
            print(output, &replayed, out, |_, out| writeln!(out, "{delivery}: will be applied again"))
        }
    }
}

/// The list.
async fn ls(
    client: &Client,
    output: Output,
    state: Option<&str>,
    pr: Option<u64>,
    gone: bool,
    out: &mut (impl Write + ?Sized),
) -> Done {
    let mut query = format!("?limit=200&gone={gone}");
    if let Some(state) = state {
        if !state.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            return Err(ClientError::Setup(format!("`{state}` is not a state: try live, asleep or failed")));
        }
        query.push_str(&format!("&state={state}"));
    }
    if let Some(pr) = pr {
        query.push_str(&format!("&pr={pr}"));
    }
    let items = all_pages(client, &format!("/environments{query}")).await?;
    print(output, &items, out, show::environments)
}

/// Everything of a list that is asked for with a query.
pub(crate) async fn all_pages(client: &Client, path: &str) -> Result<Value, ClientError> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("{path}{cursor}")).await?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(Value::Array(items)),
        }
    }
}

async fn logs(
    client: &Client,
    environment: &str,
    name: Option<&str>,
    follow: bool,
    out: &mut (impl Write + ?Sized),
) -> Done {
    let environment = resolve(client, environment).await?;
    let page = client.get(&format!("/environments/{environment}/logs")).await?;
    let streams: Vec<(&str, &str)> = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|stream| Some((stream["id"].as_str()?, stream["name"].as_str()?)))
        .collect();
    let Some(name) = name else {
        for (id, name) in streams {
            writeln!(out, "==> {name} <==")?;
            writeln!(out, "{}", client.text(&format!("/environments/{environment}/logs/{id}")).await?.trim_end())?;
        }
        return Ok(());
    };
    // A machine that was replaced left a stream of the same name; the newest counts.
    let Some((id, _)) = streams.iter().rev().find(|(_, given)| *given == name) else {
        let mut names: Vec<&str> = streams.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let known =
            if names.is_empty() { "there is none yet".to_owned() } else { format!("there are {}", names.join(", ")) };
        return Err(ClientError::NotThere(format!("{environment} has no log `{name}`: {known}")));
    };
    let path = format!("/environments/{environment}/logs/{id}");
    if !follow {
        out.write_all(client.text(&path).await?.as_bytes())?;
        return Ok(());
    }
    client
        .follow(&path, |event| {
            if let LogEvent::Text(text) = event {
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Ok(())
        })
        .await
}

/// The id behind `env_…` or a pull request's number.
async fn resolve(client: &Client, given: &str) -> Result<String, ClientError> {
    let Ok(number) = given.trim_start_matches('#').parse::<u64>() else {
        return id(given, "env_");
    };
    let page = client.get(&format!("/environments?pr={number}&limit=200")).await?;
    let found: Vec<(&str, &str)> = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| Some((item["id"].as_str()?, item["repo"].as_str()?)))
        .collect();
    match found.as_slice() {
        [(id, _)] => Ok((*id).to_owned()),
        [] => Err(ClientError::NotThere(format!("no environment of a pull request #{number}: see `stagely env ls`"))),
        several => {
            let lines: Vec<String> = several.iter().map(|(id, repo)| format!("{repo}: {id}")).collect();
            Err(ClientError::NotThere(format!(
                "#{number} exists in several repositories, give the id: {}",
                lines.join(", ")
            )))
        }
    }
}

/// Checks an id before it becomes part of an address.
pub(crate) fn id(given: &str, prefix: &str) -> Result<String, ClientError> {
    let good = given
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 26 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    if good {
        Ok(given.to_owned())
    } else {
        Err(ClientError::Setup(format!("`{given}` is not an id: expected `{prefix}` and 26 characters")))
    }
}

pub(crate) fn print<W: Write + ?Sized>(
    output: Output,
    value: &Value,
    out: &mut W,
    text: impl FnOnce(&Value, &mut W) -> std::io::Result<()>,
) -> Done {
    match output {
        Output::Json => writeln!(out, "{value:#}")?,
        Output::Text => text(value, out)?,
    }
    Ok(())
}

//! What Postgres and Redis of a stack still hold of previews, whoever's they are: asked by the programs that come with them.

use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::services::{BIN, Services};

/// The tables that are looked at, and which of their rows are open.
pub const OPEN: [(&str, &str); 8] = [
    ("environments", "gone_at IS NULL"),
    ("workflow_runs", "finished_at IS NULL"),
    ("build_jobs", "finished_at IS NULL"),
    ("machines", "gone_at IS NULL"),
    ("routes", "state <> 'gone'"),
    ("pr_posts", "posted_seq < wanted_seq"),
    ("inbox", "decision IS NULL"),
    // Due for ever are the sweep of each account and the comparison of all routes, which has the nil key.
    (
        "work",
        "(run_after < 'infinity' OR parked OR lease_owner IS NOT NULL) AND kind <> 'sweep' \
         AND key <> '00000000-0000-0000-0000-000000000000'",
    ),
];

/// The copy of the routes, under the services' default prefix.
const ROUTES: &str = "stagely:routes";

/// Rows that are open, and routes in Redis that still lead to a machine or wait for one.
pub async fn left(services: &Services) -> anyhow::Result<Vec<String>> {
    let counts = OPEN.map(|(table, open)| format!("SELECT '{table}', count(*) FROM {table} WHERE {open}"));
    let (psql, sql) = (format!("{BIN}/psql"), counts.join(" UNION ALL "));
    let told = ask(Command::new(psql).args(["-X", "-A", "-t", "-c", &sql, &services.postgres_url])).await?;
    let counted: Vec<_> = told.lines().filter_map(|line| line.split_once('|')).collect();
    ensure!(counted.len() == OPEN.len(), "Postgres did not count every table: {told}");
    let open = counted.into_iter().filter(|(_, count)| *count != "0");
    let mut left: Vec<String> = open.map(|(table, count)| format!("{count} open rows of {table}")).collect();

    let mut redis = Command::new("redis-cli");
    let told = ask(redis.args(["-u", &services.redis_url, "-e", "--raw", "HVALS", ROUTES])).await?;
    for entry in told.lines().filter(|line| !line.is_empty()) {
        if leads(entry)? {
            left.push(format!("a route in Redis: {entry}"));
        }
    }
    Ok(left)
}

/// Whether an entry is more than the note by which the edge knows that a preview was removed.
fn leads(entry: &str) -> anyhow::Result<bool> {
    let route: Value = serde_json::from_str(entry).with_context(|| format!("read the route {entry}"))?;
    Ok(route["state"] != "gone" || !route["target"].is_null())
}

async fn ask(command: &mut Command) -> anyhow::Result<String> {
    let answer = command.stdin(Stdio::null()).output().await.with_context(|| format!("{:?}", command.as_std()))?;
    let told = String::from_utf8_lossy(&answer.stderr);
    ensure!(answer.status.success(), "{:?}: {told}", command.as_std());
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::leads;

    #[test]
    fn only_the_note_that_a_preview_was_removed_leads_nowhere() {
        let gone = r#"{"host": "a.test", "state": "gone", "notice": {"text": "This preview was removed."}}"#;
        assert!(!leads(gone).unwrap());
        assert!(leads(&gone.replace("gone", "waiting")).unwrap());
        assert!(leads(r#"{"host": "a.test", "state": "gone", "target": {"address": "10.0.0.1:7443"}}"#).unwrap());
        assert!(leads("not a route").is_err());
    }
}

//! Documents as text for people. Much of it was written by strangers, so control characters never pass.

use std::io::{Result, Write};

use chrono::DateTime;
use serde_json::Value;
use stagely_domain::cost::Money;

use crate::client::printable;

/// Characters of the waterfall's bars.
const BAR: i64 = 40;

/// `stagely status`
pub(crate) fn status<W: Write + ?Sized>(status: &Value, out: &mut W) -> Result<()> {
    for what in ["environments", "machines", "builds"] {
        let counts = status[what].as_object();
        let parts: Vec<String> =
            counts.into_iter().flatten().map(|(state, number)| format!("{number} {state}")).collect();
        writeln!(out, "{what:<14}{}", if parts.is_empty() { "none".to_owned() } else { parts.join(", ") })?;
    }
    writeln!(out, "{:<14}{} pending", "deliveries", status["pending_deliveries"])?;
    writeln!(out, "{:<14}{}", "server", text(&status["version"]))
}

/// `stagely env ls`
pub(crate) fn environments<W: Write + ?Sized>(items: &Value, out: &mut W) -> Result<()> {
    let rows = items.as_array().into_iter().flatten().map(|item| {
        vec![
            text(&item["id"]),
            format!("{}#{}", text(&item["repo"]), item["pr"]),
            text(&item["state"]),
            text(&item["url"]),
            short(&text(&item["title"]), 40),
        ]
    });
    table(&["ID", "PULL REQUEST", "STATE", "URL", "TITLE"], rows.collect(), out)
}

/// `stagely env show`
pub(crate) fn environment<W: Write + ?Sized>(item: &Value, out: &mut W) -> Result<()> {
    let mut line = |name: &str, value: String| {
        if value.is_empty() { Ok(()) } else { writeln!(out, "{name:<14}{value}") }
    };
    line("environment", text(&item["id"]))?;
    line("pull request", format!("{}#{} {}", text(&item["repo"]), item["pr"], text(&item["title"])))?;
    line("commit", text(&item["sha"]))?;
    line("state", text(&item["state"]))?;
    line("reason", text(&item["reason"]))?;
    for url in item["urls"].as_array().into_iter().flatten() {
        line("url", format!("{} ({})", text(&url["url"]), text(&url["state"])))?;
    }
    line("expires", if item["pinned"] == true { "never (pinned)".to_owned() } else { text(&item["expires_at"]) })?;
    for cost in item["costs"].as_array().into_iter().flatten() {
        let money = money(cost);
        line("cost", if item["gone_at"].is_null() { format!("{money} so far") } else { money.to_string() })?;
    }
    let machine = &item["machine"];
    if machine.is_object() {
        let parts = ["id", "provider", "size", "arch", "type", "location", "state"].map(|name| text(&machine[name]));
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        line("machine", parts.join(" "))?;
        let tried = machine["tried"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        line("no room", tried.join(", "))?;
    }
    for service in item["services"].as_array().into_iter().flatten() {
        line("service", ["name", "state", "health"].map(|name| text(&service[name])).join(" ").trim_end().to_owned())?;
    }
    let latest = &item["latest_run"];
    if latest.is_object() {
        line("latest run", format!("{} {}", text(&latest["id"]), text(&latest["state"])))?;
        failure(&latest["failure"], out)?;
    }
    Ok(())
}

/// `stagely run show`: phases as bars on one time axis.
pub(crate) fn run<W: Write + ?Sized>(run: &Value, out: &mut W) -> Result<()> {
    writeln!(out, "{} of {}: {}", text(&run["id"]), text(&run["environment"]), text(&run["state"]))?;
    writeln!(out, "commit {} ({})", text(&run["sha"]), text(&run["cause"]))?;
    if let Some(ms) = run["time_to_live_ms"].as_i64() {
        writeln!(out, "live after {}", seconds(ms))?;
    }
    failure(&run["failure"], out)?;
    let phases: Vec<&Value> = run["timeline"].as_array().into_iter().flatten().collect();
    let start = phases.iter().filter_map(|phase| millis(&phase["started_at"])).min().unwrap_or_default();
    let end = phases.iter().filter_map(|phase| Some(millis(&phase["started_at"])? + phase["ms"].as_i64().unwrap_or(0)));
    let total = end.max().map_or(1, |end| (end - start).max(1));
    for phase in phases {
        let begin = millis(&phase["started_at"]).map_or(0, |at| at - start);
        let (took, length) = match phase["ms"].as_i64() {
            Some(ms) => (seconds(ms), ms),
            None => ("under way".to_owned(), total - begin),
        };
        let column = |ms: i64| usize::try_from(ms * BAR / total).unwrap_or(0);
        let bar = "█".repeat(column(length).max(1));
        let detail = text(&phase["detail"]);
        let line = format!("  {:<8}{took:>10}  {}{bar}  {detail}", text(&phase["name"]), " ".repeat(column(begin)));
        writeln!(out, "{}", line.trim_end())?;
    }
    for build in run["builds"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "  build {} {}: {} {}",
            text(&build["target"]),
            text(&build["platform"]),
            text(&build["state"]),
            text(&build["id"])
        )?;
    }
    Ok(())
}

/// `stagely deliveries ls`
pub(crate) fn deliveries<W: Write + ?Sized>(page: &Value, out: &mut W) -> Result<()> {
    let rows = page["items"].as_array().into_iter().flatten().map(|item| {
        let pr = item["pr"].as_i64().map_or_else(String::new, |pr| format!("#{pr}"));
        let decision = item["decision"].as_str().unwrap_or("pending");
        vec![
            text(&item["id"]),
            text(&item["received_at"]),
            format!("{} {}", text(&item["event"]), text(&item["action"])),
            format!("{}{pr}", text(&item["repo"])),
            printable(decision),
            short(&text(&item["reason"]), 60),
        ]
    });
    table(&["ID", "RECEIVED", "EVENT", "ABOUT", "DECISION", "REASON"], rows.collect(), out)
}

/// `stagely cloud accounts ls`
pub(crate) fn accounts<W: Write + ?Sized>(page: &Value, out: &mut W) -> Result<()> {
    let rows = page["items"].as_array().into_iter().flatten().map(|item| {
        let settings = &item["settings"];
        let places = settings["locations"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
        let places = if places.is_empty() { "anywhere".to_owned() } else { places };
        let region = text(&settings["region"]);
        let places = if region.is_empty() { places } else { format!("{region}: {places}") };
        vec![text(&item["id"]), text(&item["name"]), text(&item["kind"]), places]
    });
    table(&["ID", "NAME", "KIND", "WHERE"], rows.collect(), out)
}

pub(crate) fn failure<W: Write + ?Sized>(failure: &Value, out: &mut W) -> Result<()> {
    if !failure.is_object() {
        return Ok(());
    }
    let about = ["service", "exit_code"].map(|name| text(&failure[name])).into_iter().filter(|text| !text.is_empty());
    let about: Vec<String> = about.collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", exit code ")) };
    writeln!(
        out,
        "failed in {}{about}: {} [{}]",
        text(&failure["phase"]),
        text(&failure["message"]),
        text(&failure["code"])
    )?;
    for line in text(&failure["log_tail"]).lines() {
        writeln!(out, "  | {line}")?;
    }
    Ok(())
}

pub(crate) fn table<W: Write + ?Sized>(head: &[&str], rows: Vec<Vec<String>>, out: &mut W) -> Result<()> {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| std::iter::once(&head).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// An amount.
pub(crate) fn money(value: &Value) -> Money {
    Money { micros: value["micros"].as_u64().unwrap_or(0), currency: text(&value["currency"]) }
}

/// A value as one printable text; null is empty.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn short(text: &str, most: usize) -> String {
    let line = text.replace(['\n', '\t'], " ");
    if line.chars().count() <= most { line } else { line.chars().take(most - 1).chain(['…']).collect() }
}

fn seconds(ms: i64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

/// Milliseconds since 1970 of an instant as the server writes it.
fn millis(at: &Value) -> Option<i64> {
    DateTime::parse_from_rfc3339(at.as_str()?).ok().map(|at| at.timestamp_millis())
}

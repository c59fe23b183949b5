//! Reads a tree of nodes and gathers every mistake on the way, so that one push tells them all.

use crate::spec::diagnostic::{Diagnostic, nearest};
use crate::spec::values::{Duration, RepoPath};
use crate::yaml::{Node, Position, Value};

/// Gathers diagnostics of one file.
pub(super) struct Reader<'f> {
    pub(super) file: &'f str,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) mentions: Vec<Mention>,
}

/// A place that names a compose service.
#[derive(Debug)]
pub struct Mention {
    pub(super) service: String,
    pub(super) key: String,
    pub(super) at: Position,
}

/// A mapping whose known keys are being read.
pub(super) struct Table<'n> {
    pub(super) path: String,
    entries: &'n [(Node, Node)],
}

impl<'n> Table<'n> {
    /// The value of `key`, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value).filter(|v| !v.is_null())
    }

    /// The path of `key`, for messages.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Reader<'_> {
    pub(super) fn wrong(&mut self, at: Position, key: &str, message: impl Into<String>) {
        self.suggest(at, key, message, None);
    }

    pub(super) fn suggest(&mut self, at: Position, key: &str, message: impl Into<String>, suggestion: Option<&str>) {
        self.diagnostics.push(Diagnostic {
            file: self.file.to_owned(),
            at,
            key: key.to_owned(),
            message: message.into(),
            suggestion: suggestion.map(str::to_owned),
        });
    }

    /// A mapping with only `known` keys.
    pub(super) fn table<'n>(&mut self, node: &'n Node, path: &str, known: &[&str]) -> Option<Table<'n>> {
        let Some(entries) = node.entries() else {
            let message = format!("expected a mapping with {}, found {}", list(known), node.kind());
            self.wrong(node.at, path, message);
            return None;
        };
        let table = Table { path: path.to_owned(), entries };
        for (key, _) in entries {
            let name = key.text().unwrap_or("~");
            if !known.contains(&name) {
                let message = format!("unknown key `{}`; expected one of {}", shown(name), list(known));
                self.suggest(key.at, &table.at(&shown(name)), message, nearest(name, known));
            }
        }
        Some(table)
    }

    /// The entries of a mapping whose keys are names of the user's own.
    pub(super) fn named<'n>(&mut self, node: &'n Node, path: &str, what: &str) -> Vec<(&'n str, &'n Node, &'n Node)> {
        let Some(entries) = node.entries() else {
            self.wrong(node.at, path, format!("expected a mapping of {what}, found {}", node.kind()));
            return Vec::new();
        };
        entries.iter().filter_map(|(key, value)| Some((key.text()?, key, value))).collect()
    }

    pub(super) fn text(&mut self, node: &Node, path: &str, what: &str) -> Option<String> {
        match &node.value {
            Value::Scalar { text, .. } if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
                self.wrong(node.at, path, format!("{what} must not have control characters"));
                None
            }
            Value::Scalar { text, .. } if !text.is_empty() && !node.is_null() => Some(text.clone()),
            Value::Scalar { .. } => {
                self.wrong(node.at, path, format!("expected {what}, found nothing"));
                None
            }
            _ => {
                self.wrong(node.at, path, format!("expected {what}, found {}", node.kind()));
                None
            }
        }
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, node: &Node, path: &str, what: &str) -> Vec<String> {
        match node.items() {
            Some(items) => items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| self.text(item, &format!("{path}[{index}]"), what))
                .collect(),
            None => self.text(node, path, what).into_iter().collect(),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let given = match node.text() {
            Some(given) => given,
            None => {
                self.wrong(node.at, path, format!("expected one of {}, found {}", list(&names), node.kind()));
                return None;
            }
        };
        let found = words.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
        if found.is_none() {
            let message = format!("`{}` is not one of {}", shown(given), list(&names));
            self.suggest(node.at, path, message, nearest(given, &names));
        }
        found
    }

    pub(super) fn flag(&mut self, node: &Node, path: &str) -> Option<bool> {
        self.word(node, path, &[("true", true), ("false", false)])
    }

    pub(super) fn port(&mut self, node: &Node, path: &str) -> Option<u16> {
        let port = node.text().and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
        if port.is_none() {
            self.wrong(node.at, path, format!("expected a port number from 1 to 65535, found {}", found(node)));
        }
        port
    }

    pub(super) fn duration(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let duration = node.text().and_then(Duration::parse);
        if duration.is_none() {
            let message =
                format!("expected a duration such as 90s, 5m, 1h or 7d (at most 365d), found {}", found(node));
            self.wrong(node.at, path, message);
        }
        duration
    }

    pub(super) fn path(&mut self, node: &Node, path: &str) -> Option<RepoPath> {
        let text = self.text(node, path, "a path inside the repository")?;
        let parsed = RepoPath::parse(&text);
        if parsed.is_none() {
            let message =
                format!("`{}` is not a path inside the repository (relative, without leaving it)", shown(&text));
            self.wrong(node.at, path, message);
        }
        parsed
    }

    /// A compose service that has to be there.
    pub(super) fn service(&mut self, node: &Node, path: &str) -> Option<String> {
        let service = self.service_name(node, path)?;
        self.mentions.push(Mention { service: service.clone(), key: path.to_owned(), at: node.at });
        Some(service)
    }

    /// A name that a compose service could have.
    pub(super) fn service_name(&mut self, node: &Node, path: &str) -> Option<String> {
        let name = self.text(node, path, "the name of a compose service")?;
        if is_service_name(&name) {
            return Some(name);
        }
        let message = format!("`{}` is not a service name (letters, digits, `.`, `_`, `-`)", shown(&name));
        self.wrong(node.at, path, message);
        None
    }

    /// The value of a required key.
    pub(super) fn required<'n>(&mut self, table: &Table<'n>, node: &Node, key: &str, what: &str) -> Option<&'n Node> {
        let value = table.get(key);
        if value.is_none() {
            self.wrong(node.at, &table.at(key), format!("missing: give {what}"));
        }
        value
    }
}

/// Whether `name` is a compose service name, and so safe as an argument: it cannot start with a hyphen.
pub(crate) fn is_service_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Text of the user's in a message: bounded, one line.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What stands there instead.
fn found(node: &Node) -> String {
    node.text().map_or_else(|| node.kind().to_owned(), |text| format!("`{}`", shown(text)))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

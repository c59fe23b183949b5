//! From text to [`Spec`].

use indexmap::IndexMap;

use crate::machine::{Arch, Size};
use crate::run;
use crate::spec::decode::{Mention, Reader, Table, shown};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::resolve::Reading;
use crate::spec::{
    Access, Build, Duration, Expose, Forks, Health, Hook, Labels, Lifecycle, Platform, Preview, Spec, Test, Triggers,
};
use crate::yaml::{self, Node};

pub(super) const SIZES: &[(&str, Size)] = &[("small", Size::Small), ("medium", Size::Medium), ("large", Size::Large)];
const ARCHES: &[(&str, Arch)] = &[("amd64", Arch::Amd64), ("arm64", Arch::Arm64)];
pub(super) const PLATFORMS: &[(&str, Platform)] = &[("linux/amd64", Platform::Amd64), ("linux/arm64", Platform::Arm64)];

/// Reads `stagely.yaml`. `file` is its name in messages.
///
/// # Errors
/// Every mistake of the file at once, in the order of the file.
pub fn parse(text: &str, file: &str) -> Result<Spec, Vec<Diagnostic>> {
    let reading = read(text, file);
    if reading.mistakes.is_empty() { Ok(reading.spec) } else { Err(reading.mistakes) }
}

/// Reads of `stagely.yaml` what can be read.
#[must_use]
pub fn read(text: &str, file: &str) -> Reading {
    let mut reader = Reader { file, diagnostics: Vec::new(), mentions: Vec::new() };
    let mut spec = Spec::default();
    let root = yaml::parse(text).unwrap_or_else(|error| {
        reader.wrong(error.at, "", error.message);
        None
    });
    match &root {
        Some(root) => spec = reader.spec(root),
        None if reader.diagnostics.is_empty() => {
            let message = "the file is empty: write `version: 2`, or delete it to use the defaults";
            reader.wrong(yaml::Position { line: 1, column: 1 }, "", message);
        }
        None => {}
    }
    let Reader { diagnostics: mut mistakes, mentions, .. } = reader;
    mistakes.sort_by_key(|mistake| mistake.at);
    Reading { file: file.to_owned(), root, spec, mentions, mistakes }
}

impl Reader<'_> {
    fn spec(&mut self, root: &Node) -> Spec {
        let mut spec = Spec::default();
        let Some(table) = self.table(root, "", &["version", "builds", "preview", "triggers", "test"]) else {
            return spec;
        };
        match self.required(&table, root, "version", "`version: 2`").map(|node| (node, node.text())) {
            None | Some((_, Some("2"))) => {}
            Some((node, given)) => {
                let message =
                    format!("version `{}` is not known; this Stagely reads version 2", shown(given.unwrap_or("?")));
                self.wrong(node.at, "version", message);
            }
        }
        if let Some(node) = table.get("builds") {
            for (name, key, value) in self.named(node, "builds", "images to build, by compose service") {
                let path = format!("builds.{}", shown(name));
                if self.service_name(key, &path).is_some() {
                    let build = self.build(value, &path);
                    let others = value.get("services").filter(|node| !node.is_null());
                    if others.is_none_or(|node| node.items().is_some_and(<[Node]>::is_empty)) {
                        self.mentions.push(Mention { service: name.to_owned(), key: path, at: value.at });
                    }
                    spec.builds.insert(name.to_owned(), build);
                }
            }
        }
        if let Some(node) = table.get("preview") {
            spec.preview = self.preview(node);
        }
        if let Some(node) = table.get("triggers") {
            spec.triggers = self.triggers(node);
        }
        if let Some(node) = table.get("test") {
            spec.test = self.test(node);
        }
        spec
    }

    fn build(&mut self, node: &Node, path: &str) -> Build {
        let mut build = Build::default();
        let known = [
            "context",
            "dockerfile",
            "target",
            "args",
            "secrets",
            "services",
            "platform",
            "platforms",
            "machine",
            "timeout",
            "cache",
        ];
        let Some(table) = self.table(node, path, &known) else {
            return build;
        };
        if let Some(node) = table.get("context") {
            build.context = self.path(node, &table.at("context")).unwrap_or_default();
        }
        build.dockerfile = table.get("dockerfile").and_then(|node| self.path(node, &table.at("dockerfile")));
        build.target = table.get("target").and_then(|node| self.service_name(node, &table.at("target")));
        build.args = self.variables(&table, "args");
        build.secrets = self.list_of_texts(&table, "secrets", "the name of a secret");
        build.services = self.services(&table, "services");
        if let Some(node) = table.get("platform") {
            build.platforms.extend(self.word(node, &table.at("platform"), PLATFORMS));
        }
        if let Some(node) = table.get("platforms") {
            if table.get("platform").is_some() {
                self.wrong(node.at, &table.at("platforms"), "give `platform` or `platforms`, not both");
            }
            for (index, item) in node.items().unwrap_or(std::slice::from_ref(node)).iter().enumerate() {
                build.platforms.extend(self.word(item, &format!("{}[{index}]", table.at("platforms")), PLATFORMS));
            }
        }
        build.machine = table.get("machine").and_then(|node| self.size(node, &table.at("machine"))).unwrap_or_default();
        build.timeout = table.get("timeout").and_then(|node| self.build_timeout(node, &table.at("timeout")));
        build
    }

    /// A build is a part of a run, which ends after its own time.
    fn build_timeout(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let timeout = self.duration(node, path)?;
        let most = Duration::from_secs(run::LIMIT.num_seconds().unsigned_abs());
        if timeout > most {
            let message = format!("`{timeout}` is more than {most}, which is the most that a whole run may take");
            self.wrong(node.at, path, message);
        }
        Some(timeout)
    }

    fn preview(&mut self, node: &Node) -> Preview {
        let mut preview = Preview::default();
        let known = [
            "size",
            "arch",
            "provider",
            "region",
            "compose",
            "expose",
            "env",
            "secrets",
            "access",
            "ttl",
            "sleep_after",
            "lifecycle",
            "health",
        ];
        let Some(table) = self.table(node, "preview", &known) else {
            return preview;
        };
        if let Some(size) = table.get("size").and_then(|node| self.size(node, "preview.size")) {
            preview.size = size;
        }
        if let Some(arch) = table.get("arch").and_then(|node| self.word(node, "preview.arch", ARCHES)) {
            preview.arch = arch;
        }
        preview.provider =
            table.get("provider").and_then(|node| self.text(node, "preview.provider", "the name of a cloud account"));
        preview.region = self.list_of_texts(&table, "region", "a region");
        if let Some(node) = table.get("compose") {
            let files = node.items().unwrap_or(std::slice::from_ref(node));
            preview.compose = files.iter().filter_map(|item| self.path(item, "preview.compose")).collect();
        }
        if let Some(node) = table.get("expose") {
            preview.expose = self.each(node, "preview.expose", Self::expose);
        }
        preview.env = self.variables(&table, "env");
        preview.secrets = self.list_of_texts(&table, "secrets", "the name of a secret");
        let accesses = [("team", Access::Team), ("public", Access::Public), ("password", Access::Password)];
        if let Some(access) = table.get("access").and_then(|node| self.word(node, "preview.access", &accesses)) {
            preview.access = access;
        }
        if let Some(ttl) = table.get("ttl").and_then(|node| self.duration(node, "preview.ttl")) {
            preview.ttl = ttl;
        }
        match table.get("sleep_after") {
            Some(node) if node.text() == Some("never") => preview.sleep_after = None,
            Some(node) => preview.sleep_after = self.duration(node, "preview.sleep_after"),
            None => {}
        }
        if let Some(node) = table.get("lifecycle") {
            preview.lifecycle = self.lifecycle(node);
        }
        preview.health = table.get("health").and_then(|node| self.health(node));
        preview
    }

    /// A size, by its name or by one of [`Size::ALIASES`].
    fn size(&mut self, node: &Node, path: &str) -> Option<Size> {
        let alias = Size::ALIASES.into_iter().find(|(name, _)| node.text() == Some(*name));
        alias.map(|(_, size)| size).or_else(|| self.word(node, path, SIZES))
    }

    fn expose(&mut self, node: &Node, path: &str) -> Option<Expose> {
        let table = self.table(node, path, &["service", "port", "host", "path"])?;
        let service = self.required(&table, node, "service", "the compose service");
        let port = self.required(&table, node, "port", "the port inside the container");
        let service = service.and_then(|node| self.service(node, &table.at("service")));
        let port = port.and_then(|node| self.port(node, &table.at("port")));
        let host = table.get("host").and_then(|node| self.host(node, &table.at("host")));
        let prefix = table.get("path").and_then(|node| self.url_path(node, &table.at("path")));
        Some(Expose { service: service?, port: port?, host, path: prefix })
    }

    /// A DNS label (RFC 1123) that does not look like the separator before the hash.
    fn host(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path, "a host label")?;
        let good = text.len() <= 40
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if !good {
            let message = format!("`{}` is not a host label (a-z, 0-9 and single hyphens, at most 40)", shown(&text));
            self.wrong(node.at, path, message);
        }
        good.then_some(text)
    }

    fn url_path(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path, "a path that starts with /")?;
        let good =
            text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['?', '#', '\\']);
        if !good {
            self.wrong(node.at, path, format!("`{}` is not a URL path that starts with /", shown(&text)));
        }
        good.then_some(text)
    }

    fn lifecycle(&mut self, node: &Node) -> Lifecycle {
        let Some(table) = self.table(node, "preview.lifecycle", &["on_start", "on_stop"]) else {
            return Lifecycle::default();
        };
        let mut hooks = |key: &str| match table.get(key) {
            Some(node) => self.each(node, &table.at(key), Self::hook),
            None => Vec::new(),
        };
        Lifecycle { on_start: hooks("on_start"), on_stop: hooks("on_stop") }
    }

    fn hook(&mut self, node: &Node, path: &str) -> Option<Hook> {
        let table = self.table(node, path, &["service", "command", "timeout"])?;
        let service = self.required(&table, node, "service", "the compose service to run it in");
        let command = self.required(&table, node, "command", "the command");
        let service = service.and_then(|node| self.service(node, &table.at("service")));
        let command = command.and_then(|node| self.text(node, &table.at("command"), "a command"));
        let timeout = table.get("timeout").and_then(|node| self.duration(node, &table.at("timeout")));
        Some(Hook { service: service?, command: command?, timeout })
    }

    fn health(&mut self, node: &Node) -> Option<Health> {
        let path = "preview.health";
        let table = self.table(node, path, &["service", "path", "port", "timeout"])?;
        let service = self.required(&table, node, "service", "the compose service to ask");
        let service = service.and_then(|node| self.service(node, &table.at("service")));
        let url_path = match table.get("path") {
            Some(node) => self.url_path(node, &table.at("path")),
            None => Some("/".to_owned()),
        };
        let port = table.get("port").and_then(|node| self.port(node, &table.at("port")));
        let timeout = table.get("timeout").and_then(|node| self.duration(node, &table.at("timeout")));
        Some(Health { service: service?, path: url_path?, port, timeout })
    }

    fn triggers(&mut self, node: &Node) -> Triggers {
        let mut triggers = Triggers::default();
        let known = ["branches", "labels", "paths", "drafts", "forks"];
        let Some(table) = self.table(node, "triggers", &known) else {
            return triggers;
        };
        if table.get("branches").is_some() {
            triggers.branches = self.list_of_texts(&table, "branches", "a pattern of branch names");
        }
        if let Some(labels) = table.get("labels")
            && let Some(table) = self.table(labels, "triggers.labels", &["any"])
        {
            triggers.labels = Labels { any: self.list_of_texts(&table, "any", "a label") };
        }
        triggers.paths = self.list_of_texts(&table, "paths", "a pattern of paths");
        if let Some(drafts) = table.get("drafts").and_then(|node| self.flag(node, "triggers.drafts")) {
            triggers.drafts = drafts;
        }
        let forks = [("approve", Forks::Approve), ("deny", Forks::Deny), ("allow", Forks::Allow)];
        if let Some(forks) = table.get("forks").and_then(|node| self.word(node, "triggers.forks", &forks)) {
            triggers.forks = forks;
        }
        triggers
    }

    fn test(&mut self, node: &Node) -> Test {
        let mut test = Test::default();
        let Some(table) = self.table(node, "test", &["enabled", "image", "commands", "timeout"]) else {
            return test;
        };
        test.enabled = table.get("enabled").and_then(|node| self.flag(node, "test.enabled")).unwrap_or_default();
        test.image = table.get("image").and_then(|node| self.text(node, "test.image", "an image"));
        test.commands = self.list_of_texts(&table, "commands", "a command");
        test.timeout = table.get("timeout").and_then(|node| self.duration(node, "test.timeout"));
        if test.enabled && test.image.is_none() {
            self.wrong(node.at, "test.image", "missing: give the image in which the commands run");
        }
        test
    }

    fn variables(&mut self, table: &Table<'_>, key: &str) -> IndexMap<String, String> {
        let mut variables = IndexMap::new();
        let Some(node) = table.get(key) else {
            return variables;
        };
        let path = table.at(key);
        for (name, key, value) in self.named(node, &path, "names and values") {
            let path = format!("{path}.{}", shown(name));
            let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit());
            if !good {
                self.wrong(key.at, &path, "a variable's name has letters, digits and `_`, and no digit first");
            } else if value.is_null() {
                variables.insert(name.to_owned(), String::new());
            } else if let yaml::Value::Scalar { text, .. } = &value.value {
                variables.insert(name.to_owned(), text.clone());
            } else {
                self.wrong(value.at, &path, format!("expected a value, found {}", value.kind()));
            }
        }
        variables
    }

    fn list_of_texts(&mut self, table: &Table<'_>, key: &str, what: &str) -> Vec<String> {
        table.get(key).map(|node| self.texts(node, &table.at(key), what)).unwrap_or_default()
    }

    fn services(&mut self, table: &Table<'_>, key: &str) -> Vec<String> {
        let Some(node) = table.get(key) else {
            return Vec::new();
        };
        let items = node.items().unwrap_or(std::slice::from_ref(node));
        let each = items.iter().enumerate();
        each.filter_map(|(index, item)| self.service(item, &format!("{}[{index}]", table.at(key)))).collect()
    }

    fn each<T>(&mut self, node: &Node, path: &str, read: impl Fn(&mut Self, &Node, &str) -> Option<T>) -> Vec<T> {
        let Some(items) = node.items() else {
            self.wrong(node.at, path, format!("expected a list, found {}", node.kind()));
            return Vec::new();
        };
        items.iter().enumerate().filter_map(|(index, item)| read(self, item, &format!("{path}[{index}]"))).collect()
    }
}

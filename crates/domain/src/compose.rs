//! What Stagely needs to know of a compose file: which services it builds, and which ports they publish.
//! The file itself is run as written by `docker compose`, which is also the judge of its grammar; here only
//! what is certainly wrong is refused, so that a mistake is told before a machine is paid for.

use std::collections::BTreeMap;

use crate::spec::{Diagnostic, FILE, RepoPath};
use crate::yaml::{self, Node, Position};

/// One service, as far as we look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How its image is built, if it is.
    pub build: Option<Build>,
    /// Container ports that are published, in order.
    pub ports: Vec<u16>,
}

/// A `build:` section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// Directory, relative to the repository's root.
    pub context: RepoPath,
    /// Dockerfile, relative to the context.
    pub dockerfile: Option<RepoPath>,
    /// Stage.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
}

/// The compose files of one commit.
#[derive(Debug, Clone, Default)]
pub struct Files {
    services: Vec<Service>,
    mistakes: Vec<Diagnostic>,
}

impl Files {
    /// Lays a file over those before it; `text` is `None` when it is not there.
    pub fn add(&mut self, file: &RepoPath, text: Option<&str>) {
        let Some(text) = text else {
            let message = format!("there is no such file: add it, or name yours with `preview.compose` in {FILE}");
            let (file, at) = (file.to_string(), Position { line: 1, column: 1 });
            self.mistakes.push(Diagnostic { file, at, key: String::new(), message, suggestion: None });
            return;
        };
        match parse(text, file) {
            Ok(services) => services.into_iter().for_each(|service| self.lay(service)),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }

    fn lay(&mut self, service: Service) {
        match self.services.iter_mut().find(|known| known.name == service.name) {
            Some(known) => {
                known.build = service.build.or(known.build.take());
                known.ports.extend(service.ports);
            }
            None => self.services.push(service),
        }
    }

    /// What they have together.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// What is wrong with them.
    #[must_use]
    pub fn mistakes(&self) -> &[Diagnostic] {
        &self.mistakes
    }
}

/// Reads the services of one compose file. `file` is its path in the repository; contexts are relative to it.
///
/// # Errors
/// Every place that is certainly wrong.
pub fn parse(text: &str, file: &RepoPath) -> Result<Vec<Service>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut wrong = |at: Position, key: &str, message: &str| {
        diagnostics.push(Diagnostic {
            file: file.to_string(),
            at,
            key: key.to_owned(),
            message: message.to_owned(),
            suggestion: None,
        });
    };
    let start = Position { line: 1, column: 1 };
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            wrong(start, "", "the compose file is empty");
            return Err(diagnostics);
        }
        Err(error) => {
            wrong(error.at, "", &error.message);
            return Err(diagnostics);
        }
    };
    let Some(services) = root.get("services") else {
        wrong(root.at, "services", "missing: a compose file has `services`");
        return Err(diagnostics);
    };
    let Some(entries) = services.entries() else {
        wrong(services.at, "services", "expected a mapping of services");
        return Err(diagnostics);
    };
    let mut found = Vec::new();
    for (key, node) in entries {
        let name = key.text().unwrap_or_default();
        let path = format!("services.{name}");
        if !crate::spec::is_service_name(name) {
            wrong(key.at, &path, "not a service name (letters, digits, `.`, `_`, `-`)");
        } else if node.entries().is_none() {
            wrong(node.at, &path, "expected a mapping");
        } else {
            let build = match node.get("build").map(|build| read_build(build, file)) {
                None => None,
                Some(Ok(build)) => Some(build),
                Some(Err((at, message))) => {
                    wrong(at, &format!("{path}.build"), message);
                    None
                }
            };
            let ports = node.get("ports").and_then(Node::items).unwrap_or_default();
            found.push(Service {
                name: name.to_owned(),
                build,
                ports: ports.iter().filter_map(container_port).collect(),
            });
        }
    }
    if diagnostics.is_empty() { Ok(found) } else { Err(diagnostics) }
}

/// What is wrong with a `build:` section is told with its place.
fn read_build(node: &Node, file: &RepoPath) -> Result<Build, (Position, &'static str)> {
    let directory = file.parent();
    let within = |node: &Node| {
        let text = interpolate(node.text().unwrap_or("."));
        directory.join(&text).ok_or((node.at, "the context must be a directory inside the repository"))
    };
    if node.text().is_some() {
        return Ok(Build { context: within(node)?, ..Build::default() });
    }
    let context = match node.get("context") {
        Some(context) => within(context)?,
        None => directory.clone(),
    };
    let text = |key: &str| node.get(key).and_then(Node::text).map(interpolate);
    let dockerfile = match node.get("dockerfile") {
        Some(dockerfile) => {
            let path = dockerfile.text().and_then(|text| RepoPath::parse(&interpolate(text)));
            let message = "the dockerfile must be a path inside the build's context, relative to that";
            Some(path.ok_or((dockerfile.at, message))?)
        }
        None => None,
    };
    Ok(Build { context, dockerfile, target: text("target"), args: node.get("args").map(read_args).unwrap_or_default() })
}

fn read_args(node: &Node) -> BTreeMap<String, String> {
    match (node.entries(), node.items()) {
        (Some(entries), _) => entries
            .iter()
            .filter_map(|(key, value)| Some((key.text()?.to_owned(), interpolate(value.text().unwrap_or_default()))))
            .collect(),
        (_, Some(items)) => items
            .iter()
            .filter_map(|item| item.text()?.split_once('='))
            .map(|(key, value)| (key.to_owned(), interpolate(value)))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// The container side of `"3000"`, `"8080:80"`, `"127.0.0.1:8080:80/tcp"` or `{target: 80}`; the first of a range.
fn container_port(node: &Node) -> Option<u16> {
    if let Some(target) = node.get("target") {
        return interpolate(target.text()?).parse().ok();
    }
    let text = interpolate(node.text()?);
    let (text, protocol) = text.split_once('/').unwrap_or((text.as_str(), "tcp"));
    if protocol != "tcp" {
        return None;
    }
    let container = text.rsplit(':').next()?;
    container.split('-').next()?.parse().ok()
}

/// Compose's variable substitution for what we look at: only defaults are known before the machine runs.
fn interpolate(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((inside, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            let default = inside.split_once(":-").or_else(|| inside.split_once('-'));
            out.push_str(default.map_or("", |(_, default)| default));
            rest = tail;
        } else {
            rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::spec::RepoPath;

    #[test]
    fn builds_and_published_ports_are_found_in_every_notation() {
        let text = r#"
x-common: &common { restart: always }
services:
  web:
    <<: *common
    build: ./web
    ports: ["${WEB_PORT:-3000}:80", "127.0.0.1:9000:9000/tcp", "53:53/udp"]
  api:
    build: { context: ../api, dockerfile: docker/Dockerfile, target: run, args: [A=1, "B=${X:-2}"] }
    ports: [{ target: 8080, published: "80" }, "7000-7002"]
  db: { image: "postgres:17" }
"#;
        let services = parse(text, &RepoPath::parse("deploy/compose.yml").unwrap()).unwrap();
        let web = &services[0];
        assert_eq!(
            (web.build.as_ref().unwrap().context.as_str(), web.ports.as_slice()),
            ("deploy/web", &[80, 9000][..])
        );
        let api = services[1].build.as_ref().unwrap();
        assert_eq!((api.context.as_str(), api.target.as_deref()), ("api", Some("run")));
        assert_eq!((api.args["A"].as_str(), api.args["B"].as_str()), ("1", "2"));
        assert_eq!(services[1].ports, [8080, 7000]);
        assert_eq!(services[2].build, None);
    }

    #[test]
    fn what_is_certainly_wrong_is_told_with_its_place() {
        let file = RepoPath::parse("docker-compose.yml").unwrap();
        for (text, wanted) in [
            ("", "docker-compose.yml:1:1: the compose file is empty"),
            ("version: '3'\n", "docker-compose.yml:1:1: services: missing: a compose file has `services`"),
            ("services:\n  web: nginx\n", "docker-compose.yml:2:8: services.web: expected a mapping"),
            (
                "services:\n  web:\n    build: ../../x\n",
                "docker-compose.yml:3:12: services.web.build: the context must be a directory inside the repository",
            ),
            (
                "services:\n  web:\n    build: { context: web, dockerfile: ../Dockerfile }\n",
                "docker-compose.yml:3:40: services.web.build: the dockerfile must be a path inside the build's context, \
                 relative to that",
            ),
        ] {
            let told = parse(text, &file).unwrap_err();
            assert_eq!(told[0].to_string(), wanted);
        }
    }
}

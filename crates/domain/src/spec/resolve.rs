//! `stagely.yaml` and the compose files of one commit, put together and checked against each other. What comes
//! out is all that later steps look at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compose::Service;
use crate::machine::Size;
use crate::spec::diagnostic::nearest;
use crate::spec::{Build, Diagnostic, FILE, Platform, RepoPath, Spec};
use crate::yaml::{self, Node, Position};

/// One commit's wish, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The file, with its defaults.
    pub spec: Spec,
    /// Every service of the compose files, in their order.
    pub services: Vec<String>,
    /// Images to build.
    pub targets: Vec<Target>,
    /// Ports to route; the first without a host is the root URL.
    pub exposures: Vec<Exposure>,
}

/// One image to build, for one or more platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name in `builds`, or the compose service.
    pub name: String,
    /// The compose services that run it.
    pub services: Vec<String>,
    /// Directory given to the build.
    pub context: RepoPath,
    /// Dockerfile, relative to the context.
    pub dockerfile: String,
    /// Stage; empty for the last.
    pub stage: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Names of project secrets given to the build.
    pub secrets: Vec<String>,
    /// Platforms, at least one.
    pub platforms: Vec<Platform>,
    /// The builder's size.
    pub size: Size,
    /// The longest that it may take.
    pub timeout_secs: u32,
}

/// A port that visitors reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The compose service.
    pub service: String,
    /// The port inside its container.
    pub port: u16,
    /// A host of its own: `<host>--<hash>.<domain>`; `None` for the root URL.
    pub host: Option<String>,
    /// A path prefix on that host.
    pub path: String,
}

impl Resolved {
    /// The hosts below the preview domain, for a preview's hash; the root's is the first.
    #[must_use]
    pub fn hosts(&self, hash: &str, domain: &str) -> Vec<String> {
        let mut hosts = vec![format!("{hash}.{domain}")];
        for exposure in &self.exposures {
            let host = exposure.host_name(hash, domain);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }
}

impl Exposure {
    /// The host that serves it.
    #[must_use]
    pub fn host_name(&self, hash: &str, domain: &str) -> String {
        self.host.as_ref().map_or_else(|| format!("{hash}.{domain}"), |host| format!("{host}--{hash}.{domain}"))
    }
}

/// Puts the files together. `text` is `stagely.yaml` as written, for places in messages; `None` when there is none.
///
/// # Errors
/// Every contradiction at once: services that no compose file has, nothing to route, a build without a context.
pub fn resolve(spec: Spec, services: &[Service], text: Option<&str>) -> Result<Resolved, Vec<Diagnostic>> {
    let root = text.and_then(|text| yaml::parse(text).ok().flatten());
    let mut check =
        Check { root, names: services.iter().map(|service| service.name.as_str()).collect(), wrong: Vec::new() };
    let targets = check.targets(&spec, services);
    let exposures = check.exposures(&spec, services);
    for (kind, hooks) in [("on_start", &spec.preview.lifecycle.on_start), ("on_stop", &spec.preview.lifecycle.on_stop)]
    {
        for (index, hook) in hooks.iter().enumerate() {
            check.service(&hook.service, &format!("preview.lifecycle.{kind}[{index}].service"));
        }
    }
    if let Some(health) = &spec.preview.health {
        check.service(&health.service, "preview.health.service");
    }
    if check.wrong.is_empty() {
        let services = services.iter().map(|service| service.name.clone()).collect();
        Ok(Resolved { spec, services, targets, exposures })
    } else {
        Err(check.wrong)
    }
}

struct Check<'s> {
    root: Option<Node>,
    names: Vec<&'s str>,
    wrong: Vec<Diagnostic>,
}

impl Check<'_> {
    fn tell(&mut self, key: &str, message: String, suggestion: Option<&str>) {
        let at = self.root.as_ref().and_then(|root| root.locate(key)).unwrap_or(Position { line: 1, column: 1 });
        let suggestion = suggestion.map(str::to_owned);
        self.wrong.push(Diagnostic { file: FILE.to_owned(), at, key: key.to_owned(), message, suggestion });
    }

    fn service(&mut self, name: &str, key: &str) {
        if !self.names.contains(&name) {
            let suggestion = nearest(name, &self.names).map(str::to_owned);
            let message = format!("the compose files have no service `{name}`; they have {}", self.names.join(", "));
            self.tell(key, message, suggestion.as_deref());
        }
    }

    fn targets(&mut self, spec: &Spec, services: &[Service]) -> Vec<Target> {
        let default_platform = Platform::of(spec.preview.arch);
        let mut targets = Vec::new();
        for (name, build) in &spec.builds {
            let users = if build.services.is_empty() { vec![name.clone()] } else { build.services.clone() };
            for (index, user) in users.iter().enumerate() {
                let key = if build.services.is_empty() {
                    format!("builds.{name}")
                } else {
                    format!("builds.{name}.services[{index}]")
                };
                self.service(user, &key);
            }
            targets.push(target(name, users, build, default_platform));
        }
        // Services that the compose file builds and `builds` does not mention are built as compose says.
        for service in services {
            let Some(build) = &service.build else { continue };
            if targets.iter().any(|target: &Target| target.services.contains(&service.name)) {
                continue;
            }
            targets.push(Target {
                name: service.name.clone(),
                services: vec![service.name.clone()],
                context: build.context.clone(),
                dockerfile: build.dockerfile.as_ref().map_or("Dockerfile", RepoPath::as_str).to_owned(),
                stage: build.target.clone().unwrap_or_default(),
                args: build.args.clone(),
                secrets: Vec::new(),
                platforms: vec![default_platform],
                size: Size::default(),
                timeout_secs: DEFAULT_TIMEOUT_SECS,
            });
        }
        targets
    }

    fn exposures(&mut self, spec: &Spec, services: &[Service]) -> Vec<Exposure> {
        let mut exposures: Vec<Exposure> = Vec::new();
        for (index, expose) in spec.preview.expose.iter().enumerate() {
            let key = format!("preview.expose[{index}]");
            self.service(&expose.service, &format!("{key}.service"));
            let path = expose.path.clone().unwrap_or_else(|| "/".to_owned());
            if exposures.iter().any(|known| known.host == expose.host && known.path == path) {
                let message = "another entry has the same host and path already: give this one a `host` or a `path`";
                self.tell(&key, message.to_owned(), None);
            }
            exposures.push(Exposure {
                service: expose.service.clone(),
                port: expose.port,
                host: expose.host.clone(),
                path,
            });
        }
        if spec.preview.expose.is_empty() {
            let published = services.iter().flat_map(|service| service.ports.iter().map(move |port| (service, *port)));
            for (service, port) in published {
                // The first published port is the root URL; others get a host named after their service.
                let host = (!exposures.is_empty()).then(|| host_label(&service.name, port, &exposures));
                exposures.push(Exposure { service: service.name.clone(), port, host, path: "/".to_owned() });
            }
        }
        if exposures.is_empty() {
            let message = "nothing to open: publish a port in the compose file (`ports:`), or name one here";
            self.tell("preview.expose", message.to_owned(), None);
        }
        exposures
    }
}

const DEFAULT_TIMEOUT_SECS: u32 = 30 * 60;

fn target(name: &str, services: Vec<String>, build: &Build, default_platform: Platform) -> Target {
    Target {
        name: name.to_owned(),
        services,
        context: build.context.clone(),
        dockerfile: build.dockerfile.as_ref().map_or("Dockerfile", RepoPath::as_str).to_owned(),
        stage: build.target.clone().unwrap_or_default(),
        args: build.args.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        secrets: build.secrets.clone(),
        platforms: if build.platforms.is_empty() { vec![default_platform] } else { build.platforms.clone() },
        size: build.machine,
        timeout_secs: build
            .timeout
            .map_or(DEFAULT_TIMEOUT_SECS, |limit| u32::try_from(limit.as_secs()).unwrap_or(u32::MAX)),
    }
}

/// A host label for a published port: the service's name, with the port when that name is taken.
fn host_label(service: &str, port: u16, taken: &[Exposure]) -> String {
    let simple: String = service
        .chars()
        .take(30)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let simple = simple.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let used = |label: &str| taken.iter().any(|exposure| exposure.host.as_deref() == Some(label));
    if simple.is_empty() || used(&simple) {
        format!("{simple}-{port}").trim_start_matches('-').to_owned()
    } else {
        simple
    }
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use crate::compose;
    use crate::spec::{RepoPath, Spec, parse};

    const COMPOSE: &str = "services:\n  web: {build: ./web, ports: ['80:3000']}\n  api: {build: ./api, ports: ['8080:8080', '9090']}\n  db: {image: postgres}\n";

    fn services() -> Vec<compose::Service> {
        compose::parse(COMPOSE, &RepoPath::parse("docker-compose.yml").unwrap()).unwrap()
    }

    #[test]
    fn without_a_file_builds_and_urls_come_from_the_compose_file() {
        let resolved = resolve(Spec::default(), &services(), None).unwrap();
        let targets: Vec<&str> = resolved.targets.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(targets, ["web", "api"]);
        let hosts = resolved.hosts("x7k2", "example.dev");
        assert_eq!(hosts, ["x7k2.example.dev", "api--x7k2.example.dev", "api-9090--x7k2.example.dev"]);
    }

    #[test]
    fn names_that_no_compose_file_has_are_told_at_their_place() {
        let text = "version: 2\nbuilds:\n  bakend: {context: ./api}\npreview:\n  expose: [{service: wbe, port: 80}]\n  lifecycle:\n    on_start: [{service: apii, command: x}]\n  health: {service: nope}\n";
        let told = resolve(parse(text, "stagely.yaml").unwrap(), &services(), Some(text)).unwrap_err();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "stagely.yaml:3:11: builds.bakend: the compose files have no service `bakend`; they have web, api, db",
                "stagely.yaml:5:22: preview.expose[0].service: the compose files have no service `wbe`; they have web, api, db (did you mean `web`?)",
                "stagely.yaml:7:26: preview.lifecycle.on_start[0].service: the compose files have no service `apii`; they have web, api, db (did you mean `api`?)",
                "stagely.yaml:8:21: preview.health.service: the compose files have no service `nope`; they have web, api, db",
            ]
        );
    }

    #[test]
    fn nothing_to_open_and_two_root_urls_are_refused() {
        let file = RepoPath::parse("c.yml").unwrap();
        let closed = compose::parse("services:\n  db: {image: postgres}\n", &file).unwrap();
        assert!(resolve(Spec::default(), &closed, None).unwrap_err()[0].message.contains("nothing to open"));
        let text = "version: 2\npreview: {expose: [{service: web, port: 1}, {service: api, port: 2}]}\n";
        let told = resolve(parse(text, "f").unwrap(), &services(), Some(text)).unwrap_err();
        assert!(told[0].message.contains("same host and path"), "{}", told[0]);
    }
}

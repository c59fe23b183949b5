//! `stagely.yaml` and the compose files of one commit, put together and checked against each other. What comes
//! out is all that later steps look at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compose::{Files, Service};
use crate::machine::Size;
use crate::spec::decode::Mention;
use crate::spec::diagnostic::nearest;
use crate::spec::{Build, Diagnostic, FILE, Platform, RepoPath, Spec};
use crate::yaml::{Node, Position};

/// One commit's wish, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The file, with its defaults.
    pub spec: Spec,
    /// Every service of the compose files, in their order.
    pub services: Vec<String>,
    /// Images to build.
    pub targets: Vec<Target>,
    /// Ports to route; those without a host are served below the root URL.
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
    /// Whether it serves `/` of the root URL.
    fn is_root(&self) -> bool {
        self.host.is_none() && self.path.trim_end_matches('/').is_empty()
    }

    /// The host that serves it.
    #[must_use]
    pub fn host_name(&self, hash: &str, domain: &str) -> String {
        self.host.as_ref().map_or_else(|| format!("{hash}.{domain}"), |host| format!("{host}--{hash}.{domain}"))
    }
}

/// `stagely.yaml` as far as it could be read.
#[derive(Debug)]
pub struct Reading {
    pub(super) file: String,
    pub(super) root: Option<Node>,
    pub(super) spec: Spec,
    pub(super) mentions: Vec<Mention>,
    pub(super) mistakes: Vec<Diagnostic>,
}

impl Default for Reading {
    /// That of a commit without the file.
    fn default() -> Self {
        let file = FILE.to_owned();
        Self { file, root: None, spec: Spec::default(), mentions: Vec::new(), mistakes: Vec::new() }
    }
}

impl Reading {
    /// The compose files that belong to it; none when the place that names them is wrong.
    #[must_use]
    pub fn compose(&self) -> &[RepoPath] {
        let names_them = |mistake: &Diagnostic| ["", "preview", "preview.compose"].contains(&mistake.key.as_str());
        if self.mistakes.iter().any(names_them) { &[] } else { &self.spec.preview.compose }
    }
}

/// Puts the files together. `files` are those of [`Reading::compose`].
///
/// # Errors
/// Every mistake of all files at once, and every contradiction between them: services that no compose file has, nothing to
/// route. What cannot be known because of another mistake is not told.
pub fn resolve(reading: Reading, files: &Files) -> Result<Resolved, Vec<Diagnostic>> {
    let is_named = reading.mistakes.is_empty() || !reading.compose().is_empty();
    let is_known = is_named && files.mistakes().is_empty();
    let opens_as_read = !reading.mistakes.iter().any(|mistake| mistake.key.starts_with("preview.expose"));
    let Reading { file, root, spec, mentions, mistakes } = reading;
    let mut check = Check { file, root, wrong: mistakes };
    check.platforms(&spec);
    let services = files.services();
    let mut exposures = Vec::new();
    if is_known {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        for mention in mentions {
            check.service(mention, &names);
        }
        if opens_as_read {
            exposures = check.exposures(&spec, services);
        }
    }
    let mut wrong = check.wrong;
    wrong.sort_by_key(|mistake| mistake.at);
    wrong.extend_from_slice(files.mistakes());
    if wrong.is_empty() {
        let (targets, names) = (targets(&spec, services), services.iter().map(|service| service.name.clone()));
        Ok(Resolved { services: names.collect(), targets, spec, exposures })
    } else {
        Err(wrong)
    }
}

struct Check {
    file: String,
    root: Option<Node>,
    wrong: Vec<Diagnostic>,
}

impl Check {
    fn tell(&mut self, key: &str, message: &str) {
        let at = self.root.as_ref().and_then(|root| root.locate(key)).unwrap_or(Position { line: 1, column: 1 });
        let (file, key, message) = (self.file.clone(), key.to_owned(), message.to_owned());
        self.wrong.push(Diagnostic { file, at, key, message, suggestion: None });
    }

    /// Every image is to run on the preview's machine.
    fn platforms(&mut self, spec: &Spec) {
        let (arch, wanted) = (spec.preview.arch, Platform::of(spec.preview.arch));
        let is_wrong = |wrong: &[Diagnostic], key: &str| wrong.iter().any(|mistake| mistake.key.starts_with(key));
        let is_known = !is_wrong(&self.wrong, "preview.arch") && self.wrong.iter().all(|wrong| wrong.key != "preview");
        for (name, build) in spec.builds.iter().filter(|_| is_known) {
            if build.platforms.is_empty() || build.platforms.contains(&wanted) {
                continue;
            }
            let written = self.root.as_ref().and_then(|root| root.get("builds")?.get(name)?.get("platforms"));
            let key = format!("builds.{name}.{}", if written.is_some() { "platforms" } else { "platform" });
            if !is_wrong(&self.wrong, &key) {
                let wanted = wanted.as_str();
                let message = format!("the preview's machine is {arch}: add `{wanted}`, or change `preview.arch`");
                self.tell(&key, &message);
            }
        }
    }

    fn service(&mut self, mention: Mention, names: &[&str]) {
        let Mention { service, key, at } = mention;
        if !names.contains(&service.as_str()) {
            let suggestion = nearest(&service, names).map(str::to_owned);
            let message = format!("the compose files have no service `{service}`; they have {}", names.join(", "));
            self.wrong.push(Diagnostic { file: self.file.clone(), at, key, message, suggestion });
        }
    }

    fn exposures(&mut self, spec: &Spec, services: &[Service]) -> Vec<Exposure> {
        let mut exposures: Vec<Exposure> = Vec::new();
        for (index, expose) in spec.preview.expose.iter().enumerate() {
            let key = format!("preview.expose[{index}]");
            let path = expose.path.clone().unwrap_or_else(|| "/".to_owned());
            if exposures.iter().any(|known| known.host == expose.host && known.path == path) {
                let message = "another entry has the same host and path already: give this one a `host` or a `path`";
                self.tell(&key, message);
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
            self.tell("preview.expose", message);
        } else if !exposures.iter().any(Exposure::is_root) {
            // Every preview is proved by `GET /` of its root URL, which nothing would answer.
            let message = "no entry serves the root URL: one of them must have no `host`, and no `path` or `/`";
            self.tell("preview.expose", message);
        }
        exposures
    }
}

fn targets(spec: &Spec, services: &[Service]) -> Vec<Target> {
    let default_platform = Platform::of(spec.preview.arch);
    let mut targets = Vec::new();
    for (name, build) in &spec.builds {
        let users = if build.services.is_empty() { vec![name.clone()] } else { build.services.clone() };
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
mod tests;

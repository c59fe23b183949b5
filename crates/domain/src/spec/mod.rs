//! `stagely.yaml`, version 2: the types, and their defaults. Everything has a default; with no file at all
//! the builds come from the compose file ([`crate::compose`]). The grammar is in `docs/stagely-yaml.md`.

mod decode;
mod diagnostic;
mod parse;
mod resolve;
mod schema;
mod triggers;
mod values;

pub(crate) use decode::is_service_name;
pub use diagnostic::Diagnostic;
pub use parse::{parse, read};
pub use resolve::{Exposure, Reading, Resolved, Target, resolve};
pub use triggers::Facts;
pub use values::{Duration, RepoPath};

use indexmap::IndexMap;
use schemars::JsonSchema;
use schemars::transform::{RecursiveTransform, Transform};
use serde::{Deserialize, Serialize};

use crate::machine::{Arch, Size};

/// The file's name at the root of a repository.
pub const FILE: &str = "stagely.yaml";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["version"]))]
pub struct Spec {
    /// Always 2.
    #[schemars(schema_with = "schema::version")]
    pub version: u32,
    /// Images to build, by compose service. Empty: the compose file's `build:` sections.
    pub builds: IndexMap<String, Build>,
    /// The preview machine and what runs on it.
    pub preview: Preview,
    /// Which pull requests get a preview.
    pub triggers: Triggers,
    /// Commands run against the live preview.
    pub test: Test,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            version: 2,
            builds: IndexMap::new(),
            preview: Preview::default(),
            triggers: Triggers::default(),
            test: Test::default(),
        }
    }
}

/// One image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = schema::beside_the_fields_of_a_build)]
pub struct Build {
    /// Directory given to the build.
    pub context: RepoPath,
    /// Dockerfile, relative to the context; default `Dockerfile`.
    pub dockerfile: Option<RepoPath>,
    /// Stage to build; default the last.
    pub target: Option<String>,
    /// Build arguments.
    #[schemars(schema_with = "schema::variables")]
    pub args: IndexMap<String, String>,
    /// Names of project secrets for the build. Taken, and not acted on in this version.
    #[schemars(schema_with = "schema::texts")]
    pub secrets: Vec<String>,
    /// Compose services that use the image; default the one of this name.
    #[schemars(schema_with = "schema::texts")]
    pub services: Vec<String>,
    /// Platforms; default the preview machine's, which must be one of them. Each is an image of its own.
    #[schemars(schema_with = "schema::platforms")]
    pub platforms: Vec<Platform>,
    /// Size of the builder.
    #[schemars(schema_with = "schema::size")]
    pub machine: Size,
    /// The longest that it may take; default 30 min, at most 1 h like the whole run.
    pub timeout: Option<Duration>,
}

/// `linux/amd64` or `linux/arm64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Platform {
    /// x86-64.
    #[serde(rename = "linux/amd64")]
    Amd64,
    /// AArch64.
    #[serde(rename = "linux/arm64")]
    Arm64,
}

impl Platform {
    /// The processor it runs on.
    #[must_use]
    pub const fn arch(self) -> Arch {
        match self {
            Self::Amd64 => Arch::Amd64,
            Self::Arm64 => Arch::Arm64,
        }
    }

    /// The platform of a processor.
    #[must_use]
    pub const fn of(arch: Arch) -> Self {
        match arch {
            Arch::Amd64 => Self::Amd64,
            Arch::Arm64 => Self::Arm64,
        }
    }

    /// As Docker writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "linux/amd64",
            Self::Arm64 => "linux/arm64",
        }
    }
}

/// The preview machine and what runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preview {
    /// Size of the machine.
    #[schemars(schema_with = "schema::size")]
    pub size: Size,
    /// Processor of the machine.
    pub arch: Arch,
    /// A cloud account of the team; default the project's.
    pub provider: Option<String>,
    /// Regions, in the order in which they are tried.
    #[schemars(schema_with = "schema::texts")]
    pub region: Vec<String>,
    /// Compose files, in order; later ones are laid over earlier ones.
    #[schemars(schema_with = "schema::paths")]
    pub compose: Vec<RepoPath>,
    /// Ports to route; one must have no `host`, and no `path` or `/`: it serves the root URL. Empty: every published port of
    /// the compose file.
    pub expose: Vec<Expose>,
    /// Environment for every service that is built or named.
    #[schemars(schema_with = "schema::variables")]
    pub env: IndexMap<String, String>,
    /// Names of project secrets. Taken, and not acted on in this version.
    #[schemars(schema_with = "schema::texts")]
    pub secrets: Vec<String>,
    /// Who may open the preview.
    pub access: Access,
    /// How long it is kept after a deploy.
    pub ttl: Duration,
    /// Idle time before it sleeps; `never` to keep it awake.
    #[schemars(schema_with = "schema::idle_time")]
    pub sleep_after: Option<Duration>,
    /// Commands at start and stop.
    pub lifecycle: Lifecycle,
    /// What must answer before the preview counts as live.
    pub health: Option<Health>,
}

impl Default for Preview {
    fn default() -> Self {
        Self {
            size: Size::default(),
            arch: Arch::default(),
            provider: None,
            region: Vec::new(),
            compose: vec![RepoPath::literal("docker-compose.yml")],
            expose: Vec::new(),
            env: IndexMap::new(),
            secrets: Vec::new(),
            access: Access::default(),
            ttl: Duration::from_secs(7 * 24 * 3600),
            sleep_after: Some(Duration::from_secs(3600)),
            lifecycle: Lifecycle::default(),
            health: None,
        }
    }
}

/// Who may open a preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Members of the team.
    #[default]
    Team,
    /// Everyone who has the URL.
    Public,
    /// Everyone who has the password.
    Password,
}

/// A port that visitors reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The compose service.
    pub service: String,
    /// The port inside its container.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// A host of its own: `<host>--<hash>.<domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A path of the root URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Commands at start and stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// After the services are up, before they count as healthy, in order.
    pub on_start: Vec<Hook>,
    /// Before the services are stopped for good.
    pub on_stop: Vec<Hook>,
}

/// A command run inside a service's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The compose service.
    pub service: String,
    /// Given to the container's `sh -c`.
    pub command: String,
    /// The longest that it may take; default 5 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// An HTTP check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The compose service.
    pub service: String,
    /// The path to get; an answer below 400 is healthy.
    #[serde(default = "root_path")]
    pub path: String,
    /// The port; default the service's first exposed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port")]
    pub port: Option<u16>,
    /// How long everything may take to get healthy; default 5 min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

fn root_path() -> String {
    "/".to_owned()
}

/// Which pull requests get a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Triggers {
    /// Patterns of base branches; `*` matches any run of characters.
    #[schemars(schema_with = "schema::texts")]
    pub branches: Vec<String>,
    /// Labels that must be there.
    pub labels: Labels,
    /// Patterns of paths of which at least one must have changed; empty for any.
    #[schemars(schema_with = "schema::texts")]
    pub paths: Vec<String>,
    /// Whether drafts count.
    #[schemars(schema_with = "schema::flag")]
    pub drafts: bool,
    /// Pull requests from forks.
    pub forks: Forks,
}

impl Default for Triggers {
    fn default() -> Self {
        Self {
            branches: vec!["*".to_owned()],
            labels: Labels::default(),
            paths: Vec::new(),
            drafts: true,
            forks: Forks::default(),
        }
    }
}

/// Labels that must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// At least one of these; empty for no condition.
    #[schemars(schema_with = "schema::texts")]
    pub any: Vec<String>,
}

/// What happens with pull requests from forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forks {
    /// Each commit waits for a member's approval.
    #[default]
    Approve,
    /// Never.
    Deny,
    /// Like any other. Secrets are still withheld.
    Allow,
}

/// Commands run against the live preview.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Test {
    /// Whether they run.
    #[schemars(schema_with = "schema::flag")]
    pub enabled: bool,
    /// The image they run in.
    pub image: Option<String>,
    /// The commands, in order.
    #[schemars(schema_with = "schema::texts")]
    pub commands: Vec<String>,
    /// The longest that they may take; default 20 min.
    pub timeout: Option<Duration>,
}

/// The JSON Schema (draft 2020-12) of the file as it is written, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Spec);
    RecursiveTransform(schema::as_written).transform(&mut schema);
    schema.to_value()
}

#[cfg(test)]
mod tests;

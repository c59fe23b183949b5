//! What an agent reports, as it is kept in `agent_connections.observed`. The hub bounds every text and list
//! before it gets here; nothing in it is trusted beyond "the machine says so".

use serde::{Deserialize, Serialize};
use stagely_domain::build;
use stagely_domain::failure::Failure;
use stagely_domain::id::BuildJobId;

/// The agent's own account of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// The generation of the wish that it is about.
    pub generation: u64,
    /// How far it has come.
    pub phase: Phase,
    /// The timed steps towards it.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The compose services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Why it could not get there.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// The builds, on a builder.
    #[serde(default)]
    pub builds: Vec<BuildFact>,
    /// Bytes free where Docker keeps its data.
    #[serde(default)]
    pub disk_free_bytes: u64,
}

/// How far an agent has come with a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has nothing to do.
    #[default]
    Idle,
    /// On the way.
    Working,
    /// There, and healthy.
    Running,
    /// It could not get there.
    Failed,
    /// Everything is down, as wished.
    Stopped,
}

/// One timed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `checkout`, `pull`, `up`, `on_start`, `healthy`, `on_stop` or `down`.
    pub name: String,
    /// Milliseconds since the agent began with the generation.
    pub started_ms: u64,
    /// The same; `None` while it is under way.
    pub finished_ms: Option<u64>,
}

/// One compose service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in the compose file.
    pub name: String,
    /// Docker's word: `running`, `exited`, …
    pub state: String,
    /// `healthy`, `unhealthy`, `starting` or empty.
    pub health: String,
    /// The exit code, where it has exited.
    pub exit_code: i32,
    /// The image that it runs.
    pub image: String,
    /// Exposed container ports on which something listens.
    pub listening: Vec<u16>,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFact {
    /// The build job that it is about.
    pub job: BuildJobId,
    /// How far it is. A job that waits inside the agent counts as assigned.
    pub state: build::State,
    /// `sha256:…`, once pushed.
    pub digest: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Steps taken from the cache.
    pub cached_steps: u32,
    /// All steps.
    pub total_steps: u32,
}

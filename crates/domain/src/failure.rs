//! Why a run failed, in a form that a pull request, a page and a program can show.

use serde::{Deserialize, Serialize};

/// The kinds of failure, each with a page of its own in `docs/api.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "FailureCode")]
pub enum Code {
    /// `stagely.yaml` is not valid.
    ConfigInvalid,
    /// The compose file is missing or does not parse.
    ComposeInvalid,
    /// An image did not build.
    BuildFailed,
    /// An image could not be pushed or pulled.
    RegistryFailed,
    /// The provider gave no machine.
    MachineFailed,
    /// The machine's agent never enrolled, or was lost.
    MachineLost,
    /// The commit could not be checked out.
    CheckoutFailed,
    /// `docker compose up` failed.
    ComposeFailed,
    /// An `on_start` hook failed.
    HookFailed,
    /// A service did not become healthy in time.
    Unhealthy,
    /// Nothing listens on an exposed port.
    NothingListens,
    /// The URL did not answer through the edge.
    ProofFailed,
    /// A phase took longer than it may.
    TimedOut,
    /// The git host refused or did not answer.
    GitHostFailed,
    /// A fault of Stagely itself.
    Internal,
}

impl Code {
    /// Every code, for the test that each has a page.
    pub const ALL: [Self; 15] = [
        Self::ConfigInvalid,
        Self::ComposeInvalid,
        Self::BuildFailed,
        Self::RegistryFailed,
        Self::MachineFailed,
        Self::MachineLost,
        Self::CheckoutFailed,
        Self::ComposeFailed,
        Self::HookFailed,
        Self::Unhealthy,
        Self::NothingListens,
        Self::ProofFailed,
        Self::TimedOut,
        Self::GitHostFailed,
        Self::Internal,
    ];

    /// The code as programs see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigInvalid => "config_invalid",
            Self::ComposeInvalid => "compose_invalid",
            Self::BuildFailed => "build_failed",
            Self::RegistryFailed => "registry_failed",
            Self::MachineFailed => "machine_failed",
            Self::MachineLost => "machine_lost",
            Self::CheckoutFailed => "checkout_failed",
            Self::ComposeFailed => "compose_failed",
            Self::HookFailed => "hook_failed",
            Self::Unhealthy => "unhealthy",
            Self::NothingListens => "nothing_listens",
            Self::ProofFailed => "proof_failed",
            Self::TimedOut => "timed_out",
            Self::GitHostFailed => "git_host_failed",
            Self::Internal => "internal",
        }
    }

    /// The code named `text`; an unknown one counts as internal, since agents may be newer than we are.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or(Self::Internal)
    }
}

/// One failure with all that is known of it. Text from machines is bounded and masked before it gets here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// The phase that failed: `read`, `build`, `boot`, `checkout`, `pull`, `up`, `on_start`, `healthy`, `route`, `prove`.
    pub phase: String,
    /// The service or build target it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The exit code of what failed, where a process did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// One or more sentences: what happened, where, and what to do.
    pub message: String,
    /// The last lines of the log, oldest first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

//! The agent hub as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    stagely_runtime::main::<stagely_agent_hub::AgentHub>()
}

//! The orchestrator as a process of its own.

fn main() -> std::process::ExitCode {
    stagely_runtime::main::<stagely_orchestrator::Orchestrator>()
}

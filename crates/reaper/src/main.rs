//! The reaper as a process of its own.

fn main() -> std::process::ExitCode {
    stagely_runtime::main::<stagely_reaper::Reaper>()
}

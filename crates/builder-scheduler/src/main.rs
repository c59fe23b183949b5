//! The builder-scheduler as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    stagely_runtime::main::<stagely_builder_scheduler::BuilderScheduler>()
}

//! The API as its own process.

fn main() -> std::process::ExitCode {
    stagely_runtime::main::<stagely_api::Api>()
}

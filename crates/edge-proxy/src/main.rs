//! The edge proxy as a process of its own.

fn main() -> std::process::ExitCode {
    stagely_runtime::main::<stagely_edge_proxy::EdgeProxy>()
}

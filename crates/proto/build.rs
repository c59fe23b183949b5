//! Generates the gRPC code with protox, so that no system `protoc` is needed.

use std::path::Path;

/// Messages that carry tokens, passwords or secrets, and those that contain them: no `Debug`, so that none
/// can be printed by mistake.
const CONFIDENTIAL: &[&str] = &[
    ".stagely.agent.v1.Build",
    ".stagely.agent.v1.Builder",
    ".stagely.agent.v1.Checkout",
    ".stagely.agent.v1.Desired",
    ".stagely.agent.v1.HubFrame",
    ".stagely.agent.v1.Preview",
    ".stagely.agent.v1.RegistryAccess",
    ".stagely.agent.v1.Renewed",
    ".stagely.hub.v1.PrepareEnrolmentResponse",
    ".stagely.hub.v1.SetDesiredRequest",
    ".stagely.orchestrator.v1.CloneAccessResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo runs build scripts in the package's directory; a path fixed at compile time would be another checkout's
    // where two share a build directory.
    let root = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let file = |name: &str| root.join(format!("stagely/{name}/v1/{name}.proto"));

    // The agent's frames first: the other packages refer to them by the module they get here.
    let agent = protox::compile([file("agent")], [root])?;
    tonic_prost_build::configure().skip_debug(CONFIDENTIAL.iter().copied()).compile_fds(agent)?;
    let services = ["builder", "edge", "hub", "orchestrator", "reaper"].map(file);
    tonic_prost_build::configure()
        .skip_debug(CONFIDENTIAL.iter().copied())
        .extern_path(".stagely.agent.v1", "crate::agent")
        .compile_fds(protox::compile(services, [root])?)?;
    Ok(())
}

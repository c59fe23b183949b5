//! The wire contracts of Stagely, generated from `proto/`. Types of this crate stop at the border:
//! a service parses them into `domain` types and replies from them.

pub mod agent_wire;

/// Frames between the agent and the hub.
pub mod agent {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.agent.v1");
}

/// Commands to the agent hub.
pub mod hub {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.hub.v1");
}

/// Commands to the orchestrator.
pub mod orchestrator {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.orchestrator.v1");
}

/// The builder fleet.
pub mod builder {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.builder.v1");
}

/// The edge proxy's private port.
pub mod edge {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.edge.v1");
}

/// The reaper.
pub mod reaper {
    #![allow(clippy::all, rustdoc::all, missing_docs)]
    tonic::include_proto!("stagely.reaper.v1");
}

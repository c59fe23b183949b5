//! The program in the machine. It enrols once, keeps one connection to the hub, brings the machine to what the
//! hub wishes (a pull request's compose project, or image builds), reports what it sees, sends logs with secrets
//! hidden, and lets the edge - and nobody else - reach the exposed ports. It holds nothing that is worth more
//! than its own machine. The protocol is described in `docs/agent-protocol.md`.

pub mod agent;
pub mod backoff;
pub mod builder;
pub mod checkout;
pub mod compose;
pub mod config;
pub mod credentials;
pub mod docker;
pub mod enrol;
pub mod fault;
pub mod files;
pub mod identity;
pub mod ingress;
pub mod lease;
pub mod link;
pub mod logs;
pub mod machine;
pub mod outbox;
pub mod preview;
pub mod process;
pub mod registry;
pub mod sync;
pub mod targets;
pub mod tls;

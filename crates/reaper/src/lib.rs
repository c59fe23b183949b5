//! The reaper decides *when* something must end or sleep: the TTL is over, nobody visits, the project is gone. It
//! never does it itself: each decision is a command to the orchestrator that names what it was made on, so a push, a
//! visit, a renewal or a pin in between wins.

mod decide;
mod service;

pub use service::{Config, Reaper};

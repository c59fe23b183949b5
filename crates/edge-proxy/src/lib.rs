//! The edge: public traffic to preview machines. It has no database and dials nothing but Redis and machines.
//!
//! One current-thread runtime per core, each with its own `SO_REUSEPORT` listener and upstream pool. A request is
//! served start to end by one task: hyper reads the visitor, our own HTTP/1.1 client writes to the machine's ingress
//! and its answer is read from the same task as the visitor is written to. No request touches Redis: routes are a map
//! in memory that one task keeps in step, and that stays as it is while Redis is away.

mod accept;
mod config;
mod forward;
mod grpc;
mod headers;
mod hints;
mod respond;
mod route;
mod service;
mod upgrade;
mod upstream;

pub use config::Config;
pub use service::EdgeProxy;

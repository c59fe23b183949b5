//! The words and rules of Stagely: ids, value types, `stagely.yaml`, and for each noun its states and which of
//! them may follow which. No I/O and nothing asynchronous lives here, so every rule can be tested as a plain function.

pub mod account;
pub mod build;
pub mod clock;
pub mod compose;
pub mod cost;
pub mod environment;
pub mod error_chain;
pub mod failure;
pub mod id;
pub mod image;
pub mod ingress;
pub mod machine;
pub mod mask;
pub mod offering;
pub mod role;
pub mod route;
pub mod run;
pub mod secret;
pub mod spec;
pub mod yaml;

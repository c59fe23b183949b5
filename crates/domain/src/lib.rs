//! The words and rules of Stagely: ids, value types, `stagely.yaml`, state machines. No I/O and
//! nothing asynchronous lives here, so every rule can be tested as a plain function.

pub mod clock;
pub mod id;
pub mod machine;
pub mod secret;
pub mod state;

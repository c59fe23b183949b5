//! Tokens for the image registry, as the CNCF distribution's token authentication wants them
//! (<https://distribution.github.io/distribution/spec/auth/token/>): who holds a registry credential of a
//! project gets a short-lived JWT for that project's repositories and for nothing else.

pub mod endpoint;
mod jwt;
mod scope;
pub mod signing;

pub use signing::{SigningError, SigningKey};

//! Who asks. For now a bearer token; sessions come with sign-in.

pub mod permission;

//! The REST resources: per file the documents that go over the wire, beside their handlers.

pub mod cloud_accounts;
pub mod costs;
pub mod deliveries;
pub mod environments;
pub mod images;
pub mod logs;
pub mod projects;
pub mod runs;
pub mod status;

//! Who this machine is: written by cloud-init, or handed over by the host to a restored copy of a template
//! (see [`handover`]).

use std::path::Path;

use serde::{Deserialize, Serialize};
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;

use crate::files;

pub mod handover;
pub mod port;

/// The identity file.
#[derive(Clone, Deserialize)]
pub struct Identity {
    /// Where the hub is, `https://host:port`.
    pub hub_url: String,
    /// This machine.
    pub machine_id: MachineId,
    /// Works once. Gone from disk after enrolment.
    #[serde(default)]
    pub enrolment_token: Option<Secret>,
    /// Whom to believe: the installation's own authority.
    pub ca_pem: String,
    /// What the machine is for.
    pub role: Role,
    /// Where the ingress listens. 0 takes any free port.
    #[serde(default = "default_ingress_port")]
    pub ingress_port: u16,
}

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs one pull request.
    Preview,
    /// Builds images.
    Builder,
}

/// Why the identity could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("use the identity file")]
    File(#[from] std::io::Error),
    /// The file says something else than expected.
    #[error("understand the identity file")]
    Format(#[from] serde_json::Error),
}

fn default_ingress_port() -> u16 {
    7443
}

/// The file as it is written: the one place where the token is shown.
#[derive(Serialize)]
struct OnDisk<'a> {
    hub_url: &'a str,
    machine_id: MachineId,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolment_token: Option<&'a str>,
    ca_pem: &'a str,
    role: Role,
    ingress_port: u16,
}

impl Identity {
    /// Reads the file; `None` when there is none yet.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn find(path: &Path) -> Result<Option<Self>, Error> {
        match files::find(path)? {
            Some(text) => Ok(Some(serde_json::from_str(&text)?)),
            None => Ok(None),
        }
    }

    /// Writes the file, for root alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(&OnDisk {
            hub_url: &self.hub_url,
            machine_id: self.machine_id,
            enrolment_token: self.enrolment_token.as_ref().map(Secret::reveal),
            ca_pem: &self.ca_pem,
            role: self.role,
            ingress_port: self.ingress_port,
        })?;
        Ok(files::write_private(path, &text)?)
    }

    /// Forgets the token, here and on disk: it has been used.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn forget_token(&mut self, path: &Path) -> Result<(), Error> {
        if self.enrolment_token.take().is_some() {
            self.write(path)?;
        }
        Ok(())
    }
}

//! What the machine holds once enrolled: its key, which never leaves it, a credential for the hub and a
//! certificate for the ingress. Kept on disk for root alone, so that a restart or a reboot goes on as the
//! same machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde::Deserialize;
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;

use crate::files;

/// Why keys or credentials could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files cannot be read or written.
    #[error("use the credential files")]
    File(#[from] std::io::Error),
    /// The key cannot be made, read or used.
    #[error("use the machine's key")]
    Key(#[from] rcgen::Error),
}

/// What the hub gave.
#[derive(Clone)]
pub struct Granted {
    /// Shown at each connection.
    pub credential: Secret,
    /// The ingress's certificate chain.
    pub certificate_pem: String,
    /// The authority, which may have changed since.
    pub ca_pem: String,
}

/// The directory with the machine's key and what was granted to it.
pub struct Credentials {
    directory: PathBuf,
    machine: MachineId,
    key: KeyPair,
}

impl Credentials {
    /// Reads the key, or makes one at the first start.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(state: &Path, machine: MachineId) -> Result<Self, Error> {
        let directory = state.join("agent");
        files::ensure_private_dir(&directory)?;
        let path = directory.join("key.pem");
        let key = match files::find(&path)? {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                files::write_private(&path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        Ok(Self { directory, machine, key })
    }

    /// What was granted, if anything was.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn find_granted(&self) -> Result<Option<Granted>, Error> {
        let read = |name| files::find(&self.directory.join(name));
        let (Some(certificate_pem), Some(ca_pem), Some(credential)) =
            (read("certificate.pem")?, read("ca.pem")?, read("credential")?)
        else {
            return Ok(None);
        };
        Ok(Some(Granted { credential: Secret::new(credential), certificate_pem, ca_pem }))
    }

    /// Keeps what was granted. The credential is written last: without it the rest counts as absent.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn keep(&self, granted: &Granted) -> Result<(), Error> {
        let write = |name, text: &str| files::write_private(&self.directory.join(name), text.as_bytes());
        write("certificate.pem", &granted.certificate_pem)?;
        write("ca.pem", &granted.ca_pem)?;
        write("credential", granted.credential.reveal())?;
        Ok(())
    }

    /// A signing request (PKCS#10, DER) for this machine's key.
    ///
    /// # Errors
    /// If the key cannot sign.
    pub fn signing_request(&self) -> Result<Vec<u8>, Error> {
        let name = stagely_domain::ingress::machine_name(self.machine);
        let params = CertificateParams::new(vec![name])?;
        Ok(params.serialize_request(&self.key)?.der().to_vec())
    }

    /// ECDSA P-256 over SHA-256, ASN.1.
    ///
    /// # Errors
    /// If the key cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.key.sign(message)?)
    }

    /// The key for the ingress (PKCS#8, DER).
    #[must_use]
    pub fn key_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// Counts this start. Sequence numbers go on from it, so that they grow over restarts without a write
    /// for each frame.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn count_start(&self) -> Result<u64, Error> {
        let path = self.directory.join("starts");
        let starts = files::find(&path)?.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        files::write_private(&path, (starts + 1).to_string().as_bytes())?;
        Ok(starts)
    }
}

/// How long a credential is good for, from its own claims: the difference of two times of the hub's clock, so
/// that this machine's clock does not matter.
#[must_use]
pub fn lifetime(credential: &Secret) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        iat: u64,
        exp: u64,
    }
    let payload = credential.reveal().split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    Some(Duration::from_secs(claims.exp.checked_sub(claims.iat)?))
}

//! Enrolment: a machine's one-time token, exchanged for a credential that is bound to a key of its own.

use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use http::StatusCode;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use stagely_domain::error_chain::chain;
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;
use stagely_store::agents::{Enrolled, Prepared};

use crate::ca::MachineRequest;
use crate::error::HubError;
use crate::hub::Hub;

/// How long a token may be used after it was asked for.
pub const WINDOW: TimeDelta = TimeDelta::minutes(10);

/// What every token starts with, so that scanners find a leaked one.
const PREFIX: &str = "stge_";

/// The longest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The body of `POST /agent/v1/enrol`.
#[derive(Deserialize)]
pub struct Request {
    machine_id: String,
    token: Secret,
    csr_der: String,
}

/// The answer.
#[derive(Serialize)]
pub struct Answer {
    credential: String,
    certificate_pem: String,
    ca_pem: String,
}

/// A refusal, as the machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

const MALFORMED: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: "malformed",
    message: "the request is not JSON with machine_id, token and csr_der",
};
const BAD_REQUEST_KEY: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: "bad_csr",
    message: "csr_der is not a signed PKCS#10 request for a P-256 key, in base64",
};
const REFUSED: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    code: "enrolment_refused",
    message: "the token is not valid for this machine, or not any more",
};
const USED: Refusal =
    Refusal { status: StatusCode::CONFLICT, code: "token_used", message: "the token was used with another key" };
const AWAY: Refusal = Refusal {
    status: StatusCode::SERVICE_UNAVAILABLE,
    code: "unavailable",
    message: "enrolment is not possible right now: try again",
};

impl Hub {
    /// Opens the enrolment of a machine and returns its token: the same again until it is used.
    ///
    /// # Errors
    /// The store's error: no such machine, say.
    pub async fn prepare_enrolment(&self, machine: MachineId) -> Result<Secret, HubError> {
        let token = self.token(machine);
        let tx = self.store.begin().await?;
        let prepared = tx.prepare_enrolment(machine, &hash(&token), WINDOW).await?;
        tx.commit().await?;
        if prepared == Prepared::Closed {
            tracing::debug!(machine.id = %machine, "machine {machine} has enrolled already");
        }
        Ok(token)
    }

    /// Exchanges a token.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn enrol(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let request: Request = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
        let csr = STANDARD.decode(&request.csr_der).map_err(|_| BAD_REQUEST_KEY)?;
        let csr = MachineRequest::parse(&csr).map_err(|_| BAD_REQUEST_KEY)?;
        // An id that is none takes the same way as an unknown one, down to the query.
        let machine = request.machine_id.parse().unwrap_or(MachineId::from_uuid(uuid::Uuid::nil()));
        let failed = |error: HubError| {
            tracing::warn!(machine.id = %machine, error = %chain(&error), "enrolment of {machine} was put off");
            AWAY
        };
        let certificate = self.ca.issue_machine(machine, &csr).map_err(failed)?;
        let fingerprint = sha256(&certificate.certificate_der);
        let outcome =
            self.take(machine, &hash(&request.token), csr.public_key(), &fingerprint).await.map_err(failed)?;
        match outcome {
            Enrolled::First => {
                self.counters.enrolments.fetch_add(1, Ordering::Relaxed);
                tracing::info!(machine.id = %machine, "machine {machine} enrolled");
            }
            Enrolled::Again => tracing::info!(machine.id = %machine, "machine {machine} asked again for its answer"),
            Enrolled::Stolen => {
                tracing::error!(machine.id = %machine, "enrolment token of {machine} was used with a second key");
                return Err(USED);
            }
            Enrolled::Refused => {
                tracing::warn!("an enrolment was refused");
                return Err(REFUSED);
            }
        }
        let credential = self.signer.issue(machine, csr.public_key(), self.clock.now()).map_err(failed)?;
        Ok(Answer {
            credential: credential.reveal().to_owned(),
            certificate_pem: certificate.certificate_pem,
            ca_pem: self.ca.pem().to_owned(),
        })
    }

    async fn take(
        &self,
        machine: MachineId,
        token_hash: &[u8; 32],
        public_key: &[u8],
        fingerprint: &[u8; 32],
    ) -> Result<Enrolled, HubError> {
        let tx = self.store.begin().await?;
        let outcome = tx.enrol(machine, token_hash, public_key, fingerprint).await?;
        if outcome == Enrolled::Again {
            tx.note_ingress_certificate(machine, fingerprint).await?;
        }
        tx.commit().await?;
        Ok(outcome)
    }

    /// Derived, so that a repeated preparation gives the same token and the token itself is stored nowhere.
    fn token(&self, machine: MachineId) -> Secret {
        let bytes = self.keyring.derive("agent enrolment", machine.uuid().as_bytes());
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

/// Tokens are 256 derived bits: comparing hashes in the database tells nothing by its time.
fn hash(token: &Secret) -> [u8; 32] {
    sha256(token.reveal().as_bytes())
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

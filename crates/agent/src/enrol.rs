//! Enrolment: the one-time token for a credential bound to this machine's key. See `docs/agent-protocol.md`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;
use stagely_proto::agent_wire;
use tokio_util::task::TaskTracker;

use crate::credentials::{self, Credentials, Granted};
use crate::identity::Identity;
use crate::tls;

const DEADLINE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 256 * 1024;

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is neither a credential nor a token.
    #[error("enrol without a token")]
    NoToken,
    /// The hub said no: trying again cannot help.
    #[error("enrol: the hub refused with {status} {code}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The hub's word.
        code: String,
        /// The hub's sentence.
        message: String,
    },
    /// The hub could not answer properly now.
    #[error("enrol: the hub answered {0}")]
    Unavailable(StatusCode),
    /// The hub cannot be reached.
    #[error(transparent)]
    Connect(#[from] tls::Error),
    /// The request failed on its way.
    #[error("send the enrolment request")]
    Http(#[from] hyper::Error),
    /// The answer is too large, cut short or not as agreed.
    #[error("read the enrolment answer: {0}")]
    Answer(String),
    /// Nothing happened for too long.
    #[error("enrol within {} s", DEADLINE.as_secs())]
    TimedOut,
    /// The key cannot be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
}

#[derive(Serialize)]
struct Ask<'a> {
    machine_id: MachineId,
    token: &'a str,
    csr_der: String,
}

#[derive(Deserialize)]
struct Answer {
    credential: Secret,
    certificate_pem: String,
    ca_pem: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: String,
    message: String,
}

/// Asks once.
///
/// # Errors
/// If the hub refuses, cannot be reached or cannot answer.
pub async fn enrol(identity: &Identity, credentials: &Credentials, tasks: &TaskTracker) -> Result<Granted, Error> {
    tokio::time::timeout(DEADLINE, ask(identity, credentials, tasks)).await.unwrap_or(Err(Error::TimedOut))
}

async fn ask(identity: &Identity, credentials: &Credentials, tasks: &TaskTracker) -> Result<Granted, Error> {
    let token = identity.enrolment_token.as_ref().ok_or(Error::NoToken)?;
    let body = serde_json::to_vec(&Ask {
        machine_id: identity.machine_id,
        token: token.reveal(),
        csr_der: STANDARD.encode(credentials.signing_request()?),
    })
    .map_err(|error| Error::Answer(error.to_string()))?;

    let uri = tls::url(&identity.hub_url, agent_wire::ENROL_PATH)?;
    let host = uri.authority().map_or("", |a| a.as_str()).to_owned();
    let stream = tls::connect(&uri, &identity.ca_pem, DEADLINE).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn(connection);
    let request = Request::post(uri.path())
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Error::Answer(error.to_string()))?;
    let answer = client.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER)
        .collect()
        .await
        .map_err(|error| Error::Answer(error.to_string()))?
        .to_bytes();
    match status.as_u16() {
        200 => {
            let answer: Answer = serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))?;
            Ok(Granted {
                credential: answer.credential,
                certificate_pem: answer.certificate_pem,
                ca_pem: answer.ca_pem,
            })
        }
        401 | 403 | 409 => {
            let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
            Err(Error::Refused { status, code: refusal.code, message: refusal.message })
        }
        _ => Err(Error::Unavailable(status)),
    }
}

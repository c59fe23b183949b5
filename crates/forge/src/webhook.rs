//! GitHub's webhooks: is a delivery GitHub's, and which resource is it about?
//!
//! A signature covers the body and nothing else: not the event's name, not the delivery's id, not the time. An old
//! body can be sent again under a new id. So nothing that a body says about the *state* of a thing is taken from it;
//! it only names what is to be read again ([`crate::Forge::pull_request`]).

use http::HeaderMap;
use ring::hmac;
use serde_json::Value;
use stagely_domain::secret::Secret;
use uuid::Uuid;

use crate::types::Repo;

/// The longest event or action that is kept, in bytes. GitHub's are below 50.
const MAX_NAME: usize = 100;

/// Why a delivery is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// There is no `X-Hub-Signature-256`, or there are two. The older SHA-1 header alone does not count.
    #[error("exactly one header X-Hub-Signature-256 is needed")]
    Unsigned,
    /// The signature is not of this body by any of the accepted secrets.
    #[error("the signature does not fit the body")]
    BadSignature,
    /// Signed, but not a delivery. Names the header, or the field as in `repository.full_name`.
    #[error("`{field}` is missing or malformed")]
    Malformed {
        /// The header or field.
        field: &'static str,
    },
}

/// A delivery that was signed with one of our secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// GitHub's id of it: the same when it is delivered again. **Not covered by the signature.**
    pub guid: Uuid,
    /// The event's name. **Not covered by the signature.**
    pub event: String,
    /// What it is about.
    pub hook: Hook,
}

/// What a delivery is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// The webhook was set up.
    Ping,
    /// Something happened to a pull request.
    PullRequest {
        /// What; to be logged, not to be believed.
        action: String,
        /// Where.
        source: Source,
        /// Its number.
        number: i64,
    },
    /// Something was said on a pull request. Comments on plain issues are [`Hook::Unknown`].
    IssueComment {
        /// What; to be logged, not to be believed.
        action: String,
        /// Where.
        source: Source,
        /// The pull request's number.
        number: i64,
    },
    /// Commits were pushed.
    Push {
        /// Where.
        source: Source,
    },
    /// The App was installed or removed, or may see other repositories than before.
    InstallationChanged {
        /// The installation.
        installation: u64,
    },
    /// An event that we do not act on.
    Unknown,
}

/// The repository that a delivery names, and on whose behalf. Whether that installation may speak for that
/// repository is the reader's to check: a valid signature says only that GitHub sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `owner/name` as it was then; a repository can be renamed.
    pub repo: Repo,
    /// GitHub's id of it, which stays.
    pub repo_id: u64,
    /// The App's installation; absent for a webhook of the repository's own.
    pub installation: Option<u64>,
}

/// Verifies, then parses: [`verify`] and [`parse`] in the only right order.
///
/// # Errors
/// [`WebhookError`].
pub fn receive(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> Result<Delivery, WebhookError> {
    verify(secrets, headers, body)?;
    parse(headers, body)
}

/// Checks the one `X-Hub-Signature-256` against every secret that is valid now (two while one replaces the other),
/// in constant time each. `body` is the request's body as it came, before any decoding. An empty secret is none.
///
/// # Errors
/// [`WebhookError::Unsigned`] and [`WebhookError::BadSignature`].
pub fn verify(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError> {
    let mut values = headers.get_all("x-hub-signature-256").iter();
    let (Some(given), None) = (values.next(), values.next()) else { return Err(WebhookError::Unsigned) };
    let given = given.to_str().ok().and_then(|text| hex::decode(text.strip_prefix("sha256=")?).ok());
    let given = given.ok_or(WebhookError::BadSignature)?;
    let fits = |secret: &Secret| hmac::verify(&key(secret), body, &given).is_ok();
    if secrets.iter().filter(|secret| !secret.is_empty()).any(fits) { Ok(()) } else { Err(WebhookError::BadSignature) }
}

/// The header's value for a body: what GitHub sends.
#[must_use]
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac::sign(&key(secret), body)))
}

/// Reads the headers and the few fields that identify a resource. Call it after [`verify`].
///
/// # Errors
/// [`WebhookError::Malformed`], which names the first thing amiss.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Delivery, WebhookError> {
    let event = name(header(headers, "x-github-event")?, "x-github-event")?;
    let guid = header(headers, "x-github-delivery")?;
    let guid = guid.parse().map_err(|_| WebhookError::Malformed { field: "x-github-delivery" })?;
    let content_type = header(headers, "content-type")?.to_ascii_lowercase();
    // GitHub can send forms too; the body of one is not JSON.
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(WebhookError::Malformed { field: "content-type" });
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| WebhookError::Malformed { field: "body" })?;
    let hook = hook(&event, &body)?;
    Ok(Delivery { guid, event, hook })
}

fn hook(event: &str, body: &Value) -> Result<Hook, WebhookError> {
    Ok(match event {
        "ping" => Hook::Ping,
        "pull_request" => Hook::PullRequest {
            action: action(body)?,
            source: source(body)?,
            number: number(body, "/number", "number")?,
        },
        "issue_comment" if body.pointer("/issue/pull_request").is_some_and(Value::is_object) => Hook::IssueComment {
            action: action(body)?,
            source: source(body)?,
            number: number(body, "/issue/number", "issue.number")?,
        },
        "push" => Hook::Push { source: source(body)? },
        "installation" | "installation_repositories" => {
            let field = "installation.id";
            let id = body.pointer("/installation/id").and_then(Value::as_u64);
            Hook::InstallationChanged { installation: id.ok_or(WebhookError::Malformed { field })? }
        }
        _ => Hook::Unknown,
    })
}

fn source(body: &Value) -> Result<Source, WebhookError> {
    let field = "repository.full_name";
    let full_name = body.pointer("/repository/full_name").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let repo = full_name.ok_or(WebhookError::Malformed { field })?;
    let repo_id = body.pointer("/repository/id").and_then(Value::as_u64);
    let repo_id = repo_id.ok_or(WebhookError::Malformed { field: "repository.id" })?;
    let installation = match body.get("installation") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value["id"].as_u64().ok_or(WebhookError::Malformed { field: "installation.id" })?),
    };
    Ok(Source { repo, repo_id, installation })
}

fn action(body: &Value) -> Result<String, WebhookError> {
    name(body["action"].as_str().unwrap_or_default(), "action")
}

/// A word of GitHub's: lower case with underscores. It ends up in logs and columns.
fn name(text: &str, field: &'static str) -> Result<String, WebhookError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let good = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain);
    if good { Ok(text.to_owned()) } else { Err(WebhookError::Malformed { field }) }
}

fn number(body: &Value, pointer: &str, field: &'static str) -> Result<i64, WebhookError> {
    let number = body.pointer(pointer).and_then(Value::as_i64).filter(|number| *number > 0);
    number.ok_or(WebhookError::Malformed { field })
}

/// A header that must be there exactly once.
fn header<'h>(headers: &'h HeaderMap, field: &'static str) -> Result<&'h str, WebhookError> {
    let mut values = headers.get_all(field).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(WebhookError::Malformed { field }),
    }
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())
}

//! What a caller is told when something is refused or broken: RFC 9457 problem documents.
//!
//! A refusal says what is wrong and how to put it right. A fault says nothing but a code and an id; the same
//! id stands in the log beside the whole chain of causes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use stagely_domain::error_chain::chain;
use stagely_domain::role::Role;
use stagely_store::StoreError;
use uuid::Uuid;

/// A result of a handler.
pub type Result<T> = std::result::Result<T, ApiError>;

/// Why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or one that is not valid any more.
    #[error("the request carries no valid token")]
    Unauthorized,
    /// No registry credential, or one that is not valid any more.
    #[error("the request carries no valid registry credential")]
    RegistryUnauthorized,
    /// The body's signature is missing or wrong.
    #[error("the webhook's signature is missing or wrong")]
    BadSignature,
    /// The token's role is too small.
    #[error("the request needs the role {0}")]
    Forbidden(Role),
    /// Not there, or not the asker's: the two look the same.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request makes no sense.
    #[error("{detail}")]
    Invalid {
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// The request is understood, and cannot be done.
    #[error("{detail}")]
    Unprocessable {
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// The request does not fit the present state.
    #[error("{detail}")]
    Conflict {
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// The body is too long.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The path knows other methods.
    #[error("the path does not take this method")]
    MethodNotAllowed,
    /// It took too long.
    #[error("the request took too long")]
    TimedOut,
    /// The database.
    #[error("use the database")]
    Store(#[source] StoreError),
    /// The orchestrator.
    #[error("call the orchestrator")]
    Orchestrator(#[source] Box<tonic::Status>),
    /// A fault of ours.
    #[error("{doing}")]
    Internal {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The document of RFC 9457.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// `urn:stagely:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// For programs: the last part of `type`.
    pub code: String,
    /// `urn:uuid:…`: what to look for in the log. Only with 5xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::Exists(what) => {
                Self::Conflict { code: "exists", detail: format!("there is such a {what} already") }
            }
            other => Self::Store(other),
        }
    }
}

impl From<tonic::Status> for ApiError {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::NotFound => Self::NotFound("environment"),
            tonic::Code::FailedPrecondition | tonic::Code::Aborted => {
                Self::Conflict { code: "wrong_state", detail: status.message().to_owned() }
            }
            _ => Self::Orchestrator(Box::new(status)),
        }
    }
}

impl ApiError {
    /// How to authenticate, where that is what is missing.
    const fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => Some("Bearer realm=\"stagely\""),
            Self::RegistryUnauthorized => Some("Basic realm=\"stagely registry\""),
            Self::BadSignature => Some("Signature realm=\"stagely\""),
            _ => None,
        }
    }

    /// Status, code and the sentence that callers see.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "send a valid API token as `Authorization: Bearer stg_…`; `stagelyd admin token` makes one".to_owned(),
            ),
            Self::RegistryUnauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "send a registry credential that is valid now as the password of HTTP Basic authentication".to_owned(),
            ),
            Self::BadSignature => (
                StatusCode::UNAUTHORIZED,
                "bad_signature",
                "X-Hub-Signature-256 is missing or does not fit the body: compare the webhook's secret at the git host \
                 with api.github_webhook_secrets"
                    .to_owned(),
            ),
            Self::Forbidden(role) => {
                (StatusCode::FORBIDDEN, "forbidden", format!("this needs a token with the role {role} or a higher one"))
            }
            Self::NotFound(what) => {
                (StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}, or it is not yours"))
            }
            Self::Invalid { code, detail } => (StatusCode::BAD_REQUEST, code, detail.clone()),
            Self::Unprocessable { code, detail } => (StatusCode::UNPROCESSABLE_ENTITY, code, detail.clone()),
            Self::Conflict { code, detail } => (StatusCode::CONFLICT, code, detail.clone()),
            Self::TooLarge { limit } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body may have at most {limit} bytes"))
            }
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "see the Allow header for the methods".to_owned())
            }
            Self::TimedOut => unavailable("the request took too long; try again"),
            Self::Store(source) if source.is_transient() => unavailable("the database does not answer; try again"),
            Self::Orchestrator(status) if may_pass(status) => unavailable("the orchestrator does not answer; try again"),
            Self::Store(_) | Self::Orchestrator(_) | Self::Internal { .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "this is a fault of Stagely; the id in `instance` finds it in the log".to_owned(),
            ),
        }
    }
}

fn unavailable(detail: &str) -> (StatusCode, &'static str, String) {
    (StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail.to_owned())
}

/// Whether the same call may succeed soon.
fn may_pass(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Unavailable
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Cancelled
            | tonic::Code::ResourceExhausted
    )
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.parts();
        let challenge = self.challenge();
        let instance = status.is_server_error().then(|| format!("urn:uuid:{}", Uuid::new_v4()));
        if let Some(instance) = &instance {
            tracing::error!(%instance, code, error = chain(&self), "request failed: {instance}");
        }
        let problem = Problem {
            kind: format!("urn:stagely:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail,
            code: code.to_owned(),
            instance,
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

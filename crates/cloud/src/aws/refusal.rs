//! What the provider's refusals mean.

use std::error::Error;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use crate::aws::actions::{Action, DEREGISTER_IMAGE, Effect};
use crate::{CloudError, ErrorKind};

/// Longer messages are cut: a refusal for want of a permission comes with a page of ciphertext.
const LONGEST: usize = 400;

/// A failed call, and the provider's own word for why, for the few that ask.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: CloudError,
    pub(super) code: Option<String>,
}

impl From<Refused> for CloudError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl Refused {
    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// What a call of the SDK ended with.
pub(super) fn read<E>(doing: &'static str, action: &Action, error: &SdkError<E, HttpResponse>) -> Refused
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let code = error.code().map(str::to_owned);
    Refused { error: meaning(doing, action, error), code }
}

fn meaning<E>(doing: &'static str, action: &Action, error: &SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    // A role that could not be taken on: that call was another, and this one was never sent.
    if let Some(before) = source::<CloudError>(error) {
        return CloudError::new(before.kind, before.doing, before.message.clone());
    }
    let (kind, message, was_sent) = match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            return told(doing, action, status, refused.err().code(), refused.err().message());
        }
        SdkError::ConstructionFailure(_) => (ErrorKind::Invalid, "the request could not be made", false),
        _ if never_connected(error) => (ErrorKind::Unavailable, "no connection", false),
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, "no answer in time", true),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (ErrorKind::Timeout, "no answer in time", true),
        SdkError::ResponseError(_) => (ErrorKind::Unavailable, "the answer broke off", true),
        _ => (ErrorKind::Unavailable, "the connection broke", true),
    };
    let failed = CloudError::new(kind, doing, format!("{}: {message}", action.permission));
    if was_sent && action.effect == Effect::Change { failed.ambiguous() } else { failed }
}

/// The error that an answer with this status, code and message is.
pub(super) fn told(
    doing: &'static str,
    action: &Action,
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
) -> CloudError {
    let kind = match code {
        None => by_status(status, false),
        // One that is taken away is only not taken away yet; to any other it is not there, or not any more.
        Some("InvalidAMIID.Unavailable") if *action != DEREGISTER_IMAGE => ErrorKind::NotFound,
        Some(code) => kind(status, code),
    };
    let text = match (code, message.map(without_ciphertext)) {
        (None, _) => format!("the provider answered with status {status}"),
        (Some(code), None | Some("")) => code.to_owned(),
        (Some(code), Some(message)) => format!("{message} ({code})"),
    };
    let hint = match kind {
        ErrorKind::Permission if code == Some("OptInRequired") => {
            "; the account has not enabled this region, or not signed up for this service".to_owned()
        }
        ErrorKind::Permission if code.is_some_and(|code| code != "OperationNotPermitted") => {
            match message.and_then(denied).filter(|denied| *denied != action.permission) {
                Some(denied) => format!("; the credentials lack {denied}"),
                None => "; the credentials lack this permission".to_owned(),
            }
        }
        ErrorKind::Auth if is_about_time(code, message) => {
            "; the clock of this host is wrong, or the keys have expired".to_owned()
        }
        _ => String::new(),
    };
    let error = CloudError::new(kind, doing, format!("{}: {text}{hint}", action.permission));
    let doubt = matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol);
    if doubt && action.effect == Effect::Change { error.ambiguous() } else { error }
}

fn kind(status: u16, code: &str) -> ErrorKind {
    match code {
        "Unsupported" | "UnfulfillableCapacity" | "SpotMaxPriceTooLow" | "InsufficientFreeAddressesInSubnet" => {
            ErrorKind::Capacity
        }
        code if code.starts_with("Insufficient") && code.ends_with("Capacity") => ErrorKind::Capacity,
        "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "EC2ThrottledException"
        | "PriorRequestNotComplete" => ErrorKind::RateLimited { retry_after: None },
        code if code.starts_with("Throttl") || code.starts_with("RequestThrottled") => {
            ErrorKind::RateLimited { retry_after: None }
        }
        "MaxSpotInstanceCountExceeded" | "PendingVerification" => ErrorKind::Quota,
        code if code.ends_with("LimitExceeded") => ErrorKind::Quota,
        "UnauthorizedOperation"
        | "AccessDenied"
        | "AccessDeniedException"
        | "OptInRequired"
        | "OperationNotPermitted"
        | "Blocked" => ErrorKind::Permission,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "InvalidAccessKeyId" => ErrorKind::Auth,
        "IncorrectInstanceState"
        | "IncorrectState"
        | "DependencyViolation"
        | "VolumeInUse"
        | "ConcurrentTagAccess"
        | "InvalidAMIID.Unavailable" => ErrorKind::Conflict,
        code if code.ends_with(".InUse") => ErrorKind::Conflict,
        // The token was used with other words before, or the name is taken.
        "IdempotentParameterMismatch" => ErrorKind::Exists,
        code if code.ends_with(".Duplicate") => ErrorKind::Exists,
        // The machine of this very request was there, and has ended.
        "IdempotentInstanceTerminated" => ErrorKind::Invalid,
        code if code.ends_with(".NotFound") || code.ends_with(".Unknown") => ErrorKind::NotFound,
        "UnsupportedOperation" | "UnsupportedHibernationConfiguration" => ErrorKind::Unsupported,
        "InternalError" | "InternalFailure" | "InternalServerError" | "Unavailable" | "ServiceUnavailable" => {
            ErrorKind::Unavailable
        }
        _ => by_status(status, true),
    }
}

/// Without a code it is nobody that we know who answers: a gateway's 404 says nothing about a machine.
fn by_status(status: u16, has_code: bool) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        403 => ErrorKind::Permission,
        408 | 504 => ErrorKind::Timeout,
        429 => ErrorKind::RateLimited { retry_after: None },
        400..=499 if has_code => ErrorKind::Invalid,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

fn is_about_time(code: Option<&str>, message: Option<&str>) -> bool {
    let signature = code.is_some_and(|code| code.contains("Signature"));
    let message = message.unwrap_or_default();
    code == Some("RequestExpired")
        || signature && ["expired", "not yet current", "time"].iter().any(|word| message.contains(word))
}

/// The permission that lacks in the provider's own words, which is not always that of the action: what tags in a create
/// needs `ec2:CreateTags` too.
pub(super) fn denied(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("is not authorized to perform: ")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != ':').unwrap_or(rest.len());
    Some(rest[..end].trim_end_matches(':')).filter(|name| name.contains(':'))
}

fn without_ciphertext(message: &str) -> &str {
    let said = message.split_once("Encoded authorization failure message").map_or(message, |(said, _)| said);
    let end = said.char_indices().map(|(at, _)| at).nth(LONGEST).unwrap_or(said.len());
    said[..end].trim_end()
}

/// Whether nothing can have been sent.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    source::<hyper_util::client::legacy::Error>(error).is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// The first error of this type among those that led to it.
fn source<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests;

//! What the provider's refusals mean.

use serde::Deserialize;

use crate::hetzner::wire::Refusal;
use crate::{CloudError, ErrorKind};

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: Option<Refusal>,
}

/// The error that an answer with this status and body is. Whatever stands in the way may answer in HTML.
pub(super) fn read(doing: &'static str, status: u16, body: &[u8]) -> CloudError {
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    error(doing, status, &body.error.unwrap_or_default())
}

/// The error that a refusal with this status and reason is.
pub(super) fn error(doing: &'static str, status: u16, refusal: &Refusal) -> CloudError {
    let kind = kind(status, &refusal.code);
    let message = match (refusal.code.as_str(), refusal.message.as_str()) {
        ("", _) => format!("the provider answered with status {status}"),
        (code, "") => code.to_owned(),
        (code, message) => format!("{message} ({code})"),
    };
    CloudError::new(kind, doing, message)
}

fn kind(status: u16, code: &str) -> ErrorKind {
    match code {
        "resource_unavailable" | "placement_error" => ErrorKind::Capacity,
        "resource_limit_exceeded" => ErrorKind::Quota,
        "uniqueness_error" => ErrorKind::Exists,
        "locked" | "conflict" | "resource_in_use" | "action_in_progress" => ErrorKind::Conflict,
        "rate_limit_exceeded" => ErrorKind::RateLimited { retry_after: None },
        "unauthorized" => ErrorKind::Auth,
        "forbidden" | "token_readonly" | "protected" => ErrorKind::Permission,
        "not_found" => ErrorKind::NotFound,
        "timeout" => ErrorKind::Timeout,
        "maintenance" | "service_error" | "server_error" | "bad_gateway" | "unavailable" | "robot_unavailable" => {
            ErrorKind::Unavailable
        }
        "unsupported_error" => ErrorKind::Unsupported,
        _ => by_status(status, !code.is_empty()),
    }
}

/// Without a code it is nobody that we know who answers: a gateway's 404 says nothing about a machine.
fn by_status(status: u16, has_code: bool) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        403 => ErrorKind::Permission,
        404 | 410 if has_code => ErrorKind::NotFound,
        404 | 410 => ErrorKind::Protocol,
        408 | 504 => ErrorKind::Timeout,
        409 | 423 => ErrorKind::Conflict,
        // An action that failed has no status; the reason is none that we know.
        0 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited { retry_after: None },
        400..=499 => ErrorKind::Invalid,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::kind;
    use crate::ErrorKind;

    #[test]
    fn each_reason_has_its_kind_and_an_unknown_one_that_of_its_status() {
        let table = [
            (412, "resource_unavailable", ErrorKind::Capacity),
            (503, "placement_error", ErrorKind::Capacity),
            (403, "resource_limit_exceeded", ErrorKind::Quota),
            (409, "uniqueness_error", ErrorKind::Exists),
            (423, "locked", ErrorKind::Conflict),
            (409, "conflict", ErrorKind::Conflict),
            (429, "rate_limit_exceeded", ErrorKind::RateLimited { retry_after: None }),
            (401, "unauthorized", ErrorKind::Auth),
            (403, "forbidden", ErrorKind::Permission),
            (403, "token_readonly", ErrorKind::Permission),
            (404, "not_found", ErrorKind::NotFound),
            (404, "a_newer_reason", ErrorKind::NotFound),
            (404, "", ErrorKind::Protocol),
            (410, "", ErrorKind::Protocol),
            (422, "invalid_input", ErrorKind::Invalid),
            (422, "a_newer_reason", ErrorKind::Invalid),
            (503, "maintenance", ErrorKind::Unavailable),
            (502, "", ErrorKind::Unavailable),
            (504, "", ErrorKind::Timeout),
            (429, "", ErrorKind::RateLimited { retry_after: None }),
            (301, "", ErrorKind::Protocol),
        ];
        for (status, code, expected) in table {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
    }
}

//! What the provider's refusals mean. It has one code for everything that is wrong with a request, so that its words must
//! be read to tell a full place or a used-up limit from a mistake.

use crate::digitalocean::wire::Refusal;
use crate::{CloudError, ErrorKind};

/// The error that an answer with this status and body is. Whatever stands in the way may answer in HTML.
pub(super) fn read(doing: &'static str, status: u16, body: &[u8]) -> CloudError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let kind = kind(status, &refusal);
    let message = match (refusal.id.as_str(), refusal.message.as_str()) {
        ("", "") => format!("the provider answered with status {status}"),
        (id, "") => id.to_owned(),
        ("", message) => message.to_owned(),
        (id, message) => format!("{message} ({id})"),
    };
    CloudError::new(kind, doing, message)
}

fn kind(status: u16, refusal: &Refusal) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        403 | 422 if is_over_limit(refusal) => ErrorKind::Quota,
        403 => ErrorKind::Permission,
        // Without the provider's code a gateway answers, which says nothing about a machine.
        404 | 410 if refusal.id.is_empty() => ErrorKind::Protocol,
        404 | 410 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        409 | 423 => ErrorKind::Conflict,
        422 if is_busy(refusal) => ErrorKind::Conflict,
        422 if is_full(refusal) => ErrorKind::Capacity,
        429 => ErrorKind::RateLimited { retry_after: None },
        400..=499 => ErrorKind::Invalid,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

/// The account may not have more droplets, volumes or snapshots.
fn is_over_limit(refusal: &Refusal) -> bool {
    let message = refusal.message.to_lowercase();
    message.contains("limit") && (message.contains("exceed") || message.contains("reached"))
}

/// Another action goes on with the droplet.
fn is_busy(refusal: &Refusal) -> bool {
    let message = refusal.message.to_lowercase();
    ["pending event", "blocking events", "powered off", "is currently on"].iter().any(|words| message.contains(words))
}

/// There is no room for this size in this region.
fn is_full(refusal: &Refusal) -> bool {
    if refusal.error_attributes.get("available_regions").is_some() {
        return true;
    }
    let message = refusal.message.to_lowercase();
    let about_place = message.contains("size") || message.contains("region");
    about_place && !message.contains("image") && (message.contains("unavailable") || message.contains("not available"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::kind;
    use crate::ErrorKind;
    use crate::digitalocean::wire::Refusal;

    #[test]
    fn each_refusal_has_its_kind() {
        let limited = ErrorKind::RateLimited { retry_after: None };
        let table = [
            (401, "Unable to authenticate you", ErrorKind::Auth),
            (403, "You are not authorized to perform this operation", ErrorKind::Permission),
            (422, "creating this/these droplet(s) will exceed your droplet limit", ErrorKind::Quota),
            (422, "Droplet limit exceeded", ErrorKind::Quota),
            (403, "You have reached your volume limit", ErrorKind::Quota),
            (404, "", ErrorKind::Protocol),
            (410, "", ErrorKind::Protocol),
            (409, "duplicate name", ErrorKind::Conflict),
            (422, "Droplet already has a pending event.", ErrorKind::Conflict),
            (
                422,
                "there are currently blocking events processing for one or more of the droplets",
                ErrorKind::Conflict,
            ),
            (422, "Size is not available in this region.", ErrorKind::Capacity),
            (422, "The image you specified is not available in the selected region.", ErrorKind::Invalid),
            (422, "Name is invalid", ErrorKind::Invalid),
            (400, "", ErrorKind::Invalid),
            (429, "API Rate limit exceeded.", limited),
            (500, "", ErrorKind::Unavailable),
            (502, "", ErrorKind::Unavailable),
            (504, "", ErrorKind::Timeout),
            (301, "", ErrorKind::Protocol),
        ];
        for (status, message, expected) in table {
            let refusal = Refusal { message: message.to_owned(), ..Refusal::default() };
            assert_eq!(kind(status, &refusal), expected, "{status} {message}");
        }
        let absent = Refusal { id: "not_found".to_owned(), ..Refusal::default() };
        assert_eq!(kind(404, &absent), ErrorKind::NotFound);
        let full = Refusal { error_attributes: json!({"available_regions": ["ams3"]}), ..Refusal::default() };
        assert_eq!(kind(422, &full), ErrorKind::Capacity);
    }
}

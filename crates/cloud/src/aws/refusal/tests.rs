use super::{LONGEST, denied, told};
use crate::ErrorKind;
use crate::aws::actions::{DEREGISTER_IMAGE, DESCRIBE_IMAGES, DESCRIBE_INSTANCES, RUN_INSTANCES, START_INSTANCES};

const LIMITED: ErrorKind = ErrorKind::RateLimited { retry_after: None };

#[test]
fn each_code_has_its_kind_and_an_unknown_one_that_of_its_status() {
    let table = [
        (500, Some("InsufficientInstanceCapacity"), ErrorKind::Capacity, false),
        (500, Some("InsufficientHostCapacity"), ErrorKind::Capacity, false),
        (400, Some("InsufficientFreeAddressesInSubnet"), ErrorKind::Capacity, false),
        (400, Some("Unsupported"), ErrorKind::Capacity, false),
        (400, Some("VcpuLimitExceeded"), ErrorKind::Quota, false),
        (400, Some("InstanceLimitExceeded"), ErrorKind::Quota, false),
        (400, Some("PendingVerification"), ErrorKind::Quota, false),
        (503, Some("RequestLimitExceeded"), LIMITED, false),
        (400, Some("ThrottlingException"), LIMITED, false),
        (403, Some("UnauthorizedOperation"), ErrorKind::Permission, false),
        (401, Some("OptInRequired"), ErrorKind::Permission, false),
        (401, Some("AuthFailure"), ErrorKind::Auth, false),
        (403, Some("InvalidClientTokenId"), ErrorKind::Auth, false),
        (400, Some("ExpiredToken"), ErrorKind::Auth, false),
        (400, Some("RequestExpired"), ErrorKind::Auth, false),
        (400, Some("IncorrectInstanceState"), ErrorKind::Conflict, false),
        (400, Some("DependencyViolation"), ErrorKind::Conflict, false),
        (400, Some("InvalidSnapshot.InUse"), ErrorKind::Conflict, false),
        (400, Some("InvalidGroup.Duplicate"), ErrorKind::Exists, false),
        (400, Some("IdempotentParameterMismatch"), ErrorKind::Exists, false),
        (400, Some("IdempotentInstanceTerminated"), ErrorKind::Invalid, false),
        (400, Some("InvalidInstanceID.NotFound"), ErrorKind::NotFound, false),
        (400, Some("InvalidInstanceID.Malformed"), ErrorKind::Invalid, false),
        (400, Some("ANewerReason"), ErrorKind::Invalid, false),
        (500, Some("InternalError"), ErrorKind::Unavailable, true),
        (503, Some("Unavailable"), ErrorKind::Unavailable, true),
        (502, None, ErrorKind::Unavailable, true),
        (504, None, ErrorKind::Timeout, true),
        (404, None, ErrorKind::Protocol, true),
        (200, None, ErrorKind::Protocol, true),
        (301, None, ErrorKind::Protocol, true),
        (429, None, LIMITED, false),
    ];
    for (status, code, expected, doubt) in table {
        let error = told("try", &RUN_INSTANCES, status, code, Some("why"));
        assert_eq!((error.kind, error.ambiguous), (expected, doubt), "{status} {code:?}");
        let error = told("try", &DESCRIBE_INSTANCES, status, code, None);
        assert_eq!((error.kind, error.ambiguous), (expected, false), "{status} {code:?}");
    }
}

#[test]
fn a_refusal_names_the_permission_and_spares_its_ciphertext() {
    let message = "You are not authorized. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6Xnu";
    let error = told("try", &START_INSTANCES, 403, Some("UnauthorizedOperation"), Some(message));
    assert!(error.message.starts_with("ec2:StartInstances: You are not authorized."), "{error}");
    assert!(!error.message.contains("4GIO"));
    let long = told("try", &START_INSTANCES, 400, Some("Odd"), Some(&"ö".repeat(5000)));
    assert!(long.message.chars().count() < LONGEST + 50);
}

#[test]
fn an_image_that_is_unavailable_is_none_to_boot_and_is_waited_for_only_when_it_is_removed() {
    for (action, expected) in [
        (&RUN_INSTANCES, ErrorKind::NotFound),
        (&DESCRIBE_IMAGES, ErrorKind::NotFound),
        (&DEREGISTER_IMAGE, ErrorKind::Conflict),
    ] {
        let error = told("try", action, 400, Some("InvalidAMIID.Unavailable"), Some("ami-1 is no longer available"));
        assert_eq!((error.kind, error.ambiguous), (expected, false), "{action:?}");
    }
}

#[test]
fn a_refusal_names_the_permission_that_lacks_in_the_providers_words() {
    const WHO: &str = "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ada";
    let message = format!(
        "{WHO} is not authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-central-1:123456789012:instance/* \
         because no identity-based policy allows the ec2:CreateTags action"
    );
    assert_eq!(denied(&message), Some("ec2:CreateTags"));
    let error = told("try", &RUN_INSTANCES, 403, Some("UnauthorizedOperation"), Some(&message));
    assert!(error.message.ends_with("; the credentials lack ec2:CreateTags"), "{error}");
    let own = format!("{WHO} is not authorized to perform: ec2:RunInstances.");
    let error = told("try", &RUN_INSTANCES, 403, Some("UnauthorizedOperation"), Some(&own));
    assert!(error.message.ends_with("; the credentials lack this permission"), "{error}");
    for other in [WHO, "", "is not authorized to perform: ", "is not authorized to perform: something else"] {
        assert_eq!(denied(other), None, "{other}");
    }
}

#[test]
fn a_wrong_clock_is_hinted_at() {
    for (code, message, hinted) in [
        ("RequestExpired", "Request has expired.", true),
        ("SignatureDoesNotMatch", "Signature not yet current: 20261123T213000Z", true),
        ("SignatureDoesNotMatch", "Check your secret key", false),
        ("AuthFailure", "not able to validate", false),
    ] {
        let error = told("try", &RUN_INSTANCES, 400, Some(code), Some(message));
        assert_eq!(error.kind, ErrorKind::Auth);
        assert_eq!(error.message.contains("clock"), hinted, "{error}");
    }
}

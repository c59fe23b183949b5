//! What an account's owner is told when its provider does not accept it: what the provider said, and what to do.

use stagely_cloud::{CloudError, ErrorKind};
use stagely_domain::machine::Provider;
use stagely_reconcile::StepError;

/// One sentence or two.
pub fn problem(kind: Provider, failure: &StepError) -> String {
    let cause = failure.source.as_deref();
    let Some(error) = cause.and_then(|source| source.downcast_ref::<CloudError>()) else { return failure.chain() };
    let (name, word) = match kind {
        Provider::Aws => ("AWS", "aws"),
        Provider::Digitalocean => ("DigitalOcean", "digitalocean"),
        Provider::Hetzner => ("Hetzner Cloud", "hetzner"),
        Provider::Qemu => ("this host", "qemu"),
    };
    let said = error.message.trim_end_matches(['.', ' ']);
    match error.kind {
        ErrorKind::Auth => format!(
            "{name} does not accept the credentials: {said}. Check that they were copied whole and were not revoked"
        ),
        ErrorKind::Permission => format!(
            "the credentials are good, but {name} does not allow them all that is needed: {said}. \
             `stagely cloud permissions {word}` prints everything they must be allowed"
        ),
        ErrorKind::RateLimited { .. }
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Protocol
        | ErrorKind::Conflict => {
            format!("{name} could not be asked, so nothing was stored: {said}. Try again")
        }
        _ => format!("{name} refuses what the settings say: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use stagely_cloud::{CloudError, ErrorKind};
    use stagely_domain::machine::Provider;
    use stagely_reconcile::{ErrorClass, StepError};

    use super::problem;

    #[test]
    fn a_refusal_says_who_refused_what_and_what_to_do() {
        for (kind, message, expected) in [
            (ErrorKind::Auth, "unauthorized.", "AWS does not accept the credentials: unauthorized. Check"),
            (ErrorKind::Permission, "bob lacks ec2:RunInstances, ec2:CreateTags", "`stagely cloud permissions aws`"),
            (
                ErrorKind::Permission,
                "bob lacks ec2:RunInstances, ec2:CreateTags",
                "lacks ec2:RunInstances, ec2:CreateTags. ",
            ),
            (ErrorKind::Timeout, "no answer", "nothing was stored: no answer. Try again"),
            (ErrorKind::NotFound, "no such subnet", "AWS refuses what the settings say: no such subnet"),
        ] {
            let error = CloudError::new(kind, "check the access", message);
            let said = problem(Provider::Aws, &StepError::new(ErrorClass::Transient, "verify", error));
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("check the access"), "our own words for the step are no help: {said}");
        }
    }
}

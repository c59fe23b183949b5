//! What follows when a provider does not make a machine. Each kind of refusal has one consequence; [`of`] is the table.

use stagely_cloud::{CloudError, ErrorKind};
use stagely_domain::failure::{Code, Failure};
use stagely_domain::offering;
use stagely_store::machines::Machine;

use crate::failures::failure;

/// Refusals that may pass, after which the run is told.
pub const TRIES: u32 = 5;

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The run is told at once: asking again changes nothing before a person has done something.
    Tell,
    /// Another type or place is asked for, at once.
    Elsewhere,
    /// The same is asked when the provider said. Being told to come later is no refusal, however often.
    Later,
    /// The same is asked again, less and less often, and the run is told after [`TRIES`].
    Again,
}

/// The consequence of a refusal; `chosen` when it was about one type in one place.
pub fn of(error: &CloudError, chosen: bool) -> Consequence {
    match error.kind {
        ErrorKind::Auth
        | ErrorKind::Permission
        | ErrorKind::Quota
        | ErrorKind::Exists
        | ErrorKind::Invalid
        | ErrorKind::Unsupported => Consequence::Tell,
        // Certainly nothing was made: another type or place may have room.
        ErrorKind::Capacity if chosen && !error.ambiguous => Consequence::Elsewhere,
        ErrorKind::RateLimited { .. } => Consequence::Later,
        ErrorKind::Capacity
        | ErrorKind::Conflict
        | ErrorKind::NotFound
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Protocol => Consequence::Again,
    }
}

/// Whether a refusal of a machine that was to boot a golden image may be that image's fault: somebody removed it, or it does
/// not fit. Without it the machine is asked for again, and what is refused then has its [`Consequence`].
pub fn may_be_the_images(error: &CloudError) -> bool {
    !error.ambiguous && matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported)
}

/// What the run is told: the provider's sentence and what to do.
pub fn told(error: &CloudError) -> Failure {
    let sentence = error.message.trim_end_matches(['.', ' ']);
    let message = format!("the cloud gave no machine: {sentence}. {}", advice(error.kind));
    failure(Code::MachineFailed, "boot", message)
}

/// What the run is told when no type in no place had room.
pub fn no_room(machine: &Machine) -> Failure {
    let (size, arch) = (machine.size, machine.arch);
    let message = match offering::full(&machine.tried).as_slice() {
        [] if machine.locations.is_empty() => {
            format!("this cloud account has no {size} {arch} machines in its locations")
        }
        [] => format!("this cloud account has no {size} {arch} machines in {}", machine.locations.join(", ")),
        tried => format!("the cloud has no room for a {size} {arch} machine; tried {}", tried.join(", ")),
    };
    failure(Code::MachineFailed, "boot", message)
}

/// What the run is told when a place of `preview.region` is none of the account's.
pub fn nowhere(wish: &str, places: &[String]) -> Failure {
    let message = match places {
        [] => format!("`preview.region` says `{wish}`, and this cloud account knows no regions: leave it out"),
        places => format!(
            "`preview.region` says `{wish}`, which this cloud account does not have or does not allow; it has {}",
            places.join(", ")
        ),
    };
    failure(Code::MachineFailed, "boot", message)
}

const fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "Give the cloud account credentials that work, then redeploy.",
        ErrorKind::Permission => {
            "Allow it to the cloud account's credentials (`stagely cloud permissions` prints all they need), then redeploy."
        }
        ErrorKind::Quota => {
            "Have the limit raised at the provider, or close previews that are not needed, then redeploy."
        }
        ErrorKind::Exists => "Remove it at the provider if nobody needs it, then redeploy.",
        ErrorKind::Invalid | ErrorKind::Unsupported => {
            "Check the cloud account's settings and `preview` in stagely.yaml, then redeploy."
        }
        ErrorKind::Capacity => "Allow another location or size, or redeploy later.",
        ErrorKind::Conflict
        | ErrorKind::NotFound
        | ErrorKind::RateLimited { .. }
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Protocol => "It was tried several times: redeploy when the provider is well again.",
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use stagely_cloud::{CloudError, ErrorKind};
    use stagely_domain::id::MachineId;
    use stagely_store::machines::Machine;
    use uuid::Uuid;

    use super::{Consequence, may_be_the_images, no_room, of, told};
    use crate::reconcile::simulation::rows::intended;

    #[test]
    fn of_what_was_tried_only_places_are_said_to_be_full() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let machine = |tried: &[&str]| Machine {
            tried: tried.iter().map(|tried| (*tried).to_owned()).collect(),
            ..intended(MachineId::generate(), [Uuid::nil(); 4], now, now)
        };
        let told = |tried| no_room(&machine(tried)).message;
        let both = told(&["a in nbg1", "image img_01", "b in hel1"]);
        assert_eq!(both, "the cloud has no room for a small amd64 machine; tried a in nbg1, b in hel1");
        assert_eq!(told(&["image img_01"]), "this cloud account has no small amd64 machines in its locations");
    }

    #[test]
    fn each_kind_of_refusal_has_its_consequence() {
        let later = ErrorKind::RateLimited { retry_after: None };
        for (kind, chosen, lost) in [
            (ErrorKind::Auth, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Permission, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Quota, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Exists, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Invalid, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Unsupported, Consequence::Tell, Consequence::Tell),
            (ErrorKind::Capacity, Consequence::Elsewhere, Consequence::Again),
            (later, Consequence::Later, Consequence::Later),
            (ErrorKind::Conflict, Consequence::Again, Consequence::Again),
            (ErrorKind::NotFound, Consequence::Again, Consequence::Again),
            (ErrorKind::Unavailable, Consequence::Again, Consequence::Again),
            (ErrorKind::Timeout, Consequence::Again, Consequence::Again),
            (ErrorKind::Protocol, Consequence::Again, Consequence::Again),
        ] {
            let refused = || CloudError::new(kind, "create", "no");
            assert_eq!(of(&refused(), true), chosen, "{kind:?}");
            assert_eq!(of(&refused().ambiguous(), true), lost, "{kind:?}, and it may have taken effect");
            assert_ne!(of(&refused(), false), Consequence::Elsewhere, "{kind:?}, and there is nothing else");
        }
    }

    #[test]
    fn an_image_is_suspected_only_of_what_certainly_made_nothing() {
        let refused = |kind| CloudError::new(kind, "create", "no");
        for kind in [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Unsupported] {
            assert!(may_be_the_images(&refused(kind)), "{kind:?}");
            assert!(!may_be_the_images(&refused(kind).ambiguous()), "{kind:?}, and it may have taken effect");
        }
        for kind in [ErrorKind::Capacity, ErrorKind::Quota, ErrorKind::Auth, ErrorKind::Unavailable] {
            assert!(!may_be_the_images(&refused(kind)), "{kind:?}");
        }
    }

    #[test]
    fn a_run_is_told_the_providers_sentence_and_what_to_do() {
        let refused = CloudError::new(ErrorKind::Permission, "create", "no permission for ec2:RunInstances.");
        let message = told(&refused).message;
        assert!(
            message.starts_with("the cloud gave no machine: no permission for ec2:RunInstances. Allow it"),
            "{message}"
        );
    }
}

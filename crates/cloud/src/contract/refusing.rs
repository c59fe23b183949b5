//! What must be refused, and how.

use stagely_domain::machine::Arch;

use super::failure::expect;
use super::request::TOKEN;
use super::trial::shown;
use super::{Failure, Trial};
use crate::{CloudError, CreateRequest, ErrorKind, user_data};

pub(super) async fn good_credentials_are_accepted(trial: &Trial<'_>) -> Result<(), Failure> {
    let checked = trial.patiently(|| trial.cloud.check_access()).await;
    checked.map_err(|error| Failure::refused("check the access", &error))
}

pub(super) async fn each_processor_is_had_or_refused_and_a_mismatch_is_refused_unasked(
    trial: &Trial<'_>,
) -> Result<(), Failure> {
    let mut plain = trial.request();
    if plain.offering.is_some() {
        let error = refused(trial, &CreateRequest { arch: Arch::Arm64, ..plain.clone() }, "with an amd64 type").await?;
        certain(&error, &[ErrorKind::Invalid, ErrorKind::Unsupported])?;
    }
    trial.create(&mut plain).await?;
    let arm = Trial::tried(trial.offerings, Arch::Arm64).first().copied().cloned();
    let mut other =
        CreateRequest { arch: Arch::Arm64, offering: arm, ..super::request(trial.installation, trial.clock) };
    if !trial.cloud.capabilities().arches.contains(&Arch::Arm64) {
        let error = refused(trial, &other, "for arm64, which it does not have").await?;
        return certain(&error, &[ErrorKind::Unsupported]);
    }
    if other.offering.is_some() || trial.offerings.is_empty() {
        trial.create(&mut other).await?;
        trial.until_running(other.machine).await?;
    }
    Ok(())
}

pub(super) async fn an_unknown_type_is_refused_and_makes_nothing(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = trial.request();
    if let Some(offering) = &mut request.offering {
        "stagely-no-such-type".clone_into(&mut offering.name);
    }
    let error = refused(trial, &request, "for a type that nobody has").await?;
    certain(&error, &[ErrorKind::Invalid, ErrorKind::Capacity, ErrorKind::NotFound])?;
    let vms = trial.list(trial.installation).await?;
    expect(vms.is_empty(), "list machines after a refusal", "none", || shown(&vms))
}

pub(super) async fn no_refusal_shows_a_secret(trial: &Trial<'_>) -> Result<(), Failure> {
    let request = trial.request();
    clean("the request itself", &format!("{request:?}"))?;
    let mut unknown = request.clone();
    if let Some(offering) = &mut unknown.offering {
        "stagely-no-such-type".clone_into(&mut offering.name);
        clean("a refusal", &format!("{0} {0:?}", refused(trial, &unknown, "for a type that nobody has").await?))?;
    }
    let mut long = request;
    long.config.ca_pem = "x".repeat(trial.cloud.capabilities().user_data_max + 1);
    clean("a refusal", &format!("{0} {0:?}", refused(trial, &long, "with too much user data").await?))
}

pub(super) async fn user_data_of_the_limit_is_taken_and_one_byte_more_is_not_sent(
    trial: &Trial<'_>,
) -> Result<(), Failure> {
    let most = trial.cloud.capabilities().user_data_max;
    let mut request = trial.request();
    // Bytes that are no text in any of the older encodings.
    request.config.ca_pem = "žluťoučký 日本 🦀\n".to_owned();
    let written = user_data::render(&request, most).map_err(|error| Failure::refused("write user data", &error))?;
    request.config.ca_pem.push_str(&"x".repeat(most - written.len()));
    let mut longer =
        CreateRequest { machine: super::request(trial.installation, trial.clock).machine, ..request.clone() };
    longer.config.ca_pem.push('x');
    let error = refused(trial, &longer, "with a byte too much of user data").await?;
    certain(&error, &[ErrorKind::Invalid])?;
    trial.create(&mut request).await?;
    trial.until_listed(trial.installation, 1).await.map(drop)
}

/// The error of a create that had to be refused.
async fn refused(trial: &Trial<'_>, request: &CreateRequest, how: &str) -> Result<CloudError, Failure> {
    match trial.create_as_is(request).await? {
        Err(error) => Ok(error),
        Ok(created) => Err(Failure::new(format!("create a machine {how}"), "a refusal", format!("{}", created.id))),
    }
}

fn certain(error: &CloudError, kinds: &[ErrorKind]) -> Result<(), Failure> {
    let is_so = kinds.contains(&error.kind) && !error.ambiguous;
    expect(is_so, "read the refusal", &format!("one of {kinds:?} without any doubt"), || {
        format!("{:?} (ambiguous: {}): {error}", error.kind, error.ambiguous)
    })
}

fn clean(what: &str, text: &str) -> Result<(), Failure> {
    expect(!text.contains(TOKEN), &format!("read the text of {what}"), "no secret in it", || "the secret".to_owned())
}

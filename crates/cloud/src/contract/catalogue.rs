//! What can be had.

use std::collections::BTreeSet;

use stagely_domain::machine::Size;

use super::failure::expect;
use super::{Failure, Trial};
use crate::Offering;
use crate::catalogue::candidates;

pub(super) async fn the_catalogue_is_in_order_and_in_one_currency(trial: &Trial<'_>) -> Result<(), Failure> {
    let offerings = trial.patiently(|| trial.cloud.catalogue()).await;
    let offerings = offerings.map_err(|error| Failure::refused("read the catalogue", &error))?;
    let did = "read the catalogue";
    let key = |offering: &Offering| (offering.name.clone(), offering.location.clone());
    let keys: BTreeSet<_> = offerings.iter().map(key).collect();
    expect(keys.len() == offerings.len(), did, "each type once in a place", || "a type twice in a place".to_owned())?;
    let currencies: BTreeSet<&str> =
        offerings.iter().filter_map(|offering| Some(&*offering.price.as_ref()?.currency)).collect();
    let iso = |currency: &&str| currency.len() == 3 && currency.bytes().all(|letter| letter.is_ascii_uppercase());
    expect(currencies.len() <= 1 && currencies.iter().all(iso), did, "one currency of ISO 4217", || {
        format!("{currencies:?}")
    })?;
    let free =
        offerings.iter().find(|offering| offering.price.as_ref().is_some_and(|price| price.micros_per_hour == 0));
    expect(free.is_none(), did, "no type that is free", || free.map(ToString::to_string).unwrap_or_default())?;
    for &arch in trial.cloud.capabilities().arches {
        // One place may lack a processor altogether.
        let has = offerings.iter().any(|offering| offering.arch == arch && offering.available);
        let some = candidates(&offerings, Size::Small, arch, &[]).iter().any(|offering| offering.available);
        expect(some || !has, did, &format!("a small {arch:?} machine that can be had"), || "none".to_owned())?;
    }
    Ok(())
}

//! What can be had: server types in their places, with prices and room, all as the provider tells it now.

use chrono::{DateTime, Utc};
use stagely_domain::machine::{Arch, Size};

use crate::catalogue::micros;
use crate::hetzner::http::Http;
use crate::hetzner::wire::{Money, ServerType, TypeLocation};
use crate::{Offering, Price, Result};

const DOING: &str = "read the server types";

/// Every type in every place (of `wanted`, unless it is empty), sorted.
pub(super) async fn read(http: &Http, wanted: &[String], now: DateTime<Utc>) -> Result<Vec<Offering>> {
    let types: Vec<ServerType> = http.list(DOING, "server_types", &[]).await?;
    let pricing = http.get(DOING, "pricing", &[]).await?;
    let currency = pricing.pointer("/pricing/currency").and_then(|found| found.as_str());
    let mut offerings: Vec<Offering> = types.iter().flat_map(|kind| of_type(kind, currency, now)).collect();
    offerings.retain(|offering| wanted.is_empty() || wanted.contains(&offering.location));
    offerings.sort_by(|one, other| (&one.name, &one.location).cmp(&(&other.name, &other.location)));
    Ok(offerings)
}

/// Whether no type that would do in this place has a smaller disk: an image boots on no smaller disk than the one that it
/// is a copy of, so it is made on the smallest.
pub(super) async fn has_least_disk(http: &Http, chosen: &Offering, size: Size, now: DateTime<Utc>) -> Result<bool> {
    let types: Vec<ServerType> = http.list(DOING, "server_types", &[]).await?;
    let would_do = |offering: &Offering| {
        let place = (&offering.location, offering.arch) == (&chosen.location, chosen.arch);
        let enough = offering.vcpus >= size.min_vcpus() && offering.memory_mib >= size.min_memory_mib();
        place && enough && offering.available
    };
    let least = types.iter().filter(|kind| of_type(kind, None, now).iter().any(would_do)).map(|kind| kind.disk).min();
    let own = types.iter().find(|kind| kind.name == chosen.name).map(|kind| kind.disk);
    Ok(own <= least || least.is_none())
}

fn of_type(kind: &ServerType, currency: Option<&str>, now: DateTime<Utc>) -> Vec<Offering> {
    let arch = match &*kind.architecture {
        "x86" => Arch::Amd64,
        "arm" => Arch::Arm64,
        // A processor for which we have no images.
        _ => return Vec::new(),
    };
    let offering = |price: &crate::hetzner::wire::TypePrice| {
        let place = kind.locations.iter().find(|place| place.name == price.location);
        Offering {
            name: kind.name.clone(),
            location: price.location.clone(),
            arch,
            vcpus: kind.cores,
            memory_mib: mib(kind.memory),
            price: price.price_hourly.as_ref().zip(currency).and_then(|(money, currency)| self::price(money, currency)),
            available: is_available(kind, place, now),
        }
    };
    kind.prices.iter().map(offering).collect()
}

/// Whether there is room: neither withdrawn by now, nor said to be full.
fn is_available(kind: &ServerType, place: Option<&TypeLocation>, now: DateTime<Utc>) -> bool {
    let deprecations = [kind.deprecation.as_ref(), place.and_then(|place| place.deprecation.as_ref())];
    let withdrawn = deprecations
        .into_iter()
        .flatten()
        .any(|deprecation| deprecation.unavailable_after.is_some_and(|end| end <= now));
    // An account that is told of places at all has no room in one that is not among them.
    let room = place.map_or(kind.locations.is_empty(), |place| place.available.unwrap_or(true));
    room && !withdrawn
}

fn price(money: &Money, currency: &str) -> Option<Price> {
    Some(Price { micros_per_hour: micros(&money.net)?, currency: currency.to_owned() })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "memory is a small positive number of GB")]
fn mib(gigabytes: f64) -> u64 {
    (gigabytes.clamp(0.0, 1e6) * 1024.0) as u64
}

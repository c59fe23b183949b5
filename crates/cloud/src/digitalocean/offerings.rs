//! What can be had: sizes in their regions, with prices and room, all as the provider tells it now.

use stagely_domain::machine::{self, Arch};

use crate::digitalocean::http::Http;
use crate::digitalocean::wire::{Region, Size};
use crate::{Offering, Price, Result};

const DOING: &str = "read the sizes";
/// The provider's prices have no currency in them, and are in US dollars.
const CURRENCY: &str = "USD";

/// Every size in every region (of `wanted`, unless it is empty), sorted. Machines with a graphics processor need images of
/// their own and are left out.
pub(super) async fn read(http: &Http, wanted: &[String]) -> Result<Vec<Offering>> {
    let sizes: Vec<Size> = http.list(DOING, "sizes", &[]).await?;
    let regions: Vec<Region> = http.list(DOING, "regions", &[]).await?;
    let closed = |slug: &str| regions.iter().any(|region| region.slug == slug && region.available == Some(false));
    let mut offerings: Vec<Offering> = sizes
        .iter()
        .filter(|size| size.gpu_info.is_null())
        .flat_map(|size| size.regions.iter().map(move |region| offering(size, region)))
        .filter(|offering| wanted.is_empty() || wanted.contains(&offering.location))
        .collect();
    for offering in &mut offerings {
        offering.available &= !closed(&offering.location);
    }
    offerings.sort_by(|one, other| (&one.name, &one.location).cmp(&(&other.name, &other.location)));
    Ok(offerings)
}

/// Whether no size that would do in this region has a smaller disk: an image boots on no smaller disk than the one that it
/// is a copy of, so it is made on the smallest.
pub(super) async fn has_least_disk(http: &Http, chosen: &Offering, wanted: machine::Size) -> Result<bool> {
    let sizes: Vec<Size> = http.list(DOING, "sizes", &[]).await?;
    let would_do = |size: &&Size| {
        let enough = size.vcpus >= wanted.min_vcpus() && size.memory >= wanted.min_memory_mib();
        enough && size.gpu_info.is_null() && size.available.unwrap_or(true) && size.regions.contains(&chosen.location)
    };
    let least = sizes.iter().filter(would_do).map(|size| size.disk).min();
    let own = sizes.iter().find(|size| size.slug == chosen.name).map(|size| size.disk);
    Ok(own <= least || least.is_none())
}

fn offering(size: &Size, region: &str) -> Offering {
    Offering {
        name: size.slug.clone(),
        location: region.to_owned(),
        // There is no other processor here.
        arch: Arch::Amd64,
        vcpus: size.vcpus,
        memory_mib: size.memory,
        price: size.price_hourly.and_then(price),
        available: size.available.unwrap_or(true),
    }
}

/// Rounded up to the millionth, so that nothing is free that is not; `None` for what is no price.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "prices are small positive numbers")]
fn price(dollars: f64) -> Option<Price> {
    // What is less than a thousandth of a millionth is the inexactness of the number.
    let micros = (dollars * 1e6 - 1e-3).ceil();
    (0.0..1e12).contains(&micros).then(|| Price { micros_per_hour: micros as u64, currency: CURRENCY.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::price;

    #[test]
    fn prices_are_exact_and_never_rounded_to_nothing() {
        for (dollars, expected) in [
            (0.00744, Some(7_440)),
            (0.01786, Some(17_860)),
            (0.07143, Some(71_430)),
            (1.0, Some(1_000_000)),
            (0.000_000_01, Some(1)),
            (-1.0, None),
            (f64::NAN, None),
            (1e300, None),
        ] {
            assert_eq!(price(dollars).map(|price| price.micros_per_hour), expected, "{dollars}");
        }
    }
}

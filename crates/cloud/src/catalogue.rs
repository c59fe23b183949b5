//! What machines can be had, and which to ask for first. A plain function decides; providers only tell.

pub use stagely_domain::account::is_in;
use stagely_domain::machine::{Arch, Size};
pub use stagely_domain::offering::{Offering, Price};

use crate::CloudError;

/// What an account's provider sells, as far as it could be read.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The types, each in each place that has it.
    pub offerings: Vec<Offering>,
    /// Why a part of the account could not be read: nothing follows from what the offerings lack.
    pub unread: Option<CloudError>,
    /// Whether prices are missing that another look may find.
    pub lacks_prices: bool,
}

/// The offerings that are at least `size` on `arch`, in the order in which they are to be tried: the caller's locations
/// in its order (all of them when it names none), those with room first, the cheapest first, the smallest first where no
/// price is told, the name at last, so that the order is the same every time.
#[must_use]
pub fn candidates<'o>(offerings: &'o [Offering], size: Size, arch: Arch, locations: &[String]) -> Vec<&'o Offering> {
    let rank = |location: &str| match locations {
        [] => Some(0),
        named => named.iter().position(|wanted| is_in(location, wanted)),
    };
    let mut fitting: Vec<(usize, &Offering)> = offerings
        .iter()
        .filter(|offering| {
            offering.arch == arch && offering.vcpus >= size.min_vcpus() && offering.memory_mib >= size.min_memory_mib()
        })
        .filter_map(|offering| Some((rank(&offering.location)?, offering)))
        .collect();
    fitting.sort_by(|(rank, one), (other_rank, other)| {
        let price = |offering: &Offering| offering.price.as_ref().map_or(u64::MAX, |price| price.micros_per_hour);
        let key = |rank, offering: &'o Offering| {
            let size = (offering.vcpus, offering.memory_mib);
            (rank, !offering.available, price(offering), size, &offering.name, &offering.location)
        };
        key(*rank, one).cmp(&key(*other_rank, other))
    });
    fitting.into_iter().map(|(_, offering)| offering).collect()
}

/// Millionths of a decimal number, rounded up so that nothing is free that is not.
pub(crate) fn micros(decimal: &str) -> Option<u64> {
    let (whole, part) = decimal.split_once('.').unwrap_or((decimal, ""));
    if part.bytes().any(|digit| !digit.is_ascii_digit()) {
        return None;
    }
    let kept: String = part.chars().chain("000000".chars()).take(6).collect();
    let rest = part.bytes().skip(6).any(|digit| digit != b'0');
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(kept.parse::<u64>().ok()? + u64::from(rest))
}

#[cfg(test)]
mod tests {
    use super::{Offering, Price, candidates, micros};
    use stagely_domain::machine::{Arch, Size};

    fn offering(name: &str, location: &str, vcpus: u32, gib: u64, micros: Option<u64>) -> Offering {
        Offering {
            name: name.to_owned(),
            location: location.to_owned(),
            arch: Arch::Amd64,
            vcpus,
            memory_mib: gib * 1024,
            price: micros.map(|micros_per_hour| Price { micros_per_hour, currency: "EUR".to_owned() }),
            available: true,
        }
    }

    fn names(found: &[&Offering]) -> Vec<String> {
        found.iter().map(|offering| format!("{}@{}", offering.name, offering.location)).collect()
    }

    #[test]
    fn the_cheapest_that_is_big_enough_comes_first_and_full_ones_last() {
        let full = Offering { available: false, ..offering("full", "a", 2, 4, Some(1)) };
        let arm = Offering { arch: Arch::Arm64, ..offering("arm", "a", 8, 16, Some(1)) };
        let all = [
            offering("big", "a", 8, 16, Some(90)),
            offering("unpriced", "a", 4, 8, None),
            offering("fits", "a", 2, 4, Some(40)),
            offering("tiny", "a", 1, 1, Some(1)),
            full,
            arm,
        ];
        let found = candidates(&all, Size::Medium, Arch::Amd64, &[]);
        assert_eq!(names(&found), ["fits@a", "big@a", "unpriced@a", "full@a"]);
    }

    #[test]
    fn without_prices_the_smallest_that_is_big_enough_comes_first() {
        let all =
            [offering("a.huge", "a", 96, 384, None), offering("z", "a", 2, 4, None), offering("y", "a", 2, 8, None)];
        assert_eq!(names(&candidates(&all, Size::Medium, Arch::Amd64, &[])), ["z@a", "y@a", "a.huge@a"]);
    }

    #[test]
    fn named_places_are_tried_in_their_order_and_a_region_stands_for_its_zones() {
        let all = [
            offering("x", "eu-central-1b", 2, 4, Some(1)),
            offering("x", "eu-west-1a", 2, 4, Some(2)),
            offering("x", "eu-west-12a", 2, 4, Some(1)),
            offering("x", "fra1", 2, 4, Some(1)),
        ];
        let places = ["fra1".to_owned(), "eu-west-1".to_owned(), "eu-central-1".to_owned()];
        let found = candidates(&all, Size::Small, Arch::Amd64, &places);
        assert_eq!(names(&found), ["x@fra1", "x@eu-west-1a", "x@eu-central-1b"]);
    }

    #[test]
    fn prices_are_exact_and_never_rounded_to_nothing() {
        for (text, expected) in [
            ("0.0104", Some(10_400)),
            ("0.0048000000000000", Some(4_800)),
            ("1", Some(1_000_000)),
            ("0.00000001", Some(1)),
            ("12.5", Some(12_500_000)),
            ("", None),
            ("-1", None),
            ("1.-5", None),
            ("free", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }
}

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::{any, proptest};

use super::{Billing, Meter, Money, periods};
use crate::machine::{Provider, State};

const PROVIDERS: [Provider; 4] = [Provider::Aws, Provider::Digitalocean, Provider::Hetzner, Provider::Qemu];

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// What a machine costs over so many seconds, per billing model; prices are per hour.
#[test]
fn a_span_costs_what_the_table_says() {
    use Provider::{Aws, Digitalocean, Hetzner, Qemu};
    for (provider, price, secs, micros) in [
        // Per second: a minute at least, then each second that was begun, rounded up to a millionth.
        (Aws, 48_000, 0, 800),
        (Aws, 48_000, 59, 800),
        (Aws, 48_000, 60, 800),
        (Aws, 48_000, 61, 814),
        (Aws, 48_000, 30 * 60, 24_000),
        (Aws, 48_000, 90 * 60, 72_000),
        (Aws, 48_000, 7 * 24 * 3600, 8_064_000),
        // By the hour that was begun.
        (Hetzner, 6_000, 0, 6_000),
        (Hetzner, 6_000, 1, 6_000),
        (Hetzner, 6_000, 3600, 6_000),
        (Hetzner, 6_000, 3601, 12_000),
        (Hetzner, 6_000, 90 * 60, 12_000),
        (Hetzner, 6_000, 7 * 24 * 3600, 1_008_000),
        // Per second: a minute or a cent at least, whichever is more.
        (Digitalocean, 5_950, 0, 10_000),
        (Digitalocean, 5_950, 3600, 10_000),
        (Digitalocean, 5_950, 2 * 3600, 11_900),
        (Digitalocean, 35_710, 60, 10_000),
        (Digitalocean, 35_710, 30 * 60, 17_855),
        (Digitalocean, 35_710, 90 * 60, 53_565),
        (Digitalocean, 1_200_000, 1, 20_000),
        (Digitalocean, 1_200_000, 61, 20_334),
        // Nobody's bill.
        (Qemu, 0, 3600, 0),
        (Qemu, 3_600, 10, 10),
        (Qemu, 3_600, 0, 0),
    ] {
        let cost = Billing::of(provider).micros(price, TimeDelta::seconds(secs));
        assert_eq!(cost, micros, "{provider:?} at {price} for {secs} s");
    }
}

#[test]
fn a_second_that_was_begun_is_billed_and_time_that_runs_backwards_is_none() {
    let aws = Billing::of(Provider::Aws);
    assert_eq!(aws.micros(3_600_000, TimeDelta::microseconds(60_000_001)), 61_000);
    assert_eq!(aws.micros(3_600_000, TimeDelta::seconds(-5)), 60_000);
    assert_eq!(Billing::of(Provider::Qemu).micros(3_600_000, TimeDelta::seconds(-5)), 0);
}

#[test]
fn a_span_is_cut_into_hours_of_its_own() {
    let cut = |provider, price, secs| {
        let until = start() + TimeDelta::seconds(secs);
        let cut = periods(Billing::of(provider), price, start(), until);
        cut.map(|period| ((period.from - start()).num_seconds(), (period.to - start()).num_seconds(), period.micros))
            .collect::<Vec<_>>()
    };
    assert_eq!(cut(Provider::Aws, 3_600, 10), [(0, 60, 60)]);
    assert_eq!(cut(Provider::Aws, 3_600, 3700), [(0, 3600, 3_600), (3600, 3700, 100)]);
    assert_eq!(cut(Provider::Hetzner, 6_000, 10), [(0, 3600, 6_000)]);
    assert_eq!(cut(Provider::Hetzner, 6_000, 3601), [(0, 3600, 6_000), (3600, 7200, 6_000)]);
    assert_eq!(cut(Provider::Digitalocean, 5_950, 3601), [(0, 3600, 10_000), (3600, 3601, 0)]);
    assert_eq!(cut(Provider::Digitalocean, 5_950, 7200), [(0, 3600, 10_000), (3600, 7200, 1_900)]);
    assert_eq!(cut(Provider::Qemu, 3_600, 0), []);
}

proptest! {
    #[test]
    fn the_hours_of_a_span_add_up_to_what_it_costs(price in 0_u64..100_000_000, millis in 0_i64..3_000_000_000) {
        let length = TimeDelta::milliseconds(millis);
        for provider in PROVIDERS {
            let billing = Billing::of(provider);
            let sum: u64 = periods(billing, price, start(), start() + length).map(|period| period.micros).sum();
            assert_eq!(sum, billing.micros(price, length), "{provider:?}");
        }
    }

    #[test]
    fn of_a_span_that_grows_only_the_last_hour_changes(millis in 0_i64..300_000_000, more in 0_i64..300_000_000) {
        for provider in PROVIDERS {
            let cut = |millis| periods(Billing::of(provider), 4_801, start(), start() + TimeDelta::milliseconds(millis));
            let (before, after): (Vec<_>, Vec<_>) = (cut(millis).collect(), cut(millis + more).collect());
            let settled = before.len().saturating_sub(1);
            assert_eq!(before[..settled], after[..settled]);
            let grown = before.last().zip(after.get(settled));
            assert!(grown.is_none_or(|(old, new)| old.from == new.from && old.micros <= new.micros));
        }
    }

    #[test]
    fn no_price_and_no_time_is_too_big(price in any::<u64>(), secs in 0_i64..1_000_000_000) {
        for provider in PROVIDERS {
            let _ = Billing::of(provider).micros(price, TimeDelta::seconds(secs));
        }
    }
}

#[test]
fn the_meter_runs_from_the_making_to_the_end_but_not_while_it_sleeps() {
    let steps = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
    let mut starts = Vec::new();
    for (from, to) in steps.filter(|(from, to)| from.may_become(*to)) {
        match Meter::of(from, to) {
            Meter::Starts => starts.push((from, to)),
            Meter::Stops => assert!(matches!(to, State::Hibernated | State::Gone), "{from:?} to {to:?}"),
            Meter::GoesOn => assert!(!matches!(to, State::Hibernated | State::Gone), "{from:?} to {to:?}"),
        }
    }
    assert_eq!(starts, [(State::Creating, State::Booting), (State::Hibernated, State::Enrolled)]);
}

#[test]
fn money_is_written_with_two_to_four_decimals_and_never_as_nothing() {
    for (micros, text) in [
        (0, "0.00 EUR"),
        (1, "0.0001 EUR"),
        (10_400, "0.0104 EUR"),
        (10_000, "0.01 EUR"),
        (12_300_000, "12.30 EUR"),
        (1_999_999, "2.00 EUR"),
        (1_005_000, "1.005 EUR"),
    ] {
        assert_eq!(Money { micros, currency: "EUR".to_owned() }.to_string(), text);
    }
}

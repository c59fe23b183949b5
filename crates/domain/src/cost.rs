//! What machines cost: how each provider counts time, and money that is exact.
//!
//! A machine costs its offering's price from its making until it is gone, except while it sleeps: a stopped EC2 instance
//! is not billed, and a server that sleeps elsewhere is deleted and made again. Each time that it is awake is a span that
//! the provider bills by itself. What is not known here is not counted: disks, snapshots, traffic, taxes, monthly caps.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::machine::{Provider, State};

const HOUR_SECS: u64 = 3600;

/// An amount in one currency. Two currencies have no sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    /// Millionths of the currency's unit.
    pub micros: u64,
    /// ISO 4217.
    pub currency: String,
}

impl fmt::Display for Money {
    /// Two to four decimals, rounded up so that nothing is free that is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.micros.div_ceil(100);
        let (whole, part) = (parts / 10_000, format!("{:04}", parts % 10_000));
        let (cents, rest) = part.split_at(2);
        write!(f, "{whole}.{cents}{} {}", rest.trim_end_matches('0'), self.currency)
    }
}

/// How a provider counts the time of one span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Billing {
    /// A unit that was begun counts whole.
    unit_secs: u64,
    /// The shortest time that is billed.
    least_secs: u64,
    /// The smallest amount that is billed.
    least_micros: u64,
}

impl Billing {
    /// As the provider's pages on prices say.
    #[must_use]
    pub const fn of(provider: Provider) -> Self {
        match provider {
            // Per second, a minute at least.
            Provider::Aws => Self { unit_secs: 1, least_secs: 60, least_micros: 0 },
            // Since 2026 per second, a minute or a cent at least, whichever is more.
            Provider::Digitalocean => Self { unit_secs: 1, least_secs: 60, least_micros: 10_000 },
            // By the started hour.
            Provider::Hetzner => Self { unit_secs: HOUR_SECS, least_secs: HOUR_SECS, least_micros: 0 },
            // Nobody bills it; what has no price costs nothing however it is counted.
            Provider::Qemu => Self { unit_secs: 1, least_secs: 0, least_micros: 0 },
        }
    }

    /// What a span of this length costs, in millionths.
    #[must_use]
    pub fn micros(self, micros_per_hour: u64, length: TimeDelta) -> u64 {
        self.price(micros_per_hour, self.paid_secs(length))
    }

    /// The seconds that are paid for when a span is this long.
    fn paid_secs(self, length: TimeDelta) -> u64 {
        let micros = u64::try_from(length.num_microseconds().unwrap_or(i64::MAX)).unwrap_or(0);
        micros.div_ceil(1_000_000).next_multiple_of(self.unit_secs).max(self.least_secs)
    }

    fn price(self, micros_per_hour: u64, paid_secs: u64) -> u64 {
        if paid_secs == 0 {
            return 0;
        }
        let exact = (u128::from(micros_per_hour) * u128::from(paid_secs)).div_ceil(u128::from(HOUR_SECS));
        u64::try_from(exact).unwrap_or(u64::MAX).max(self.least_micros)
    }
}

/// A part of a span, an hour at most, and what it adds to the span's cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its begin: a whole number of hours after the span's.
    pub from: DateTime<Utc>,
    /// Until when it is paid for, which may be later than the span's end.
    pub to: DateTime<Utc>,
    /// What it adds, in millionths.
    pub micros: u64,
}

/// A span cut into hours. Their sum is what the span costs, and of a span that grows only the last one changes: so an hour
/// is known by its begin, and may be written down as often as one likes.
pub fn periods(
    billing: Billing,
    micros_per_hour: u64,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> impl Iterator<Item = Period> {
    let paid = billing.paid_secs(until - from);
    let at = move |secs: u64| from + TimeDelta::seconds(i64::try_from(secs).unwrap_or(i64::MAX / 1000));
    (0..paid.div_ceil(HOUR_SECS)).map(move |hour| {
        let (begin, end) = (hour * HOUR_SECS, ((hour + 1) * HOUR_SECS).min(paid));
        let micros = billing.price(micros_per_hour, end) - billing.price(micros_per_hour, begin);
        Period { from: at(begin), to: at(end), micros }
    })
}

/// What a step of a machine does to what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// A span begins.
    Starts,
    /// The span ends, if there is one.
    Stops,
    /// Nothing.
    GoesOn,
}

impl Meter {
    /// The provider bills from the making, or the waking, until the sleep or the end.
    #[must_use]
    pub const fn of(from: State, to: State) -> Self {
        match (from, to) {
            (State::Creating, State::Booting) | (State::Hibernated, State::Enrolled) => Self::Starts,
            (_, State::Hibernated | State::Gone) => Self::Stops,
            _ => Self::GoesOn,
        }
    }
}

#[cfg(test)]
mod tests;

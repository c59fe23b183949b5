//! What may be spent: counted by each time that a machine begins to be billed, before it begins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use stagely_domain::cost::Billing;

use super::Failure;
use crate::Offering;

/// Money for machines, in millionths of the provider's currency.
pub struct Purse {
    limit_micros: u64,
    spent_micros: AtomicU64,
    /// How the provider counts, and the longest that any machine is kept.
    terms: Option<(Billing, TimeDelta)>,
}

impl Purse {
    /// No limit: at doubles nothing costs anything.
    #[must_use]
    pub fn bottomless() -> Self {
        Self { limit_micros: u64::MAX, spent_micros: AtomicU64::new(0), terms: None }
    }

    /// At most this, where a machine is billed so and is kept no longer than that. What has no price costs nothing here:
    /// whoever minds must not begin.
    #[must_use]
    pub fn new(limit_micros: u64, billing: Billing, longest: Duration) -> Self {
        let longest = TimeDelta::from_std(longest).unwrap_or(TimeDelta::MAX);
        Self { limit_micros, spent_micros: AtomicU64::new(0), terms: Some((billing, longest)) }
    }

    /// The most that one start of such a machine can cost; none when the provider tells no price.
    #[must_use]
    pub fn worst_micros(&self, offering: &Offering) -> Option<u64> {
        let (billing, longest) = self.terms?;
        Some(billing.micros(offering.price.as_ref()?.micros_per_hour, longest))
    }

    /// What was set aside so far.
    #[must_use]
    pub fn spent_micros(&self) -> u64 {
        self.spent_micros.load(Ordering::Relaxed)
    }

    /// Sets aside what a start can cost.
    pub(super) fn take(&self, offering: Option<&Offering>) -> Result<(), Failure> {
        let worst = offering.and_then(|offering| self.worst_micros(offering)).unwrap_or(0);
        let add = |spent: u64| spent.checked_add(worst).filter(|sum| *sum <= self.limit_micros);
        match self.spent_micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(spent) => Err(Failure::new(
                "set money aside for a machine",
                format!("no more than {} millionths in all", self.limit_micros),
                format!("{spent} set aside before, {worst} needed: no machine was started"),
            )),
        }
    }

    /// Puts back what was set aside for a start that certainly was none.
    pub(super) fn put_back(&self, offering: Option<&Offering>) {
        let worst = offering.and_then(|offering| self.worst_micros(offering)).unwrap_or(0);
        self.spent_micros.fetch_sub(worst, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stagely_domain::cost::Billing;
    use stagely_domain::machine::{Arch, Provider};

    use super::Purse;
    use crate::{Offering, Price};

    #[test]
    fn the_purse_is_never_overdrawn_and_counts_whole_hours_where_the_provider_does() {
        let offering = Offering {
            name: "x".to_owned(),
            location: "a".to_owned(),
            arch: Arch::Amd64,
            vcpus: 1,
            memory_mib: 2048,
            price: Some(Price { micros_per_hour: 6_000, currency: "EUR".to_owned() }),
            available: true,
        };
        let purse = Purse::new(13_000, Billing::of(Provider::Hetzner), Duration::from_secs(1800));
        assert_eq!(purse.worst_micros(&offering), Some(6_000), "half an hour is a whole one");
        purse.take(Some(&offering)).unwrap();
        purse.take(Some(&offering)).unwrap();
        let refused = purse.take(Some(&offering)).unwrap_err();
        assert!(refused.to_string().contains("no machine was started"), "{refused}");
        assert_eq!(purse.spent_micros(), 12_000);
        purse.put_back(Some(&offering));
        purse.take(Some(&offering)).unwrap();
        let aws = Purse::new(1, Billing::of(Provider::Aws), Duration::from_secs(1800));
        assert_eq!(aws.worst_micros(&offering), Some(3_000));
        assert_eq!(aws.worst_micros(&Offering { price: None, ..offering }), None);
    }
}

//! What a check of an account will make, and what that can cost.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use stagely_cloud::contract::{CASES, Purse, Trial};
use stagely_cloud::{Capabilities, Offering};
use stagely_domain::cost::Money;
use stagely_domain::machine::Provider;

use crate::ClientError;

/// Machines of one processor: the types that are tried, one after the other, and how often one begins to be billed.
struct Machines {
    tried: Vec<Offering>,
    starts: u64,
    /// For one start, as the dearest of them; none where one has no price.
    worst_micros: Option<u64>,
}

/// All of them.
pub(super) struct Plan {
    machines: BTreeMap<&'static str, Machines>,
    provider: Provider,
    longest: Duration,
}

impl Plan {
    /// What the cases that are asked make.
    pub(super) fn of(
        provider: Provider,
        capabilities: &Capabilities,
        offerings: &[Offering],
        purse: &Purse,
        longest: Duration,
    ) -> Self {
        let mut machines: BTreeMap<&'static str, Machines> = BTreeMap::new();
        let asked = CASES.iter().filter(|case| case.not_asked(capabilities, offerings).is_none());
        for &arch in asked.flat_map(|case| case.starts).filter(|arch| capabilities.arches.contains(arch)) {
            let one = machines.entry(arch.as_str()).or_insert_with(|| {
                let tried: Vec<Offering> = Trial::tried(offerings, arch).into_iter().cloned().collect();
                let worst = tried.iter().map(|offering| purse.worst_micros(offering));
                let worst_micros = worst.reduce(|one, other| Some(one?.max(other?))).flatten();
                Machines { tried, starts: 0, worst_micros }
            });
            one.starts += 1;
        }
        machines.retain(|_, machines| !machines.tried.is_empty());
        Self { machines, provider, longest }
    }

    pub(super) fn show(&self, out: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
        let minutes = self.longest.as_secs().div_ceil(60);
        writeln!(out, "machines that will be made and removed, each kept for {minutes} minutes at most:")?;
        for machines in self.machines.values() {
            let [first, others @ ..] = &*machines.tried else { continue };
            writeln!(out, "  {} times {first}: {}, {}", machines.starts, price(first), self.counted())?;
            for other in others {
                writeln!(out, "    or, where there is no room, {other}: {}", price(other))?;
            }
        }
        match self.worst() {
            Some(worst) => writeln!(
                out,
                "at most {worst}, net; disks, snapshots, addresses and traffic are not counted, nor is what cannot be removed"
            ),
            None => writeln!(out, "the provider tells no price: what it will cost is not known"),
        }
    }

    /// Refuses what can cost more than is allowed, and what nobody can know.
    pub(super) fn check(&self, limit_micros: u64, unpriced: bool) -> Result<(), ClientError> {
        if self.machines.is_empty() {
            return Err(ClientError::Setup("the provider has no machine that is big enough there".to_owned()));
        }
        match self.worst() {
            None if unpriced => Ok(()),
            None => Err(ClientError::Setup("without a price nothing is made: --unpriced takes the risk".to_owned())),
            Some(worst) if worst.micros > limit_micros => {
                let allowed = Money { micros: limit_micros, currency: worst.currency.clone() };
                Err(ClientError::Setup(format!("it could cost {worst}, and --max-spend allows {allowed}")))
            }
            Some(_) => Ok(()),
        }
    }

    /// All of it by the provider's rules; none where a price is missing or currencies differ.
    fn worst(&self) -> Option<Money> {
        let mut currencies = self.machines.values().flat_map(|machines| &machines.tried).map(currency);
        let first = currencies.next()??;
        if !currencies.all(|currency| currency == Some(first)) {
            return None;
        }
        let each = self.machines.values().map(|machines| machines.worst_micros?.checked_mul(machines.starts));
        let micros = each.sum::<Option<u64>>()?;
        Some(Money { micros, currency: first.to_owned() })
    }

    fn counted(&self) -> &'static str {
        match self.provider {
            Provider::Aws => "by the second, a minute at least",
            Provider::Digitalocean => "by the second, a minute or a cent at least",
            Provider::Hetzner => "by the hour that was begun",
            Provider::Qemu => "by nobody",
        }
    }
}

fn currency(offering: &Offering) -> Option<&str> {
    Some(&*offering.price.as_ref()?.currency)
}

fn price(offering: &Offering) -> impl fmt::Display {
    offering.price.as_ref().map_or_else(
        || "no price".to_owned(),
        |price| format!("{} an hour", Money { micros: price.micros_per_hour, currency: price.currency.clone() }),
    )
}

/// An amount in millionths: `1`, `0.50`.
pub(super) fn micros(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no amount, such as 1.00");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 6 || !part.bytes().chain(whole.bytes()).all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn amounts_are_read_exactly() {
        assert_eq!(micros("1.00"), Ok(1_000_000));
        assert_eq!(micros("0.05"), Ok(50_000));
        assert_eq!(micros("7"), Ok(7_000_000));
        for wrong in ["", ".5", "-1", "1,5", "1.0000001", "EUR", "99999999999999999999"] {
            assert!(micros(wrong).is_err(), "{wrong}");
        }
    }
}

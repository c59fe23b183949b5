//! The cases by their numbers.

use std::pin::Pin;

use stagely_domain::machine::Arch;

use super::{Failure, Trial, catalogue, creating, deleting, image, listing, refusing, sleeping};
use crate::{Capabilities, Offering};

type Asked<'t> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 't>>;

/// One thing that every provider must do.
pub struct Case {
    /// As the table of cases has it. The numbers between are with each provider's own tests.
    pub number: u8,
    /// What must be so.
    pub name: &'static str,
    /// Of which processors machines are made, one entry for each time that one begins to be billed, at most.
    pub starts: &'static [Arch],
    needs: Needs,
    ask: for<'t> fn(&'t Trial<'t>) -> Asked<'t>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Catalogue,
    Bake,
}

impl Case {
    /// Why it is not asked of such a provider, if it is not.
    #[must_use]
    pub fn not_asked(&self, capabilities: &Capabilities, offerings: &[Offering]) -> Option<&'static str> {
        match self.needs {
            Needs::Bake if !capabilities.bake => Some("it makes no images"),
            Needs::Catalogue if offerings.is_empty() => Some("it has no list of types"),
            _ => None,
        }
    }

    /// Asks it, for as long as it may take. Whatever comes of it, the trial is to be cleared then.
    ///
    /// # Errors
    /// What did not hold.
    pub async fn ask(&self, trial: &Trial<'_>) -> Result<(), Failure> {
        trial.within((self.ask)(trial)).await
    }
}

macro_rules! case {
    ($number:literal, $needs:ident, $starts:expr, $module:ident::$name:ident) => {
        Case {
            number: $number,
            name: stringify!($name),
            starts: $starts,
            needs: Needs::$needs,
            ask: |trial| Box::pin($module::$name(trial)),
        }
    };
}

const NONE: &[Arch] = &[];
const ONE: &[Arch] = &[Arch::Amd64];
const TWO: &[Arch] = &[Arch::Amd64, Arch::Amd64];
const THREE: &[Arch] = &[Arch::Amd64, Arch::Amd64, Arch::Amd64];
/// One on each processor.
const ONE_OF_EACH: &[Arch] = &[Arch::Amd64, Arch::Arm64];

/// All that can be asked of an account, cheap ones first.
pub const CASES: &[Case] = &[
    case!(1, Nothing, NONE, refusing::good_credentials_are_accepted),
    case!(39, Catalogue, NONE, catalogue::the_catalogue_is_in_order_and_in_one_currency),
    case!(26, Nothing, ONE_OF_EACH, refusing::each_processor_is_had_or_refused_and_a_mismatch_is_refused_unasked),
    case!(29, Catalogue, ONE, refusing::an_unknown_type_is_refused_and_makes_nothing),
    case!(31, Nothing, ONE, refusing::no_refusal_shows_a_secret),
    case!(27, Nothing, ONE, refusing::user_data_of_the_limit_is_taken_and_one_byte_more_is_not_sent),
    case!(2, Nothing, ONE, creating::a_create_answers_before_the_machine_has_booted),
    case!(16, Nothing, ONE, creating::a_new_machine_runs_and_has_an_address_in_the_end),
    case!(3, Nothing, ONE, listing::the_first_list_that_shows_a_machine_shows_all_its_tags),
    case!(40, Nothing, ONE, listing::what_is_unusual_comes_back_as_it_was_given),
    case!(4, Nothing, THREE, creating::the_same_request_again_is_the_same_machine),
    case!(8, Nothing, TWO, creating::a_foreign_machine_is_neither_adopted_nor_deleted),
    case!(22, Nothing, TWO, listing::nobody_sees_the_machines_of_a_neighbour),
    case!(17, Nothing, TWO, deleting::a_machine_goes_whatever_its_state_and_again),
    case!(20, Nothing, ONE, deleting::nothing_is_left_of_a_machine_that_was_deleted),
    case!(25, Nothing, TWO, sleeping::a_machine_sleeps_and_wakes_or_says_that_it_cannot),
    case!(28, Bake, TWO, image::an_image_is_made_of_a_machine_used_and_removed),
];

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn no_number_is_given_twice() {
        let mut numbers: Vec<u8> = CASES.iter().map(|case| case.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CASES.len());
    }
}

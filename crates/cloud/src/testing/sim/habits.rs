//! How a simulated cloud behaves.

use chrono::TimeDelta;

use crate::Price;

/// What a cloud does beside what it is asked for. By default nothing: it answers at once, always, and the truth.
/// Spans are the longest possible, drawn anew each time; odds are in a thousand calls.
#[derive(Debug, Clone)]
pub struct Habits {
    /// How long a call takes.
    pub latency: TimeDelta,
    /// How long a new machine is neither listed nor found.
    pub shows_after: TimeDelta,
    /// How long one that has ended is still listed and found.
    pub fades_after: TimeDelta,
    /// How long deleting takes once it was accepted.
    pub deletes_in: TimeDelta,
    /// How long falling asleep takes, or each half of it.
    pub sleeps_in: TimeDelta,
    /// How long a machine bakes until it stops.
    pub bakes_in: TimeDelta,
    /// How often it never stops: something went wrong on it.
    pub bakes_in_vain: u32,
    /// How long an image takes until machines can boot it.
    pub images_in: TimeDelta,
    /// How often a call fails before it has any effect.
    pub refuses: u32,
    /// How often the answer to a call is lost that took effect.
    pub loses_answers: u32,
    /// How often a create fails ambiguously and takes effect later.
    pub lands_late: u32,
    /// How much later.
    pub late_by: TimeDelta,
    /// How often a list lacks a part, and says so.
    pub lists_partly: u32,
    /// How often a delete of what is not shown yet says that there is nothing, and does nothing.
    pub overlooks_young: u32,
    /// How often a new machine ends itself within an hour.
    pub ends_itself: u32,
    /// How often a machine leaves its disk behind.
    pub leaves_disk: u32,
    /// Calls in a minute.
    pub per_minute: Option<usize>,
    /// Machines that the account may have.
    pub quota: Option<usize>,
    /// Whether what ends itself is gone; elsewhere it is stopped, and costs.
    pub power_off_deletes: bool,
    /// Whether every create makes a machine, unless one of this id is shown.
    pub makes_twins: bool,
    /// Whether falling asleep has two halves, of which only a call begins the second: in between it is shown asleep, and costs.
    pub sleeps_by_halves: bool,
    /// Whether falling asleep begins with a stop, and only another call goes on from there: until it sleeps it is shown
    /// stopped, and costs.
    pub stops_first: bool,
    /// Whether what sleeps is under another id.
    pub moves_in_sleep: bool,
    /// How time becomes money.
    pub billing: Billing,
}

impl Default for Habits {
    fn default() -> Self {
        let none = TimeDelta::zero();
        Self {
            latency: none,
            shows_after: none,
            fades_after: none,
            deletes_in: none,
            sleeps_in: none,
            bakes_in: none,
            bakes_in_vain: 0,
            images_in: none,
            refuses: 0,
            loses_answers: 0,
            lands_late: 0,
            late_by: none,
            lists_partly: 0,
            overlooks_young: 0,
            ends_itself: 0,
            leaves_disk: 0,
            per_minute: None,
            quota: None,
            power_off_deletes: true,
            makes_twins: false,
            sleeps_by_halves: false,
            stops_first: false,
            moves_in_sleep: false,
            billing: Billing::Seconds { least: 0 },
        }
    }
}

/// How a provider counts time awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// Every second, and at least so many for each time that it is awake.
    Seconds {
        /// The least that is billed.
        least: u64,
    },
    /// Every hour that has begun.
    Hours,
}

impl Billing {
    /// What being awake for so long costs, in millionths of the currency's unit.
    #[must_use]
    pub fn micros(self, price: &Price, awake: TimeDelta) -> u64 {
        let millis = u64::try_from(awake.num_milliseconds()).unwrap_or(0);
        let seconds = millis.div_ceil(1000);
        let billed = match self {
            Self::Seconds { least } => seconds.max(least),
            Self::Hours => seconds.div_ceil(3600) * 3600,
        };
        (price.micros_per_hour * billed).div_ceil(3600)
    }
}

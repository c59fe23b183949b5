//! What a simulated cloud knows of a machine, which is more than it shows.

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};

use crate::testing::sim::{Billing, Habits};
use crate::{Offering, ProviderId, Vm, VmState};

/// A machine from its first second on, and after its last.
#[derive(Debug, Clone)]
pub struct Record {
    /// The provider's id, now.
    pub id: ProviderId,
    /// Its tags; none on what others made in the account.
    pub tags: Option<Tags>,
    /// As what it was made.
    pub offering: Option<Offering>,
    /// Where it stands.
    pub state: VmState,
    /// `ip:port`, while it is awake.
    pub address: Option<String>,
    /// When it came to be.
    pub born: DateTime<Utc>,
    /// When it was there no more.
    pub ended: Option<DateTime<Utc>>,
    /// Since when a person has held it.
    pub held_since: Option<DateTime<Utc>>,
    /// Whether a call has deleted it; else it ended by itself or by a person.
    pub was_deleted: bool,
    /// Whether it stopped by itself or by a person's hand.
    pub ended_itself: bool,
    /// Whether a call has put it to sleep, ever.
    pub was_asleep: bool,
    /// The image that it was asked for by; none for the account's own.
    pub image: Option<String>,
    /// Whether it was made to make an image of it.
    pub bakes: bool,
    /// When it was awake: what is billed. The last may go on.
    pub awake: Vec<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    pub(super) shown_from: DateTime<Utc>,
    pub(super) fades_for: TimeDelta,
    pub(super) asleep_at: Option<DateTime<Utc>>,
    /// It is shown asleep, and goes on costing.
    pub(super) is_half_asleep: bool,
    pub(super) is_protected: bool,
    pub(super) deleted_at: Option<DateTime<Utc>>,
    pub(super) ends_itself_at: Option<DateTime<Utc>>,
    pub(super) baked_at: Option<DateTime<Utc>>,
}

/// What our machines carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// Our id.
    pub machine: MachineId,
    /// Whose it is.
    pub installation: InstallationId,
    /// For which environment.
    pub environment: Option<EnvironmentId>,
    /// Its hard end.
    pub expires_at: DateTime<Utc>,
}

impl Record {
    pub(super) fn new(id: ProviderId, tags: Option<Tags>, offering: Option<Offering>, now: DateTime<Utc>) -> Self {
        Self {
            id,
            ends_itself_at: tags.as_ref().map(|tags| tags.expires_at),
            tags,
            offering,
            state: VmState::Running,
            address: None,
            born: now,
            ended: None,
            held_since: None,
            was_deleted: false,
            ended_itself: false,
            was_asleep: false,
            image: None,
            bakes: false,
            awake: vec![(now, None)],
            shown_from: now,
            fades_for: TimeDelta::zero(),
            asleep_at: None,
            is_half_asleep: false,
            is_protected: false,
            deleted_at: None,
            baked_at: None,
        }
    }

    /// Whether it exists.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether it exists and runs.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.is_alive() && self.state == VmState::Running
    }

    /// Whether it is of this machine.
    #[must_use]
    pub fn is(&self, machine: MachineId) -> bool {
        self.tags.as_ref().is_some_and(|tags| tags.machine == machine)
    }

    /// From when on it is listed and found.
    #[must_use]
    pub fn shown_from(&self) -> DateTime<Utc> {
        self.shown_from
    }

    /// What it has cost so far, in millionths.
    #[must_use]
    pub fn micros(&self, billing: Billing, now: DateTime<Utc>) -> u64 {
        let price = self.offering.as_ref().and_then(|offering| offering.price.as_ref());
        let spans = self.awake.iter().map(|(from, to)| to.unwrap_or(now) - *from);
        price.map_or(0, |price| spans.map(|awake| billing.micros(price, awake)).sum())
    }

    /// What the provider shows of it, true or not any more, if anything.
    pub(super) fn view(&self, now: DateTime<Utc>) -> Option<Vm> {
        let tags = self.tags.as_ref()?;
        let is_shown = self.shown_from <= now && self.ended.is_none_or(|ended| now < ended + self.fades_for);
        is_shown.then(|| Vm {
            id: self.id.clone(),
            machine: tags.machine,
            installation: tags.installation,
            environment: tags.environment,
            state: self.state.clone(),
            address: self.address.clone(),
            expires_at: tags.expires_at,
            created_at: Some(self.born),
            hold: self.held_since.is_some(),
        })
    }

    /// Lets happen what was to happen by now, each at its time.
    pub(super) fn settle(&mut self, now: DateTime<Utc>, habits: &Habits) {
        let next = |record: &Self| {
            let all = [record.ends_itself_at, record.asleep_at, record.deleted_at, record.baked_at];
            all.into_iter().flatten().min().filter(|at| *at <= now)
        };
        while let Some(at) = next(self) {
            if self.deleted_at.take_if(|deleted_at| *deleted_at == at).is_some() {
                self.was_deleted |= self.is_alive();
                self.end(at);
            } else if self.asleep_at.take_if(|asleep_at| *asleep_at == at).is_some() {
                if self.is_alive() && self.can_fall_asleep() {
                    self.fall_asleep(at, habits);
                }
            } else if self.baked_at.take_if(|baked_at| *baked_at == at).is_some() {
                if self.is_awake() {
                    // Also where others are gone then: it is to be read from.
                    self.stop();
                }
            } else {
                self.ends_itself_at = None;
                self.ended_itself |= self.is_awake();
                match habits.power_off_deletes {
                    _ if !self.is_awake() => {}
                    true => self.end(at),
                    false => self.stop(),
                }
            }
        }
    }

    pub(super) fn end(&mut self, at: DateTime<Utc>) {
        if self.is_alive() {
            self.ended = Some(at);
            self.stop_meter(at);
        }
    }

    /// It costs as before.
    pub(super) fn stop(&mut self) {
        (self.state, self.address) = (VmState::Stopped, None);
    }

    /// From having stopped.
    pub(super) fn start(&mut self, address: String) {
        (self.state, self.address) = (VmState::Running, Some(address));
    }

    pub(super) fn wake_up(&mut self, now: DateTime<Utc>, address: String) {
        (self.state, self.address) = (VmState::Running, Some(address));
        if !std::mem::take(&mut self.is_half_asleep) {
            self.awake.push((now, None));
        }
    }

    /// Whether it is not asleep yet, and nothing else becomes of it.
    pub(super) fn can_fall_asleep(&self) -> bool {
        match self.state {
            VmState::Running | VmState::Stopped => true,
            VmState::Hibernated => self.is_half_asleep,
            _ => false,
        }
    }

    fn fall_asleep(&mut self, at: DateTime<Utc>, habits: &Habits) {
        (self.state, self.address, self.was_asleep) = (VmState::Hibernated, None, true);
        self.is_half_asleep = habits.sleeps_by_halves && !self.is_half_asleep;
        if self.is_half_asleep {
            return;
        }
        self.stop_meter(at);
        if habits.moves_in_sleep {
            self.id.0.push('z');
        }
    }

    fn stop_meter(&mut self, at: DateTime<Utc>) {
        if let Some((_, to @ None)) = self.awake.last_mut() {
            *to = Some(at);
        }
    }
}

//! A whole cloud in memory on a virtual clock, with the habits of real ones: it shows late what is new and late what is
//! gone, loses answers, makes what it said it had not, has no room, counts requests, and bills. One seed decides all.
//! It knows the truth about everything that it ever had; a test compares that with what rows intended.

mod api;
mod habits;
mod picture;
mod record;

pub use habits::{Billing, Habits};
pub use picture::Picture;
pub use record::{Record, Tags};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::clock::Clock;
use stagely_domain::id::MachineId;
use stagely_domain::machine::Role;

use crate::testing::{Chance, Doom};
use crate::{CloudError, CreateRequest, ErrorKind, Offering, ProviderId, Residue, ResidueKind, Result};

/// The cloud. Waiting is tokio's, so a runtime that is paused waits for nothing.
pub struct SimCloud {
    clock: Arc<dyn Clock>,
    doom: Arc<Doom>,
    inside: Mutex<Inside>,
}

struct Inside {
    chance: Chance,
    habits: Habits,
    /// What it sells, and how many of each it has; no number is no end.
    shelves: Vec<(Offering, Option<usize>)>,
    records: Vec<Record>,
    /// Creates that take effect later.
    landings: Vec<(DateTime<Utc>, CreateRequest)>,
    residue: Vec<Residue>,
    pictures: Vec<Picture>,
    calls: VecDeque<DateTime<Utc>>,
    made: u32,
    faults: u32,
}

/// What becomes of one call.
struct Fate {
    before: TimeDelta,
    after: TimeDelta,
    loses_answer: bool,
}

impl SimCloud {
    /// An empty, well-behaved cloud at which callers die of `doom`.
    #[must_use]
    pub fn new(chance: Chance, clock: Arc<dyn Clock>, doom: Arc<Doom>) -> Self {
        let inside = Inside {
            chance,
            habits: Habits::default(),
            shelves: Vec::new(),
            records: Vec::new(),
            landings: Vec::new(),
            residue: Vec::new(),
            pictures: Vec::new(),
            calls: VecDeque::new(),
            made: 0,
            faults: 0,
        };
        Self { clock, doom, inside: Mutex::new(inside) }
    }

    /// How it behaves from now on.
    pub fn behave(&self, habits: Habits) {
        self.inside().habits = habits;
    }

    /// Changes some of its habits.
    pub fn change(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.inside().habits);
    }

    /// What it sells from now on, and how many of each.
    pub fn sell(&self, shelves: Vec<(Offering, Option<usize>)>) {
        self.inside().shelves = shelves;
    }

    /// The truth: everything that it ever had, the oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.settled().records.clone()
    }

    /// The same where it is kept: nothing is copied.
    pub fn look<T>(&self, at: impl FnOnce(&[Record]) -> T) -> T {
        at(&self.settled().records)
    }

    /// What machines left behind.
    pub fn residue(&self) -> Vec<Residue> {
        self.settled().residue.clone()
    }

    /// The truth: every image that it ever had, the oldest first.
    pub fn pictures(&self) -> Vec<Picture> {
        self.settled().pictures.clone()
    }

    /// Whether a create is still to take effect.
    pub fn has_landings(&self) -> bool {
        !self.settled().landings.is_empty()
    }

    /// How many calls it has spoiled.
    pub fn faults(&self) -> u32 {
        self.inside().faults
    }

    /// What everything has cost, in millionths.
    pub fn spent_micros(&self) -> u64 {
        let (inside, now) = (self.settled(), self.clock.now());
        inside.records.iter().map(|record| record.micros(inside.habits.billing, now)).sum()
    }

    /// Somebody makes a machine past us: with our tags, or with none.
    pub fn plant(&self, tags: Option<Tags>) -> ProviderId {
        let now = self.clock.now();
        let mut inside = self.settled();
        let offering = inside.shelves.first().map(|(offering, _)| offering.clone());
        inside.add(tags, offering, now)
    }

    /// A person says that machines with this id must stay, or may go.
    pub fn hold(&self, machine: MachineId, hold: bool) {
        let now = self.clock.now();
        for record in self.settled().records.iter_mut().filter(|record| record.is(machine) && record.is_alive()) {
            record.held_since = if hold { record.held_since.or(Some(now)) } else { None };
        }
    }

    /// A person forbids at the provider that machines with this id are deleted.
    pub fn protect(&self, machine: MachineId) {
        for record in self.settled().records.iter_mut().filter(|record| record.is(machine)) {
            record.is_protected = true;
        }
    }

    /// A machine ends, by itself or by a person's hand.
    pub fn end(&self, machine: MachineId) {
        let now = self.clock.now();
        for record in self.settled().records.iter_mut().filter(|record| record.is(machine)) {
            record.ended_itself |= record.is_alive();
            record.end(now);
        }
    }

    /// A person stops a machine that runs.
    pub fn stop(&self, machine: MachineId) {
        self.settled()
            .records
            .iter_mut()
            .filter(|record| record.is(machine) && record.is_awake())
            .for_each(Record::stop);
    }

    /// A person starts one that has stopped: its address is another.
    pub fn start(&self, machine: MachineId) {
        let mut inside = self.settled();
        let address = inside.address();
        let stopped = |record: &&mut Record| record.is(machine) && record.is_alive() && record.address.is_none();
        inside.records.iter_mut().filter(stopped).for_each(|record| record.start(address.clone()));
    }

    /// No machine that there is by now ends itself any more.
    pub fn keep_all(&self) {
        self.settled().records.iter_mut().for_each(|record| record.ends_itself_at = None);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, Inside> {
        let mut inside = self.inside();
        inside.settle(self.clock.now());
        inside
    }

    /// A call: it takes its time, may have no effect, and its answer may be lost.
    async fn call<T: Send>(
        &self,
        doing: &'static str,
        effect: impl FnOnce(&mut Inside, DateTime<Utc>) -> Result<T> + Send,
    ) -> Result<T> {
        let fate = self.settled().fate(doing, self.clock.now());
        self.doom.point().await;
        let fate = fate?;
        wait(fate.before).await;
        let answer = effect(&mut self.settled(), self.clock.now());
        wait(fate.after).await;
        self.doom.point().await;
        if fate.loses_answer && answer.is_ok() {
            return Err(CloudError::new(ErrorKind::Timeout, doing, "no answer in time").ambiguous());
        }
        answer
    }
}

async fn wait(span: TimeDelta) {
    if let Ok(span) = span.to_std()
        && !span.is_zero()
    {
        tokio::time::sleep(span).await;
    }
}

impl Inside {
    /// What becomes of the call that begins now.
    fn fate(&mut self, doing: &'static str, now: DateTime<Utc>) -> Result<Fate> {
        while self.calls.front().is_some_and(|at| *at <= now - TimeDelta::minutes(1)) {
            self.calls.pop_front();
        }
        if self.habits.per_minute.is_some_and(|most| self.calls.len() >= most) {
            let retry_after = self.chance.happens(500).then_some(Duration::from_secs(20));
            self.faults += 1;
            return Err(CloudError::new(ErrorKind::RateLimited { retry_after }, doing, "too many requests"));
        }
        self.calls.push_back(now);
        if self.chance.happens(self.habits.refuses) {
            self.faults += 1;
            return Err(CloudError::new(ErrorKind::Unavailable, doing, "not well"));
        }
        let loses_answer = self.chance.happens(self.habits.loses_answers);
        self.faults += u32::from(loses_answer);
        let half = self.habits.latency / 2;
        Ok(Fate { before: self.chance.span(half), after: self.chance.span(half), loses_answer })
    }

    /// Lets happen what was to happen by now.
    fn settle(&mut self, now: DateTime<Utc>) {
        let due: Vec<_> = self.landings.extract_if(.., |(at, _)| *at <= now).collect();
        for (at, request) in due {
            // Whatever would refuse it now refuses it silently.
            let _ = self.create(&request, at);
        }
        for record in &mut self.records {
            let was_alive = record.is_alive();
            record.settle(now, &self.habits);
            if let (true, Some(ended), Some(tags)) = (was_alive, record.ended, &record.tags)
                && self.chance.happens(self.habits.leaves_disk)
            {
                self.residue.push(Residue {
                    kind: ResidueKind::Volume,
                    id: format!("disk-of-{}", record.id),
                    installation: tags.installation,
                    machine: Some(tags.machine),
                    created_at: Some(record.born.min(ended)),
                    image: None,
                    hold: false,
                });
            }
        }
    }

    /// Makes a machine, or finds the one that is meant.
    fn create(&mut self, request: &CreateRequest, at: DateTime<Utc>) -> Result<ProviderId> {
        let refuse = |kind, message: &str| Err(CloudError::new(kind, "create a machine", message));
        let twins = self.habits.makes_twins;
        let same = self
            .records
            .iter()
            .find(|record| record.is_alive() && record.is(request.machine) && (!twins || record.view(at).is_some()));
        if let Some(same) = same {
            let is_ours = same.tags.as_ref().is_some_and(|tags| tags.installation == request.installation);
            return if is_ours {
                Ok(same.id.clone())
            } else {
                refuse(ErrorKind::Exists, "another installation has this id")
            };
        }
        let alive = self.records.iter().filter(|record| record.is_alive()).count();
        if self.habits.quota.is_some_and(|most| alive >= most) {
            return refuse(ErrorKind::Quota, "the account may not have more machines");
        }
        if let Some(offering) = &request.offering {
            let place = (&offering.name, &offering.location);
            match self.shelves.iter().find(|(sold, _)| (&sold.name, &sold.location) == place) {
                None => return refuse(ErrorKind::Invalid, "there is no such type"),
                Some((sold, room)) if self.taken(sold) >= room.unwrap_or(usize::MAX) => {
                    return refuse(ErrorKind::Capacity, "there is no room");
                }
                Some(_) => {}
            }
        }
        if request.image.as_ref().is_some_and(|image| !self.can_boot(image, at)) {
            return refuse(ErrorKind::Invalid, "there is no such image");
        }
        let tags = Tags {
            machine: request.machine,
            installation: request.installation,
            environment: request.environment,
            expires_at: request.expires_at,
        };
        let id = self.add(Some(tags), request.offering.clone(), at);
        let baked_at = (request.role == Role::Bake).then(|| {
            let fails = self.chance.happens(self.habits.bakes_in_vain);
            (!fails).then(|| at + self.chance.span(self.habits.bakes_in))
        });
        if let Some(record) = self.records.last_mut() {
            record.image.clone_from(&request.image);
            if let Some(baked_at) = baked_at {
                // It powers itself off when all went well, and only then.
                (record.bakes, record.baked_at) = (true, baked_at);
                record.ends_itself_at = record.ends_itself_at.filter(|end| *end != request.expires_at);
            }
        }
        Ok(id)
    }

    fn add(&mut self, tags: Option<Tags>, offering: Option<Offering>, at: DateTime<Utc>) -> ProviderId {
        self.made += 1;
        let id = ProviderId(format!("sim-{}", self.made));
        let mut record = Record::new(id.clone(), tags, offering, at);
        record.address = Some(self.address());
        record.shown_from = at + self.chance.span(self.habits.shows_after);
        record.fades_for = self.chance.span(self.habits.fades_after);
        if self.chance.happens(self.habits.ends_itself) {
            let ends_at = at + self.chance.span(TimeDelta::hours(1));
            record.ends_itself_at = Some(record.ends_itself_at.map_or(ends_at, |switch| switch.min(ends_at)));
        }
        self.records.push(record);
        id
    }

    /// How many run of what it sells.
    fn taken(&self, sold: &Offering) -> usize {
        let same = |offering: &Offering| (&offering.name, &offering.location) == (&sold.name, &sold.location);
        self.records.iter().filter(|record| record.is_awake() && record.offering.as_ref().is_some_and(same)).count()
    }

    fn address(&mut self) -> String {
        format!("10.0.0.1:{}", 20_000 + self.chance.below(40_000))
    }
}

//! What must be true in the end, by what the cloud really had and what was intended when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::VmState;
use stagely_cloud::testing::sim::{Billing, Picture, Record};
use stagely_domain::clock::Clock;
use stagely_domain::failure::Code;
use stagely_domain::id::MachineId;
use stagely_domain::image;
use stagely_domain::machine::State;
use stagely_store::images::Image;
use stagely_store::machines::Machine;
use stagely_store::work::kind;
use stagely_store::{Power, Presence};

use super::Told;
use super::life::Life;
use super::rows::{Inside, Intent};
use crate::reconcile::sweep::decide::GRACE;

/// How long something may cost that nobody intends, counted from when nothing has hindered its removal any more: the
/// sweep's patience, its marks and its rounds.
const DELAY: TimeDelta = TimeDelta::seconds(GRACE.num_seconds() + 240);
/// How long after a person's hold a delete may still come that had begun before.
const UNDER_WAY: TimeDelta = TimeDelta::seconds(60);

type Span = (DateTime<Utc>, DateTime<Utc>);

impl Life {
    /// What the life was worth, or all that is wrong.
    pub fn judge(&self) -> Result<Told, String> {
        let records = self.rows.cloud.records();
        let inside = self.rows.inside();
        let judge = Judge { life: self, inside: &inside, records: &records, now: self.clock.now() };
        let mut wrong = judge.strangers();
        wrong.extend(judge.rows());
        wrong.extend(judge.machines());
        wrong.extend(judge.images(&self.rows.cloud.pictures()));
        let mut bound = 0;
        for record in &records {
            wrong.extend(judge.cost(record, &mut bound));
        }
        let spent = self.rows.cloud.spent_micros();
        if spent > bound {
            wrong.push(format!("spent {spent}, which is more than {bound}"));
        }
        let left = self.rows.cloud.residue();
        if let Some(left) = left.iter().find(|left| left.machine.is_some_and(|id| !judge.is_alive(id))) {
            wrong.push(format!("{} is left of a machine that is gone", left.id));
        }
        if wrong.is_empty() { Ok(judge.told()) } else { Err(judge.describe(&wrong)) }
    }
}

struct Judge<'l> {
    life: &'l Life,
    inside: &'l Inside,
    records: &'l [Record],
    now: DateTime<Utc>,
}

impl Judge<'_> {
    /// What others have is as it was.
    fn strangers(&self) -> Vec<String> {
        let foreign = self.records.iter().filter(|record| self.life.foreign.contains(&record.id));
        let (kept, touched): (Vec<_>, Vec<_>) = foreign.partition(|record| !record.was_deleted && !record.was_asleep);
        match (kept.len(), touched.len()) {
            (2, 0) => Vec::new(),
            _ => vec!["a machine of somebody else was touched".to_owned()],
        }
    }

    /// Each row's machine is as the row says, and no row was given up without a cause.
    fn rows(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for row in self.inside.machines.values() {
            let alive: Vec<&Record> = self.of(row.id).filter(|record| record.is_alive()).collect();
            let id = row.id;
            match row.desired {
                Presence::Absent if row.state == State::Gone => {}
                Presence::Absent if alive.iter().any(|record| record.held_since.is_some()) => {}
                Presence::Absent => wrong.push(format!("{id} is not wanted, and not gone but {:?}", row.state)),
                Presence::Present => {
                    let (state, expected) = match row.power {
                        Power::Awake => (State::Enrolled, VmState::Running),
                        Power::Asleep => (State::Hibernated, VmState::Hibernated),
                    };
                    // Of twins, those may be left that a person holds, and those that sleep: they cost nothing.
                    let is_held = |record: &Record| record.held_since.is_some();
                    let awake = alive.iter().filter(|record| record.is_awake() && !is_held(record)).count();
                    let most = usize::from(row.power == Power::Awake);
                    let count = alive.iter().filter(|record| record.state == expected).count();
                    let is_right = count > 0 && awake <= most;
                    if row.state != state || !is_right {
                        wrong.push(format!("{id} is wanted {:?}, is {:?}, and {count} are so", row.power, row.state));
                    }
                }
            }
            if row.failure.as_ref().is_some_and(|failure| failure.code == Code::MachineLost) && !self.may_be_lost(row) {
                wrong.push(format!("{id} was given up for lost and was there all the time: {:?}", row.failure));
            }
        }
        wrong
    }

    /// Each machine has a row that wants it, unless a person holds it; and nothing was deleted that was held.
    fn machines(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for record in self.ours() {
            let Some(tags) = &record.tags else { continue };
            let row = self.inside.machines.get(&tags.machine);
            let wanted = row.is_some_and(|row| row.desired == Presence::Present);
            if record.is_alive() && !wanted && record.held_since.is_none() {
                wrong.push(format!("{} of {} is at the cloud and nothing wants it", record.id, tags.machine));
            }
            let closed_early = row.is_some_and(|row| {
                let could_land = row.provider_id.is_none() && row.create_deadline.is_some_and(|at| record.born <= at);
                could_land && row.gone_at.is_some_and(|gone_at| record.born > gone_at)
            });
            if closed_early {
                wrong.push(format!("{} was called gone while its create could still take effect", tags.machine));
            }
            let held = record.held_since.zip(record.ended);
            if record.was_deleted && held.is_some_and(|(held, ended)| ended - held > UNDER_WAY) {
                wrong.push(format!("{} of {} was deleted and a person held it", record.id, tags.machine));
            }
        }
        wrong
    }

    /// Each image is as its row says, and there is none beside them.
    fn images(&self, pictures: &[Picture]) -> Vec<String> {
        let mut wrong = Vec::new();
        let can_be_booted = |row: &Image| (row.desired, row.state) == (Presence::Present, image::State::Ready);
        for row in self.inside.images.values() {
            if self.inside.has_work_on(row) {
                wrong.push(format!("{} is wanted {:?}, and is {:?} all the time", row.id, row.desired, row.state));
            }
            let is_it = |picture: &&Picture| picture.is_alive() && row.reference.as_ref() == Some(&picture.reference);
            if can_be_booted(row) && !pictures.iter().any(|picture| is_it(&picture)) {
                wrong.push(format!("{} is to be booted as {:?}, and is not there", row.id, row.reference));
            }
        }
        for picture in pictures.iter().filter(|picture| picture.is_alive()) {
            let row = self.inside.images.get(&picture.image);
            let meant = row.filter(|row| can_be_booted(row)).and_then(|row| row.reference.as_ref());
            if meant != Some(&picture.reference) {
                wrong.push(format!("{} of {} is at the cloud and nothing wants it", picture.reference, picture.image));
            }
        }
        wrong
    }

    /// Nothing costs longer than it was intended, and the sweep's delay.
    fn cost(&self, record: &Record, bound: &mut u64) -> Vec<String> {
        let price = record.offering.as_ref().and_then(|offering| offering.price.as_ref());
        let mut wrong = Vec::new();
        for (from, to) in &record.awake {
            let span = (*from, to.unwrap_or(self.now));
            if self.life.foreign.contains(&record.id) {
                *bound += price.map_or(0, |price| Billing::Hours.micros(price, span.1 - span.0));
                continue;
            }
            let mut allowed = span.1 - span.0;
            for (begins, ends) in self.unintended(record, span) {
                let since = self.last_trouble(record, ends).map_or(begins, |trouble| trouble.max(begins));
                allowed = allowed - (ends - begins) + (since - begins) + DELAY;
                if ends - since > DELAY {
                    let long = (ends - since).num_seconds();
                    wrong.push(format!("{} cost {long} s after {since} and nothing wanted it", record.id));
                }
            }
            *bound += price.map_or(0, |price| Billing::Seconds { least: 0 }.micros(price, allowed));
        }
        wrong
    }

    /// The parts of a span in which nobody wanted it to run.
    fn unintended(&self, record: &Record, span: Span) -> Vec<Span> {
        let wanted = self.wanted(record);
        let (twins, held) = (self.twins_of(record), self.held(record));
        let mut cuts: Vec<DateTime<Utc>> =
            wanted.iter().chain(&twins).chain(&held).flat_map(|(from, to)| [*from, *to]).collect();
        cuts.extend([span.0, span.1]);
        cuts.retain(|cut| (span.0..=span.1).contains(cut));
        cuts.sort_unstable();
        let within = |spans: &[Span], at| spans.iter().any(|(from, to)| *from <= at && at < *to);
        let mut found: Vec<Span> = Vec::new();
        for pair in cuts.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            if from == to || within(&held, from) || (within(&wanted, from) && !within(&twins, from)) {
                continue;
            }
            match found.last_mut() {
                Some((_, end)) if *end == from => *end = to,
                _ => found.push((from, to)),
            }
        }
        found
    }

    /// When its row wanted it to run.
    fn wanted(&self, record: &Record) -> Vec<Span> {
        let log =
            self.inside.log.iter().filter(|(_, id, _)| record.is(*id)).map(|(at, _, i)| (*at, *i == Intent::Awake));
        self.spans(log)
    }

    /// When a person held it.
    fn held(&self, record: &Record) -> Vec<Span> {
        let holds = self.inside.holds.iter().filter(|(at, id, _)| record.is(*id) && *at >= record.born);
        self.spans(holds.map(|(at, _, hold)| (*at, *hold)))
    }

    /// When there was another machine of the same row, and the row meant that one.
    fn twins_of(&self, record: &Record) -> Vec<Span> {
        let Some(tags) = &record.tags else { return Vec::new() };
        let row = self.inside.machines.get(&tags.machine);
        let named = row.and_then(|row| row.provider_id.as_deref());
        let is_named =
            |record: &Record| named.is_some_and(|id| record.id.0.trim_end_matches('z') == id.trim_end_matches('z'));
        let all: Vec<&Record> = self.of(tags.machine).collect();
        let main = all.iter().find(|record| is_named(record)).or(all.first());
        match main {
            Some(main) if main.id != record.id => vec![(main.born, main.ended.unwrap_or(self.now))],
            _ => Vec::new(),
        }
    }

    fn spans(&self, changes: impl Iterator<Item = (DateTime<Utc>, bool)>) -> Vec<Span> {
        let (mut spans, mut since) = (Vec::new(), None);
        for (at, on) in changes {
            match (since, on) {
                (None, true) => since = Some(at),
                (Some(from), false) => {
                    spans.push((from, at));
                    since = None;
                }
                _ => {}
            }
        }
        spans.extend(since.map(|from| (from, self.now + TimeDelta::days(1))));
        spans
    }

    /// The last moment by `at` until which its row or the sweep was kept from its work.
    fn last_trouble(&self, record: &Record, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = self.life.clock.instant(at);
        let machine = record.tags.as_ref().map(|tags| tags.machine);
        let bake = self.inside.images.values().find(|image| image.machine.is_some() && image.machine == machine);
        let of_rows = machine.map(|id| (kind::MACHINE, id.uuid())).into_iter();
        let of_rows = of_rows.chain(bake.map(|image| (kind::IMAGE, image.id.uuid())));
        let keys = of_rows.chain([(kind::SWEEP, self.life.account)]);
        keys.filter_map(|key| self.inside.queue.last_trouble(key, at)).max().map(|at| self.life.clock.date(at))
    }

    /// Whether something happened after which a machine may be called lost.
    fn may_be_lost(&self, row: &Machine) -> bool {
        let fortune = self.inside.fortunes.get(&row.id);
        let never_boots = fortune.is_some_and(|fortune| fortune.boots_in.is_none());
        let twins = self.of(row.id).count() > 1 && fortune.is_some_and(|fortune| fortune.twins_boot);
        never_boots || twins || self.of(row.id).any(|record| record.ended_itself)
    }

    fn of(&self, id: MachineId) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.is(id))
    }

    fn ours(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| !self.life.foreign.contains(&record.id))
    }

    fn is_alive(&self, id: MachineId) -> bool {
        self.of(id).any(Record::is_alive)
    }

    fn told(&self) -> Told {
        use std::sync::atomic::Ordering::Relaxed;
        let mut count = BTreeMap::<MachineId, u64>::new();
        for tags in self.ours().filter_map(|record| record.tags.as_ref()) {
            *count.entry(tags.machine).or_default() += 1;
        }
        Told {
            machines: count.values().sum(),
            images: self.life.rows.cloud.pictures().len() as u64,
            activations: self.life.activations.load(Relaxed),
            faults: self.life.rows.cloud.faults().into(),
            deaths: self.life.deaths.load(Relaxed),
            twins: count.values().filter(|count| **count > 1).count() as u64,
            swept: self.life.swept.load(Relaxed),
        }
    }

    fn describe(&self, wrong: &[String]) -> String {
        let mut text = wrong.join("\n");
        if !self.life.aloud {
            return text;
        }
        for row in self.inside.machines.values() {
            let _ = write!(text, "\nrow {row:?}");
        }
        for row in self.inside.images.values() {
            let _ = write!(text, "\nrow {row:?}");
        }
        for record in self.records {
            let _ = write!(text, "\nrecord {record:?}");
        }
        for picture in self.life.rows.cloud.pictures() {
            let _ = write!(text, "\nimage {picture:?}");
        }
        text
    }
}

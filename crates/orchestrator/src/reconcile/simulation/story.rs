//! What is wished and what people do during a life.

use chrono::TimeDelta;
use stagely_cloud::testing::Chance;
use stagely_cloud::testing::sim::{Habits, Tags};
use stagely_cloud::{Offering, Price};
use stagely_domain::id::{ImageId, InstallationId, MachineId};
use stagely_domain::machine::Arch;
use uuid::Uuid;

use super::rows::{Fortune, Intent};

/// How long things go wrong at most.
const STORM: TimeDelta = TimeDelta::minutes(20);

/// What happens in a storm.
#[derive(Default)]
pub struct Story {
    pub lasts: TimeDelta,
    /// In the order in which they happen, each so long after the beginning.
    pub events: Vec<(TimeDelta, Event)>,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// A row is committed.
    Insert(MachineId, Fortune, TimeDelta),
    Wish(MachineId, Intent),
    /// A person at the provider holds it, or lets it go.
    Hold(MachineId, bool),
    /// A person at the provider ends it, or it crashes.
    End(MachineId),
    /// A machine with our tags that no row knows: a backup was restored, perhaps.
    Plant(MachineId),
    /// A member wishes for a golden image.
    Bake(ImageId),
    /// The same has enough of it.
    DropImage(ImageId),
}

pub fn tell(chance: &mut Chance) -> Story {
    let storm = TimeDelta::minutes(5) + chance.span(STORM - TimeDelta::minutes(5));
    let mut story = Vec::new();
    for _ in 0..2 + chance.below(3) {
        let id = machine(chance);
        let begins = chance.span(storm / 2);
        let mut at = begins;
        let boots_in = (!chance.happens(50)).then(|| TimeDelta::seconds(20) + chance.span(TimeDelta::seconds(60)));
        let fortune = Fortune { boots_in, twins_boot: chance.happens(500) };
        let lifetime = if chance.happens(100) { storm } else { TimeDelta::days(1) };
        story.push((at, Event::Insert(id, fortune, lifetime)));
        for _ in 0..chance.below(4) {
            at += chance.span(TimeDelta::minutes(4));
            story.push((at, Event::Wish(id, *chance.pick(&[Intent::Awake, Intent::Asleep]))));
        }
        if chance.happens(700) {
            story.push((begins + chance.span(storm), Event::Wish(id, Intent::Absent)));
        }
        if chance.happens(150) {
            let held = begins + chance.span(storm);
            story.push((held, Event::Hold(id, true)));
            if chance.happens(500) {
                story.push((held + chance.span(storm), Event::Hold(id, false)));
            }
        }
        if chance.happens(50) {
            story.push((begins + chance.span(storm), Event::End(id)));
        }
    }
    for _ in 0..chance.below(3) {
        let (id, at) = (machine(chance), chance.span(storm));
        story.push((at, Event::Plant(id)));
        if chance.happens(200) {
            // Before a sweep has seen it, or between its first sight and its end.
            story.push((at + chance.span(TimeDelta::minutes(8)), Event::Hold(id, true)));
        }
    }
    for _ in 0..chance.below(3) {
        let at = chance.span(storm / 2);
        let id = image(at, chance);
        story.push((at, Event::Bake(id)));
        if chance.happens(400) {
            story.push((at + chance.span(storm), Event::DropImage(id)));
        }
    }
    // What would come after the storm comes at its end.
    story.iter_mut().for_each(|(at, _)| *at = (*at).min(storm));
    story.sort_by_key(|(at, _)| *at);
    Story { lasts: storm, events: story }
}

/// The weather of a life.
pub fn habits(chance: &mut Chance) -> Habits {
    let mut seconds = |of: &[i64]| TimeDelta::seconds(*chance.pick(of));
    let habits = Habits {
        latency: seconds(&[0, 0, 1, 6]),
        shows_after: seconds(&[0, 5, 60]),
        fades_after: seconds(&[0, 10, 90]),
        deletes_in: seconds(&[0, 5, 30]),
        sleeps_in: seconds(&[0, 0, 15]),
        bakes_in: seconds(&[0, 60, 300]),
        images_in: seconds(&[0, 60, 300]),
        late_by: seconds(&[10, 170, 1200]),
        ..Habits::default()
    };
    let makes_twins = chance.happens(250);
    Habits {
        refuses: *chance.pick(&[0, 20, 150]),
        loses_answers: *chance.pick(&[0, 50, 200]),
        lands_late: *chance.pick(&[0, 50, 300]),
        lists_partly: *chance.pick(&[0, 100]),
        overlooks_young: *chance.pick(&[0, 300]),
        ends_itself: *chance.pick(&[0, 0, 200]),
        leaves_disk: *chance.pick(&[0, 300]),
        bakes_in_vain: *chance.pick(&[0, 0, 300]),
        per_minute: *chance.pick(&[None, None, None, Some(30)]),
        quota: *chance.pick(&[None, None, None, Some(5)]),
        power_off_deletes: chance.happens(500),
        makes_twins,
        // Where that is how machines sleep, names are unique.
        sleeps_by_halves: !makes_twins && chance.happens(300),
        moves_in_sleep: chance.happens(300),
        stops_first: !makes_twins && chance.happens(300),
        ..habits
    }
}

/// What is sold, and how many of each.
pub fn shelves(chance: &mut Chance) -> Vec<(Offering, Option<usize>)> {
    let offering = |name: &str, micros_per_hour| Offering {
        name: name.to_owned(),
        location: "a".to_owned(),
        arch: Arch::Amd64,
        vcpus: 2,
        memory_mib: 4096,
        price: Some(Price { micros_per_hour, currency: "EUR".to_owned() }),
        available: true,
    };
    let rooms = [Some(0), Some(1), Some(2), None];
    vec![
        (offering("cheap", 3600), *chance.pick(&rooms)),
        (offering("fair", 7200), *chance.pick(&rooms)),
        (offering("dear", 36_000), *chance.pick(&[Some(1), None, None])),
    ]
}

pub fn tags(machine: MachineId, installation: InstallationId, now: chrono::DateTime<chrono::Utc>) -> Tags {
    Tags { machine, installation, environment: None, expires_at: now + TimeDelta::days(1) }
}

pub fn machine(chance: &mut Chance) -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(chance.draw_wide()))
}

/// As in service, a later image has a greater id.
pub fn image(at: TimeDelta, chance: &mut Chance) -> ImageId {
    let begun = u128::try_from(at.num_milliseconds()).unwrap_or_default();
    ImageId::from_uuid(Uuid::from_u128(begun << 80 | u128::from(chance.draw())))
}

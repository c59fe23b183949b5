//! One life of an installation: a storm, a calm, two sweeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use stagely_cloud::ProviderId;
use stagely_cloud::testing::sim::{Habits, SimCloud};
use stagely_cloud::testing::{Chance, Doom};
use stagely_domain::clock::Clock;
use stagely_domain::id::InstallationId;
use stagely_reconcile::{Claim, Step, StepError};
use stagely_store::work::kind;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use uuid::Uuid;

use super::process::Process;
use super::rows::{self, Rows};
use super::story::{self, Event, Story};
use crate::reconcile::image::plan::BAKE_LIMIT;
use crate::reconcile::sweep::decide::GRACE;

/// How long all is well before the sweeps at most: a machine that never boots is given up by then.
const CALM: Duration = Duration::from_secs(15 * 60);
/// In this time whatever is not as it seems is noticed, and what can be done at once is done.
const SETTLING: Duration = Duration::from_secs(3 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// tokio's clock, as a date.
pub struct VirtualClock {
    date: DateTime<Utc>,
    at: Instant,
}

impl VirtualClock {
    pub fn new() -> Self {
        Self { date: DateTime::from_timestamp(1_800_000_000, 0).unwrap(), at: Instant::now() }
    }

    pub fn instant(&self, date: DateTime<Utc>) -> Instant {
        self.at + (date - self.date).to_std().unwrap_or_default()
    }

    pub fn date(&self, at: Instant) -> DateTime<Utc> {
        self.date + TimeDelta::from_std(at - self.at).unwrap_or_default()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        self.date(Instant::now())
    }
}

pub struct Life {
    pub aloud: bool,
    pub rows: Arc<Rows>,
    pub clock: Arc<VirtualClock>,
    pub account: Uuid,
    /// Something was wished since.
    pub wished: Notify,
    pub activations: AtomicU64,
    pub deaths: AtomicU64,
    pub swept: AtomicU64,
    /// What others have in the account.
    pub foreign: Vec<ProviderId>,
    story: Story,
    chance: Mutex<Chance>,
}

impl Life {
    /// What the seed says.
    pub fn new(seed: u64, aloud: bool) -> Self {
        let mut chance = Chance::new(seed);
        let life = Self::quiet(&mut chance, aloud);
        let (habits, shelves, story) =
            (story::habits(&mut chance), story::shelves(&mut chance), story::tell(&mut chance));
        if aloud {
            println!("{habits:?}\n{shelves:?}");
        }
        life.rows.cloud.behave(habits);
        life.rows.cloud.sell(shelves);
        life.rows.doom.set_odds(*chance.pick(&[0, 2, 10]));
        Self { story, ..life }
    }

    /// An installation in which nothing happens, in an account that others use, too.
    pub fn quiet(chance: &mut Chance, aloud: bool) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let doom = Arc::new(Doom::new(chance.fork()));
        let cloud = Arc::new(SimCloud::new(chance.fork(), clock.clone(), Arc::clone(&doom)));
        let installation = InstallationId::from_uuid(Uuid::from_u128(chance.draw_wide()));
        let neighbour = InstallationId::from_uuid(Uuid::from_u128(chance.draw_wide()));
        let others = story::tags(story::machine(chance), neighbour, clock.now());
        let foreign = vec![cloud.plant(Some(others)), cloud.plant(None)];
        Self {
            aloud,
            rows: Arc::new(Rows::new(installation, clock.clone(), doom, cloud)),
            clock,
            account: Uuid::from_u128(chance.draw_wide()),
            wished: Notify::new(),
            activations: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            foreign,
            story: Story::default(),
            chance: Mutex::new(chance.fork()),
        }
    }

    /// Everything happens that is in the story, with processes that die.
    pub async fn stormy(&self) {
        let end = Instant::now() + self.story.lasts.to_std().unwrap_or_default();
        tokio::join!(self.processes(end), async {
            let begun = Instant::now();
            for (at, event) in &self.story.events {
                sleep_until(begun + at.to_std().unwrap_or_default()).await;
                self.happen(event);
            }
        });
    }

    /// Nothing goes wrong any more, and what was under way lands.
    pub async fn calm(&self) {
        let cloud = &self.rows.cloud;
        self.rows.doom.spare();
        cloud.keep_all();
        cloud.change(|habits| {
            *habits = Habits {
                power_off_deletes: habits.power_off_deletes,
                makes_twins: habits.makes_twins,
                sleeps_by_halves: habits.sleeps_by_halves,
                stops_first: habits.stops_first,
                moves_in_sleep: habits.moves_in_sleep,
                ..Habits::default()
            };
        });
        self.restart(Instant::now());
        let process = Process::start(self);
        let pass = async |time: Duration| {
            process.run(Instant::now() + time).await;
            // Nobody sweeps meanwhile: what only a sweep removes may cost as long.
            self.rows.inside().queue.trouble((kind::SWEEP, self.account), Instant::now());
        };
        while cloud.has_landings() {
            pass(MINUTE).await;
        }
        let begun = Instant::now();
        pass(SETTLING).await;
        while begun.elapsed() < CALM && self.rows.inside().has_work_on_machines() {
            pass(MINUTE).await;
        }
        // What bakes in vain is given up later.
        let end = begun + CALM + BAKE_LIMIT.to_std().unwrap_or_default();
        while Instant::now() < end && self.rows.inside().has_work_on_images() {
            pass(MINUTE).await;
        }
    }

    /// Two, and as many more as it takes to remove what is too much for these. Between them nothing is to be done for
    /// most of the time.
    pub async fn two_sweeps(&self) {
        self.restart(Instant::now());
        let process = Process::start(self);
        for number in 1.. {
            let found = process.sweep().await.expect("a sweep in the calm");
            let next = Instant::now() + GRACE.to_std().unwrap_or_default() + MINUTE;
            process.run(Instant::now() + SETTLING).await;
            sleep_until(next).await;
            if number >= 2 && !found.paused {
                break;
            }
        }
        self.note(&process);
    }

    /// Runs processes one after the other, each until it dies.
    pub async fn processes(&self, end: Instant) {
        while Instant::now() < end {
            self.rows.inside().queue.wake((kind::SWEEP, self.account));
            let process = Process::start(self);
            let died = tokio::select! {
                biased;
                () = self.rows.doom.death() => true,
                () = process.run(end) => false,
            };
            self.note(&process);
            drop(process);
            if died {
                self.deaths.fetch_add(1, Ordering::Relaxed);
                let pause = Duration::from_millis(self.chance().below(20_000));
                self.say(|| "dies".to_owned());
                self.rows.inside().queue.forsake(Instant::now() + pause);
                sleep(pause).await;
            }
        }
    }

    /// Ends a claim as the worker's loop does.
    pub fn finish(&self, claim: &Claim, outcome: Result<Step, StepError>) {
        if let Err(error) = &outcome {
            self.say(|| format!("{}: {}", claim.fence.key, error.chain()));
        }
        let mut chance = self.chance().fork();
        self.rows.inside().queue.finish(claim, outcome, &mut chance);
    }

    /// How many processes died.
    pub fn died(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{} {}", self.clock.now().format("%H:%M:%S%.3f"), what());
        }
    }

    /// The process before is no more; sweeps happen only when they are called for, and everything else is due.
    fn restart(&self, at: Instant) {
        let mut inside = self.rows.inside();
        inside.queue.forsake(at);
        inside.queue.put_off((kind::SWEEP, self.account));
        let ids: Vec<Uuid> = inside.machines.keys().map(|id| id.uuid()).collect();
        ids.into_iter().for_each(|id| inside.queue.wake((kind::MACHINE, id)));
        let images: Vec<Uuid> = inside.images.keys().map(|id| id.uuid()).collect();
        images.into_iter().for_each(|id| inside.queue.wake((kind::IMAGE, id)));
    }

    pub fn happen(&self, event: &Event) {
        self.say(|| format!("{event:?}"));
        let now = self.clock.now();
        match *event {
            Event::Insert(id, fortune, lifetime) => {
                let ids = [1, 2, 3].map(Uuid::from_u128);
                let ids = [ids[0], ids[1], ids[2], self.account];
                self.rows.insert(rows::intended(id, ids, now + lifetime, now), fortune);
            }
            Event::Wish(id, intent) => self.rows.wish(id, intent),
            Event::Hold(id, hold) => {
                self.rows.cloud.hold(id, hold);
                self.rows.inside().holds.push((now, id, hold));
            }
            Event::End(id) => self.rows.cloud.end(id),
            Event::Plant(id) => drop(self.rows.cloud.plant(Some(story::tags(id, self.rows.installation, now)))),
            Event::Bake(id) => self.rows.insert_image(rows::wished(id, self.account, now)),
            Event::DropImage(id) => self.rows.drop_image(id),
        }
        self.wished.notify_one();
    }

    fn note(&self, process: &Process<'_>) {
        self.swept.fetch_add(process.removed.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn chance(&self) -> std::sync::MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Thousands of lives of machines and golden images, each decided by one seed: their reconcilers and the sweep as they run
//! in service, on rows in memory and a simulated cloud, with wishes, people, crashes between any two steps and lost
//! answers. In the end the cloud must hold what the rows intend, and nothing may have cost longer than it had to.
//!
//! A seed that fails is printed; `SEED=… cargo test -p stagely-orchestrator --lib simulation` lives it again.

mod cases;
mod copies;
pub mod life;
mod outage;
mod process;
mod queue;
pub mod rows;
pub mod story;
mod transaction;
mod truth;

use std::fmt;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use life::Life;
use tokio::time::Instant;

/// Lives in an ordinary run of the tests; `SEEDS=…` for more.
const SEEDS: u64 = 500;

#[test]
fn after_all_that_can_go_wrong_the_cloud_holds_what_the_rows_intend_and_cost_no_more() {
    if let Some(seed) = number("SEED") {
        let told = live(seed, true).unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("seed {seed}: {told}");
        return;
    }
    let (seeds, begun) = (number("SEEDS").unwrap_or(SEEDS), Instant::now());
    let (next, lanes) = (AtomicU64::new(0), thread::available_parallelism().map_or(1, usize::from));
    let sums: Vec<Told> = thread::scope(|scope| {
        let lane = || {
            let mut sum = Told::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return sum;
                }
                let lived = catch_unwind(|| live(seed, false)).unwrap_or_else(|_| Err("it panicked".to_owned()));
                let told = lived.unwrap_or_else(|wrong| {
                    panic!("SEED={seed} fails; live it again with SEED={seed} in the environment:\n{wrong}")
                });
                sum.add(&told);
            }
        };
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a life that holds")).collect()
    });
    let mut sum = Told::default();
    sums.iter().for_each(|told| sum.add(told));
    let took = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is read by people")]
    let rate = seeds as f64 / took;
    println!("simulation: {seeds} seeds in {took:.1} s, {rate:.0} seeds/s; {sum}; leaked 0, killed 0, lost 0");
    // A simulation in which nothing goes wrong proves nothing.
    let per_life = |count: u64| count / seeds.max(1);
    assert!(per_life(sum.machines) >= 2 && per_life(sum.faults) >= 2 && sum.deaths > seeds / 4, "{sum:?}");
    assert!(sum.images > seeds / 4, "{sum:?}");
}

/// What a life was worth.
#[derive(Debug, Default, Clone)]
pub struct Told {
    machines: u64,
    images: u64,
    activations: u64,
    faults: u64,
    deaths: u64,
    twins: u64,
    swept: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, images, activations, faults, deaths, twins, swept } = self;
        write!(f, "{machines} machines, {images} images, {activations} activations, {faults} calls spoiled, ")?;
        write!(f, "{deaths} processes killed, {twins} twins, {swept} swept")
    }
}

impl Told {
    fn add(&mut self, other: &Self) {
        self.machines += other.machines;
        self.images += other.images;
        self.activations += other.activations;
        self.faults += other.faults;
        self.deaths += other.deaths;
        self.twins += other.twins;
        self.swept += other.swept;
    }
}

/// One life, on a clock of its own; what was wrong in the end.
fn live(seed: u64, aloud: bool) -> Result<Told, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let life = Life::new(seed, aloud);
        life.stormy().await;
        life.calm().await;
        life.two_sweeps().await;
        life.judge()
    })
}

#[expect(clippy::disallowed_methods, reason = "the test's own settings")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

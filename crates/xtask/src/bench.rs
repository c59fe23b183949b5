//! `cargo xtask bench`: what is promised, measured. One line per promise; exit code 1 when one does not hold.

mod clouds;
mod main_story;

use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use crate::print_result;

/// What to measure.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Bench {
    /// From a push to its URL, and how a machine boots.
    Main,
    /// How a sweep bears an account with very many machines.
    Clouds,
}

/// The fewest repetitions from which a median is taken.
const REPETITIONS: usize = 5;

/// Measures and reports; with `json` one JSON object a line.
pub async fn run(bench: Bench, json: bool) -> anyhow::Result<()> {
    let promises = match bench {
        Bench::Main => main_story::measure().await?,
        Bench::Clouds => clouds::measure().await?,
    };
    for promise in &promises {
        print_result(if json { promise.json() } else { promise.line() });
    }
    let broken = promises.iter().filter(|promise| !promise.holds).count();
    if broken > 0 {
        bail!("{broken} of {} promises do not hold", promises.len());
    }
    Ok(())
}

/// One promise and what came of it.
struct Promise {
    what: String,
    wanted: String,
    got: String,
    /// The peer or the baseline of the same run.
    beside: String,
    holds: bool,
}

impl Promise {
    fn line(&self) -> String {
        let verdict = if self.holds { "holds" } else { "DOES NOT HOLD" };
        let Self { what, wanted, got, beside, .. } = self;
        format!("{what:<44} wanted {wanted:<18} got {got:<32} beside {beside:<32} {verdict}")
    }

    fn json(&self) -> String {
        let Self { what, wanted, got, beside, holds } = self;
        json!({"what": what, "wanted": wanted, "got": got, "beside": beside, "holds": holds}).to_string()
    }
}

/// Repeated measurements of one thing.
#[derive(Default)]
struct Samples(Vec<Duration>);

impl Samples {
    fn of_seconds(seconds: &[f64]) -> Self {
        Self(seconds.iter().copied().map(Duration::from_secs_f64).collect())
    }

    fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Samples {
    /// Median, spread and count.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secs = |time: Option<&Duration>| time.copied().unwrap_or_default().as_secs_f64();
        let (least, most) = (secs(self.0.iter().min()), secs(self.0.iter().max()));
        write!(f, "{:.2} s ({least:.2}-{most:.2}, n={})", self.median().as_secs_f64(), self.0.len())
    }
}

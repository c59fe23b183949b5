//! What every call to the outside goes through: here one of them fails, is late, or has its caller killed.

use std::future::pending;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It fails and has no effect.
    FailsBefore,
    /// It takes effect, and the answer is lost.
    FailsAfter,
    /// Its caller is killed before it has an effect.
    DiesBefore,
    /// Its caller is killed once it took effect.
    DiesAfter,
    /// It takes effect, and the answer comes only when the test says so.
    Waits,
    /// It takes effect, and its caller's whole process stands still, as by SIGSTOP, until the test says so or for twice a lease.
    Freezes,
}

const FREEZE: Duration = Duration::from_secs(12);

/// One call: the so many-th of that name, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub call: &'static str,
    pub number: usize,
}

impl Point {
    /// Every call of a list.
    pub fn of(calls: &[&'static str]) -> Vec<Self> {
        let earlier = |index: usize| calls[..index].iter().filter(|call| **call == calls[index]).count();
        calls.iter().enumerate().map(|(index, call)| Self { call, number: earlier(index) }).collect()
    }

    /// Whether it changes anything outside.
    pub fn has_effect(self) -> bool {
        let reads =
            ["find", "list", "list_residue", "catalogue", "pull_request", "file_at", "entries_at", "clone_access"];
        !self.call.split_once(' ').is_some_and(|(_, name)| reads.contains(&name))
    }
}

/// The gate, and the list of who went through.
#[derive(Default)]
pub struct Gate {
    inside: Mutex<Inside>,
    /// Told when the process that made a call is to be killed.
    pub deaths: Notify,
    /// Told when a call begins to wait, and when it may go on.
    changed: Notify,
}

#[derive(Default)]
struct Inside {
    harm: Option<(Point, Harm)>,
    was_reached: bool,
    waits: bool,
    calls: Vec<&'static str>,
}

impl Gate {
    /// Begins to count anew, and harms this call.
    pub fn arm(&self, harm: Option<(Point, Harm)>) {
        *self.inside() = Inside { harm, ..Inside::default() };
    }

    /// The calls since then.
    pub fn calls(&self) -> Vec<&'static str> {
        self.inside().calls.clone()
    }

    /// Returns once the call that was to wait does so.
    pub async fn waits(&self) {
        self.until(|inside| inside.waits).await;
    }

    /// Lets it go on, and no other wait.
    pub fn go_on(&self) {
        let mut inside = self.inside();
        (inside.harm, inside.waits) = (None, false);
        drop(inside);
        self.changed.notify_waiters();
    }

    fn begin_to_wait(&self) {
        let mut inside = self.inside();
        // Nobody says go on any more, if that was said while the call took effect.
        inside.waits = inside.harm.is_some();
    }

    async fn until(&self, is_so: impl Fn(&Inside) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Interest is registered before the look.
            changed.as_mut().enable();
            if is_so(&self.inside()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether the call that was to be harmed was made.
    pub fn was_reached(&self) -> bool {
        self.inside().was_reached
    }

    /// Lets a call through, or not. `refusal` is told whether it took effect.
    pub async fn pass<T, E>(
        &self,
        call: &'static str,
        effect: impl Future<Output = Result<T, E>>,
        refusal: impl FnOnce(bool) -> E,
    ) -> Result<T, E> {
        match self.harm(call) {
            None => effect.await,
            Some(Harm::FailsBefore) => Err(refusal(false)),
            Some(Harm::FailsAfter) => {
                effect.await?;
                Err(refusal(true))
            }
            Some(Harm::DiesBefore) => self.die().await,
            Some(Harm::DiesAfter) => {
                effect.await?;
                self.die().await
            }
            Some(Harm::Waits) => {
                let answer = effect.await;
                self.begin_to_wait();
                self.changed.notify_waiters();
                self.until(|inside| !inside.waits).await;
                answer
            }
            Some(Harm::Freezes) => {
                let answer = effect.await;
                self.begin_to_wait();
                self.changed.notify_waiters();
                self.freeze();
                answer
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a stopped process lets nothing else go on")]
    fn freeze(&self) {
        let until = Instant::now() + FREEZE;
        while self.inside().waits && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn harm(&self, call: &'static str) -> Option<Harm> {
        let mut inside = self.inside();
        let number = inside.calls.iter().filter(|earlier| **earlier == call).count();
        inside.calls.push(call);
        let harm = inside.harm.filter(|(point, _)| *point == Point { call, number });
        inside.was_reached |= harm.is_some();
        harm.map(|(_, harm)| harm)
    }

    async fn die<T>(&self) -> T {
        self.deaths.notify_one();
        pending().await
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What every call of the scheduler to a peer goes through: here one of them fails, or has its caller killed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;
use tonic::{Response, Status};

pub type Answer<T> = Result<Response<T>, Status>;

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
    /// Its caller is killed, and it takes effect only after the next call of whoever follows.
    LandsLate,
}

/// The gate, and the list of who went through.
#[derive(Default)]
pub struct Gate {
    inside: Mutex<Inside>,
    /// Told when the process that made a call is to be killed.
    pub deaths: Notify,
    late: TaskTracker,
}

#[derive(Default)]
struct Inside {
    harm: Option<(usize, Harm)>,
    calls: Vec<&'static str>,
    /// Tells a call that is late to take effect.
    lands: Option<oneshot::Sender<()>>,
}

impl Gate {
    /// Harms the call that comes after `number` others.
    pub fn harming(number: usize, harm: Harm) -> Self {
        Self { inside: Mutex::new(Inside { harm: Some((number, harm)), ..Inside::default() }), ..Self::default() }
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<&'static str> {
        self.inside().calls.clone()
    }

    /// Lets a call through, or not.
    pub async fn pass<T: Send + 'static>(
        &self,
        call: &'static str,
        effect: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let harm = {
            let mut inside = self.inside();
            let number = inside.calls.len();
            inside.calls.push(call);
            inside.harm.filter(|(harmed, _)| *harmed == number)
        };
        match harm.map(|(_, harm)| harm) {
            None => {
                let answer = effect.await;
                if let Some(lands) = self.inside().lands.take() {
                    let _ = lands.send(());
                }
                answer
            }
            Some(Harm::FailsBefore) => Err(Status::unavailable("told to fail")),
            Some(Harm::FailsAfter) => {
                effect.await?;
                Err(Status::unavailable("the answer was lost"))
            }
            Some(Harm::DiesBefore) => self.die().await,
            Some(Harm::DiesAfter) => {
                effect.await?;
                self.die().await
            }
            Some(Harm::LandsLate) => {
                let (lands, landing) = oneshot::channel();
                self.inside().lands = Some(lands);
                // Whoever made the call is gone by then, and with it what waits for the answer.
                self.late.spawn(async move {
                    if landing.await.is_ok() {
                        let _ = effect.await;
                    }
                });
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.deaths.notify_one();
        std::future::pending().await
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

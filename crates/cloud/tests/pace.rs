//! Requests as a provider counts them, and callers that keep to what they are told. Time is moved on while nothing is
//! asked, for the client and for the count alike.

use std::time::Duration;

use futures::future::join_all;
use stagely_cloud::{ErrorKind, Result};
use stagely_domain::id::MachineId;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Between two looks at what goes on.
const LOOK: Duration = Duration::from_secs(5);

/// Requests that come back one by one.
pub struct Bucket {
    size: f64,
    per_second: f64,
    left: f64,
    counted_at: Instant,
}

impl Bucket {
    pub fn full(size: f64, per_second: f64) -> Self {
        Self { size, per_second, left: size, counted_at: Instant::now() }
    }

    /// Takes a request; false when there is none left.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + (now - self.counted_at).as_secs_f64() * self.per_second).min(self.size);
        self.counted_at = now;
        let some = self.left >= 1.0;
        self.left -= f64::from(u8::from(some));
        some
    }
}

/// Only one may stop the time.
static STOPPED: Mutex<()> = Mutex::const_new(());

/// Moves the time on, for whoever lives in this process.
pub async fn pass(wait: Duration) {
    let _stopped = STOPPED.lock().await;
    tokio::time::pause();
    tokio::time::advance(wait).await;
    tokio::time::resume();
}

/// Lives a story that waits within its calls, in a fifth of the time.
pub async fn hurried<T>(story: impl Future<Output = T>) -> T {
    let hurry = async {
        loop {
            pass(Duration::from_millis(40)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        told = story => told,
        never = hurry => never,
    }
}

/// Calls for each machine as often as it takes, and waits as long as it is told to. `passed` is told of each wait.
pub async fn each(machines: &[MachineId], passed: impl Fn(), call: impl AsyncFn(MachineId) -> Result<bool>) {
    let mut pending = machines.to_vec();
    while !pending.is_empty() {
        let outcomes = join_all(pending.iter().map(|machine| call(*machine))).await;
        let (mut wait, mut outcomes) = (Duration::ZERO, outcomes.into_iter());
        pending.retain(|_| match outcomes.next() {
            Some(Ok(done)) => {
                wait = wait.max(if done { Duration::ZERO } else { LOOK });
                !done
            }
            Some(Err(error)) => {
                let ErrorKind::RateLimited { retry_after: Some(told) } = error.kind else { panic!("{error}") };
                wait = wait.max(told);
                true
            }
            None => false,
        });
        pass(wait).await;
        passed();
    }
}

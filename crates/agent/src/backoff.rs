//! How long to wait before the next connection, so that a fleet that lost its hub does not come back as one.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Waits grow as windows `unit << min(n, 5)`. Within each window the connection is tried at a uniformly random
/// moment, and the rest of the window is waited out before the next one starts, so that tries of many agents
/// stay spread.
#[derive(Debug)]
pub struct Backoff {
    unit: Duration,
    tries: u32,
    rest: Duration,
}

impl Backoff {
    /// Windows that start with `unit`.
    #[must_use]
    pub fn new(unit: Duration) -> Self {
        Self { unit, tries: 0, rest: Duration::ZERO }
    }

    /// The connection was good: start over.
    pub fn reset(&mut self) {
        self.tries = 0;
        self.rest = Duration::ZERO;
    }

    /// Skips the short windows: for causes that do not go away in a second.
    pub fn slow_down(&mut self) {
        self.tries = self.tries.max(3);
    }

    /// How long to wait now.
    pub fn pause(&mut self) -> Duration {
        let window = self.unit * (1 << self.tries.min(5));
        self.tries = self.tries.saturating_add(1);
        let offset = window.mul_f64(fraction());
        let wait = self.rest + offset;
        self.rest = window - offset;
        wait
    }
}

/// A random number in 0..1.
#[must_use]
pub fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the middle is as good as any.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn the_first_try_is_within_a_second_and_windows_are_waited_out() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let mut total = Duration::ZERO;
        let mut windows = Duration::ZERO;
        for tries in 0_u32..12 {
            let start = windows;
            total += backoff.pause();
            windows += Duration::from_secs(1 << tries.min(5));
            assert!(total >= start && total <= windows, "{tries}: {total:?}");
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_secs(1));
    }
}

//! The points at which a process may die.

use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::testing::Chance;

/// Shared by everything outside a process that it calls: at any point the call may never return. Whoever plays the
/// process waits for [`Self::death`] beside its work, and drops the work where it stands.
pub struct Doom {
    inside: Mutex<Inside>,
    deaths: Notify,
}

struct Inside {
    chance: Chance,
    per_mille: u32,
    at: Option<u64>,
    passed: u64,
}

impl Doom {
    /// Nothing dies yet.
    #[must_use]
    pub fn new(chance: Chance) -> Self {
        let inside = Inside { chance, per_mille: 0, at: None, passed: 0 };
        Self { inside: Mutex::new(inside), deaths: Notify::new() }
    }

    /// From now on every point is the last so often in a thousand times.
    pub fn set_odds(&self, per_mille: u32) {
        self.inside().per_mille = per_mille;
    }

    /// Exactly the point after `passed` others is the last of its process.
    pub fn strike_after(&self, passed: u64) {
        let mut inside = self.inside();
        inside.at = Some(inside.passed + passed);
    }

    /// Nothing dies any more.
    pub fn spare(&self) {
        let mut inside = self.inside();
        (inside.per_mille, inside.at) = (0, None);
    }

    /// How many points were passed.
    pub fn passed(&self) -> u64 {
        self.inside().passed
    }

    /// Goes on, or never does.
    pub async fn point(&self) {
        let strikes = {
            let mut inside = self.inside();
            let (odds, number) = (inside.per_mille, inside.passed);
            inside.passed += 1;
            inside.at.take_if(|at| *at == number).is_some() || inside.chance.happens(odds)
        };
        if strikes {
            self.deaths.notify_one();
            pending::<()>().await;
        }
    }

    /// Returns when a process is to die.
    pub async fn death(&self) {
        self.deaths.notified().await;
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

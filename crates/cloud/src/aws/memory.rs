//! What this process knows better than the provider's lists, which lag: machines that it has just placed, and ids that
//! were looked for in vain.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::aws::tags::Tags;

/// So long a machine that was placed is believed although nothing shows it.
const YOUTH: Duration = Duration::from_secs(300);
/// So long a look in vain is remembered.
const MEMORY: Duration = Duration::from_secs(3600);

pub(super) struct Memory {
    settle: Duration,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    placed: HashMap<String, (Tags, Instant)>,
    missed: HashMap<String, Instant>,
}

impl Memory {
    /// What is missed twice with `settle` in between is gone.
    pub(super) fn new(settle: Duration) -> Self {
        Self { settle, inside: Mutex::default() }
    }

    /// It was placed just now.
    pub(super) fn placed(&self, id: &str, tags: &Tags) {
        self.inside().placed.insert(id.to_owned(), (tags.clone(), Instant::now()));
    }

    /// Those that were placed a short while ago and fit.
    pub(super) fn young(&self, fits: impl Fn(&Tags) -> bool) -> Vec<(String, Tags)> {
        let mut inside = self.inside();
        inside.placed.retain(|_, (_, at)| at.elapsed() < YOUTH);
        let fitting = inside.placed.iter().filter(|(_, (tags, _))| fits(tags));
        fitting.map(|(id, (tags, _))| (id.clone(), tags.clone())).collect()
    }

    pub(super) fn is_young(&self, id: &str) -> bool {
        self.inside().placed.get(id).is_some_and(|(_, at)| at.elapsed() < YOUTH)
    }

    /// It was shown: only that it is not shown again would be news.
    pub(super) fn seen(&self, id: &str) {
        self.inside().missed.remove(id);
    }

    /// It was shown to have ended.
    pub(super) fn ended(&self, id: &str) {
        let mut inside = self.inside();
        inside.placed.remove(id);
        inside.missed.remove(id);
    }

    /// Nothing shows it. True when that may be believed.
    pub(super) fn missed(&self, id: &str) -> bool {
        let mut inside = self.inside();
        inside.missed.retain(|_, at| at.elapsed() < MEMORY);
        let first = *inside.missed.entry(id.to_owned()).or_insert_with(Instant::now);
        let believed = first.elapsed() >= self.settle;
        if believed {
            inside.placed.remove(id);
        }
        believed
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::InstallationId;

    use super::{MEMORY, Memory, YOUTH};
    use crate::aws::tags::Tags;
    use crate::contract::request;

    #[tokio::test(start_paused = true)]
    async fn one_look_in_vain_proves_nothing_and_a_look_between_begins_anew() {
        let memory = Memory::new(Duration::from_secs(60));
        assert!(!memory.missed("i-1"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!memory.missed("i-1"));
        memory.seen("i-1");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!memory.missed("i-1"));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(memory.missed("i-1") && memory.missed("i-1"));
        tokio::time::advance(MEMORY).await;
        assert!(!memory.missed("i-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_young_for_some_minutes_or_until_it_ends() {
        let (memory, tags) = (Memory::new(YOUTH), Tags::of(&request(InstallationId::generate(), &SystemClock)));
        memory.placed("i-1", &tags);
        memory.placed("i-2", &tags);
        memory.ended("i-2");
        assert_eq!(memory.young(|_| true), [("i-1".to_owned(), tags)]);
        assert!(memory.is_young("i-1") && memory.young(|_| false).is_empty());
        tokio::time::advance(YOUTH).await;
        assert!(!memory.is_young("i-1") && memory.young(|_| true).is_empty());
    }
}

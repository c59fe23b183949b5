//! The latest observed state on its way to the hub. Only the newest counts: facts replace each other, so there
//! is no queue, and a reconnect sends the newest again unless the hub has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stagely_proto::agent::Observed;
use tokio::sync::Notify;

/// Holds the newest state. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    seq: u64,
    current: Option<Observed>,
    sent: bool,
    acked: u64,
}

impl Outbox {
    /// Sequence numbers start after those of `starts` earlier runs of the agent.
    #[must_use]
    pub fn new(starts: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State { seq: starts << 32, current: None, sent: true, acked: 0 }),
            changed: Notify::new(),
        }))
    }

    /// Replaces the state; one that says the same is not sent again.
    pub fn publish(&self, observed: Observed) {
        let mut state = self.state();
        if state.current.as_ref() == Some(&observed) {
            return;
        }
        state.seq += 1;
        state.current = Some(observed);
        state.sent = false;
        drop(state);
        self.0.changed.notify_one();
    }

    /// Sends the newest state again even though the hub has it: it asked by repeating its wish.
    pub fn repeat(&self) {
        let mut state = self.state();
        state.sent = state.current.is_none();
        drop(state);
        self.0.changed.notify_one();
    }

    /// A new connection: what is not known to be stored is sent again.
    pub fn resume(&self, acked: u64) {
        let mut state = self.state();
        state.acked = state.acked.max(acked);
        state.sent = state.current.is_none() || state.acked >= state.seq;
        drop(state);
        self.0.changed.notify_one();
    }

    /// The hub has stored everything up to `seq`.
    pub fn acknowledge(&self, seq: u64) {
        let mut state = self.state();
        state.acked = state.acked.max(seq);
    }

    /// The state to send now.
    #[must_use]
    pub fn take_unsent(&self) -> Option<(u64, Observed)> {
        let mut state = self.state();
        if state.sent {
            return None;
        }
        state.sent = true;
        let seq = state.seq;
        state.current.clone().map(|observed| (seq, observed))
    }

    /// The newest state.
    #[must_use]
    pub fn current(&self) -> Option<Observed> {
        self.state().current.clone()
    }

    /// Waits for news. May wake for nothing.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use stagely_proto::agent::Observed;

    use super::Outbox;

    fn at(generation: u64) -> Observed {
        Observed { generation, ..Observed::default() }
    }

    #[test]
    fn only_the_newest_state_is_sent_and_again_until_stored() {
        let outbox = Outbox::new(0);
        outbox.publish(at(1));
        outbox.publish(at(2));
        assert_eq!(outbox.take_unsent(), Some((2, at(2))));
        assert_eq!(outbox.take_unsent(), None);
        outbox.resume(1);
        assert_eq!(outbox.take_unsent(), Some((2, at(2))));
        outbox.acknowledge(2);
        outbox.resume(0);
        assert_eq!(outbox.take_unsent(), None);
    }

    #[test]
    fn numbers_grow_over_restarts() {
        let outbox = Outbox::new(3);
        outbox.publish(at(1));
        assert_eq!(outbox.take_unsent().unwrap().0, (3 << 32) + 1);
    }
}

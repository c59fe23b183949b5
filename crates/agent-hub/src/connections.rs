//! The connections of this replica: which machine, which epoch, what it was told last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stagely_domain::id::MachineId;
use stagely_proto::agent;
use stagely_store::agents::AgentWatch;
use tokio::sync::mpsc;

/// Commands that may wait for one connection. Wishes replace each other, so few are ever needed.
const QUEUE: usize = 8;

/// What a connection is told to do.
pub enum Command {
    /// Send a wish.
    Wish(Box<agent::Desired>),
    /// Say goodbye and end.
    Close(Goodbye),
}

/// Why a connection ends, as the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goodbye {
    /// 4400: the agent broke the protocol.
    Protocol(&'static str),
    /// 4401: the credential is refused.
    Refused,
    /// 4409: a newer connection of the same machine exists.
    Replaced,
    /// 4410: the machine is not wanted: power off.
    Unwanted,
    /// 1012: this replica stops; come back after so many seconds.
    Restart(u32),
    /// 1013: too busy, or the database is away; come back after so many seconds.
    Busy(u32),
}

/// One live connection, seen from outside it.
pub struct Connection {
    /// Its number.
    pub conn_epoch: u64,
    generation: AtomicU64,
    heard: AtomicBool,
    commands: mpsc::Sender<Command>,
}

impl Connection {
    /// Notes that something came from the agent.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Hands a command over; `false` when the connection is too slow to take any more, or over.
    pub fn tell(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// Notes which wish is on its way.
    pub fn told(&self, generation: u64) {
        self.generation.fetch_max(generation, Ordering::AcqRel);
    }
}

/// All of them.
#[derive(Default)]
pub struct Connections(Mutex<HashMap<MachineId, Arc<Connection>>>);

impl Connections {
    /// Enters an accepted connection. An older one of the machine is told to end; of two, the higher epoch
    /// stays, whatever the order in which they get here.
    pub fn enter(&self, machine: MachineId, conn_epoch: u64) -> Option<(Arc<Connection>, mpsc::Receiver<Command>)> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let connection =
            Arc::new(Connection { conn_epoch, generation: AtomicU64::new(0), heard: AtomicBool::new(false), commands });
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = connections.get(&machine) {
            if other.conn_epoch > conn_epoch {
                return None;
            }
            other.tell(Command::Close(Goodbye::Replaced));
        }
        connections.insert(machine, Arc::clone(&connection));
        Some((connection, receiver))
    }

    /// Removes a connection, unless a newer one has taken its place.
    pub fn leave(&self, machine: MachineId, conn_epoch: u64) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.get(&machine).is_some_and(|connection| connection.conn_epoch == conn_epoch) {
            connections.remove(&machine);
        }
    }

    /// The connection of a machine, if it is here.
    #[must_use]
    pub fn find(&self, machine: MachineId) -> Option<Arc<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&machine).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Every connection, with what it was told last.
    #[must_use]
    pub fn watches(&self) -> Vec<AgentWatch> {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections
            .iter()
            .map(|(machine, connection)| AgentWatch {
                machine: *machine,
                conn_epoch: connection.conn_epoch,
                generation: connection.generation.load(Ordering::Acquire),
            })
            .collect()
    }

    /// Those that were heard of since this was asked last.
    #[must_use]
    pub fn take_heard(&self) -> Vec<(MachineId, u64)> {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections
            .iter()
            .filter(|(_, connection)| connection.heard.swap(false, Ordering::Relaxed))
            .map(|(machine, connection)| (*machine, connection.conn_epoch))
            .collect()
    }

    /// Everyone, for the drain.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

//! What every connection, request and loop of one replica shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stagely_domain::clock::Clock;
use stagely_domain::id::{MachineId, TeamId};
use stagely_domain::mask::Patterns;
use stagely_proto::agent;
use stagely_store::Store;
use stagely_store::agents::SealedWish;
use stagely_store::seal::{KeyRing, Place};
use tokio::sync::{Notify, Semaphore};

use crate::ca::Ca;
use crate::config::Config;
use crate::connections::Connections;
use crate::credential::Signer;
use crate::error::HubError;

/// Agents that may prove themselves at once; more are asked to come back.
const HANDSHAKES: usize = 512;

/// Log transactions at once, so that logs never take the whole pool.
const LOG_WRITES: usize = 6;

/// Counters of this replica since its start.
#[derive(Default)]
pub struct Counters {
    /// Enrolments that won.
    pub enrolments: AtomicU64,
    /// Bytes of logs stored.
    pub log_bytes: AtomicU64,
}

impl Counters {
    /// Reads a counter.
    #[must_use]
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// One replica's state. Everything in it can be lost.
pub struct Hub {
    /// This replica, in `agent_connections.hub_id`; new at each start.
    pub id: String,
    /// Settings.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// Opens and seals wishes, derives enrolment tokens.
    pub keyring: KeyRing,
    /// Signs certificates.
    pub ca: Ca,
    /// Signs credentials.
    pub signer: Signer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Agents connected here.
    pub connections: Connections,
    /// Makes the look for changes happen now.
    pub changed: Notify,
    /// Says that a log has grown.
    pub logged: Notify,
    /// Slots for handshakes.
    pub handshakes: Arc<Semaphore>,
    /// Slots for writing logs.
    pub log_writes: Semaphore,
    /// Numbers.
    pub counters: Counters,
}

impl Hub {
    /// A replica without connections.
    #[must_use]
    pub fn new(config: Config, store: Store, keyring: KeyRing, ca: Ca, signer: Signer, clock: Arc<dyn Clock>) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            config,
            store,
            keyring,
            ca,
            signer,
            clock,
            connections: Connections::default(),
            changed: Notify::new(),
            logged: Notify::new(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            log_writes: Semaphore::new(LOG_WRITES),
            counters: Counters::default(),
        }
    }

    /// Seals a wish for its row.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn seal_wish(&self, machine: MachineId, team: TeamId, wish: &agent::Desired) -> Result<SealedWish, HubError> {
        let plain = prost::Message::encode_to_vec(wish);
        let sealed = self.keyring.seal(&wish_place(machine, team), &plain)?;
        Ok(SealedWish { generation: wish.generation, sealed })
    }

    /// The machine's wish in plain, if it has one.
    ///
    /// # Errors
    /// The store's error, or when what is stored cannot be opened.
    pub async fn load_wish(&self, machine: MachineId) -> Result<Option<agent::Desired>, HubError> {
        let Some((team, wish)) = self.store.find_wish(machine).await? else { return Ok(None) };
        let plain = self.keyring.open(&wish_place(machine, team), &wish.sealed)?;
        prost::Message::decode(plain.as_slice()).map(Some).map_err(HubError::Wish)
    }
}

fn wish_place(machine: MachineId, team: TeamId) -> Place<'static> {
    Place { table: "agent_connections", column: "desired_sealed", row: machine.uuid(), team: Some(team), detail: "" }
}

/// The texts of a wish that must not show up in what comes back.
#[must_use]
pub fn patterns(wish: &agent::Desired) -> Patterns {
    use agent::desired::Spec;
    let mut secrets: Vec<&str> = Vec::new();
    match &wish.spec {
        Some(Spec::Preview(preview)) => {
            secrets.extend(preview.masked.iter().map(String::as_str));
            secrets.extend(preview.checkout.iter().map(|checkout| checkout.token.as_str()));
            secrets.extend(preview.registry.iter().map(|registry| registry.password.as_str()));
        }
        Some(Spec::Builder(builder)) => {
            secrets.extend(builder.registry.iter().map(|registry| registry.password.as_str()));
            for build in &builder.builds {
                secrets.extend(build.checkout.iter().map(|checkout| checkout.token.as_str()));
                secrets.extend(build.secrets.values().map(String::as_str));
            }
        }
        None => {}
    }
    Patterns::new(secrets).unwrap_or_else(|| {
        tracing::error!("the secrets of a wish are too large to be hidden in logs by the hub");
        Patterns::default()
    })
}

//! The only crate that speaks Redis. Everything in it is a copy or a hint: it can be flushed at any moment, and
//! whoever owns the truth writes it again.
//!
//! Routes are one hash (`routes`: host → entry) and one stream of changes (`route-feed`). A write is a
//! compare-and-set on the entry's version inside Redis, so an old replica can never put an old target back. A
//! reader takes the end of the stream first, then the hash, then follows the stream: nothing falls in between. Where
//! Redis was lost and another stream begun, it begins with the hash again.
//! (Client-side caching by invalidation would need a second read for each change, and loses them silently when a
//! connection drops; a stream has a position to go on from.)

mod activity;
mod routes;

pub use routes::{RouteChange, RouteFeed};

use std::time::Duration;

use fred::prelude::{Builder, Client, ClientLike, Config, ReconnectPolicy, TcpConfig};

/// A failed call. The caller carries on without: nothing here is the truth.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct CacheError {
    /// What was being done.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, CacheError>;

/// The connection. Cheap to clone; reconnects for ever by itself.
#[derive(Clone)]
pub struct Cache {
    client: Client,
    // Reads that wait in Redis need a connection that nobody else waits behind, and more patience.
    waiting: Client,
    prefix: String,
}

/// How long a start waits for Redis.
const PATIENCE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long one waiting read waits; its connection's patience is longer.
const BLOCK: Duration = Duration::from_secs(2);

impl Cache {
    /// Connects. `prefix` stands before every key, so that installations and tests can share one Redis. Where nobody
    /// answers in five seconds, calls fail until somebody does.
    ///
    /// # Errors
    /// When the address is malformed.
    pub async fn connect(url: &str, prefix: &str) -> Result<Self> {
        let client = client(url, TIMEOUT)?;
        let waiting = client_for_waiting(url)?;
        let both = async { tokio::try_join!(client.init(), waiting.init()) };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(failed("connect to Redis", error)),
            Err(_) => tracing::warn!("Redis does not answer, going on without it until it does"),
        }
        Ok(Self { client, waiting, prefix: prefix.to_owned() })
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<()> {
        self.client.ping::<()>(None).await.map_err(|error| failed("ping Redis", error))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn client(url: &str, timeout: Duration) -> Result<Client> {
    let mut config = Config::from_url(url).map_err(|error| failed("read the address of Redis", error))?;
    // The first connection is tried for as long as any other.
    config.fail_fast = false;
    Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_secs(3);
            connection.internal_command_timeout = Duration::from_secs(3);
            // The defaults are unbounded: a Redis that is away must not fill the memory.
            connection.max_command_buffer_len = 10_000;
            connection.max_command_attempts = 2;
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2))
        .build()
        .map_err(|error| failed("set up the Redis client", error))
}

fn client_for_waiting(url: &str) -> Result<Client> {
    client(url, BLOCK + Duration::from_secs(3))
}

fn failed(doing: &'static str, error: fred::error::Error) -> CacheError {
    CacheError { doing, source: Box::new(error) }
}

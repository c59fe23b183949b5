//! The copy of the routes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fred::interfaces::{HashesInterface, KeysInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use fred::types::streams::XReadResponse;
use stagely_domain::route::Entry;
use tokio_util::sync::CancellationToken;

use crate::{BLOCK, Cache, CacheError, Result, failed};

const HASH: &str = "routes";
const FEED: &str = "route-feed";
const MARKER: &str = "routes:rebuilt";
/// When the feed was begun. Positions of another feed mean nothing in this one: a new feed's may be equal or lower,
/// where Redis' clock went back or both began in one millisecond.
const BEGUN: &str = "route-feed:begun";

/// KEYS hash, feed, its beginning; ARGV pairs of host and entry. Writes an entry unless a newer one is there.
const PUBLISH: &str = r"
local now = redis.call('TIME')
redis.call('SET', KEYS[3], now[1] .. '.' .. now[2], 'NX')
local written = 0
for i = 1, #ARGV, 2 do
  local new = cjson.decode(ARGV[i + 1])
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not old or cjson.decode(old).version < new.version then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', 20000, '*', 'entry', ARGV[i + 1])
    written = written + 1
  end
end
return written";

/// KEYS hash; ARGV version, hosts that are to stay. Forgets the others, unless they are newer than the version.
const PRUNE: &str = r"
local keep = {}
for i = 2, #ARGV do keep[ARGV[i]] = true end
local all = redis.call('HGETALL', KEYS[1])
local removed = 0
for i = 1, #all, 2 do
  if not keep[all[i]] and cjson.decode(all[i + 1]).version <= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], all[i])
    removed = removed + 1
  end
end
return removed";

impl Cache {
    /// Copies entries; the number of those that were news.
    ///
    /// # Errors
    /// When Redis does not answer. The caller tries again.
    pub async fn publish_routes(&self, entries: &[Entry]) -> Result<u64> {
        let mut written = 0;
        for batch in entries.chunks(500) {
            let mut arguments = Vec::with_capacity(batch.len() * 2);
            for entry in batch {
                arguments.push(entry.host.clone());
                arguments.push(encode(entry)?);
            }
            let keys = vec![self.key(HASH), self.key(FEED), self.key(BEGUN)];
            let news: u64 =
                self.client.eval(PUBLISH, keys, arguments).await.map_err(|error| failed("publish routes", error))?;
            written += news;
        }
        Ok(written)
    }

    /// Makes the copy whole again: `entries` are all that there are up to `version`. Hosts that are not among them
    /// are forgotten; a later entry of another replica stays.
    ///
    /// # Errors
    /// When Redis does not answer. The caller tries again.
    pub async fn rebuild_routes(&self, entries: &[Entry], version: u64) -> Result<u64> {
        let written = self.publish_routes(entries).await?;
        let mut arguments = vec![version.to_string()];
        arguments.extend(entries.iter().map(|entry| entry.host.clone()));
        let pruned = self.client.eval::<u64, _, _, _>(PRUNE, vec![self.key(HASH)], arguments).await;
        pruned.map_err(|error| failed("prune routes", error))?;
        let marked = self.client.set::<(), _, _>(self.key(MARKER), version, None, None, false).await;
        marked.map_err(|error| failed("mark the routes", error))?;
        Ok(written)
    }

    /// Up to which version the copy was last made whole; `None` after Redis lost it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn routes_marker(&self) -> Result<Option<u64>> {
        self.client.get(self.key(MARKER)).await.map_err(|error| failed("look at the routes' marker", error))
    }

    /// The entry of a host, for looking.
    ///
    /// # Errors
    /// When Redis does not answer or holds something else.
    pub async fn route(&self, host: &str) -> Result<Option<Entry>> {
        let text: Option<String> =
            self.client.hget(self.key(HASH), host).await.map_err(|error| failed("look at a route", error))?;
        text.as_deref().map(decode).transpose()
    }

    /// Loses everything under this prefix, as a flushed Redis would.
    ///
    /// # Errors
    /// When Redis does not answer.
    #[doc(hidden)]
    pub async fn lose_everything_for_tests(&self) -> Result<()> {
        let keys = vec![self.key(HASH), self.key(FEED), self.key(BEGUN), self.key(MARKER)];
        self.client.del::<(), _>(keys).await.map_err(|error| failed("lose the routes", error))
    }

    /// Follows the routes. The first change is a snapshot; so is every one after the connection or Redis' memory was
    /// lost. Ends with `shutdown`.
    #[must_use]
    pub fn subscribe_routes(&self, shutdown: CancellationToken) -> RouteFeed {
        RouteFeed { cache: self.clone(), shutdown, position: None, ready: VecDeque::new() }
    }

    async fn snapshot(&self) -> Result<(Vec<Entry>, Position)> {
        let doing = "read the routes";
        // The position first: what is written after it comes by the stream, whether or not the hash has it too.
        let feed = self.feed().await?;
        let last: Vec<(String, HashMap<String, String>)> = self
            .client
            .xrevrange_values(self.key(FEED), "+", "-", Some(1))
            .await
            .map_err(|error| failed(doing, error))?;
        let id = last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id);
        let all: HashMap<String, String> =
            self.client.hgetall(self.key(HASH)).await.map_err(|error| failed(doing, error))?;
        let entries = all.values().map(|text| decode(text)).collect::<Result<_>>()?;
        Ok((entries, Position { feed, id }))
    }

    /// Which feed there is: when it was begun, `None` before the first entry.
    async fn feed(&self) -> Result<Option<String>> {
        self.client.get(self.key(BEGUN)).await.map_err(|error| failed("look which feed of routes there is", error))
    }

    /// What came after a position; `None` when its feed is no more.
    async fn changes_after(&self, position: &Position) -> Result<Option<Vec<(String, Entry)>>> {
        let block = u64::try_from(BLOCK.as_millis()).unwrap_or(2000);
        let key = self.key(FEED);
        let doing = "follow the routes";
        let answer: Value = self
            .waiting
            .xread(Some(500), Some(block), key, position.id.as_str())
            .await
            .map_err(|error| failed(doing, error))?;
        if self.feed().await? != position.feed {
            return Ok(None);
        }
        // Nothing came while it waited.
        if answer.is_null() {
            return Ok(Some(Vec::new()));
        }
        let read: XReadResponse<String, String, String, String> =
            answer.into_xread_response().map_err(|error| failed(doing, error))?;
        let items = read.into_values().flatten();
        let changes = items.map(|(id, fields)| Ok((id, decode(fields.get("entry").map_or("", String::as_str))?)));
        changes.collect::<Result<_>>().map(Some)
    }
}

/// How far a reader has come in which feed.
struct Position {
    feed: Option<String>,
    id: String,
}

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteChange {
    /// All that there is. A reader keeps what it has of hosts that are missing: Redis may just have been flushed.
    Snapshot(Vec<Entry>),
    /// One entry; it may be older than one seen before.
    Entry(Entry),
}

/// The changes, in order.
pub struct RouteFeed {
    cache: Cache,
    shutdown: CancellationToken,
    position: Option<Position>,
    ready: VecDeque<Entry>,
}

impl RouteFeed {
    /// The next change; `None` after shutdown.
    pub async fn next(&mut self) -> Option<RouteChange> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            change = self.wait() => Some(change),
            () = shutdown.cancelled() => None,
        }
    }

    async fn wait(&mut self) -> RouteChange {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return RouteChange::Entry(entry);
            }
            let outcome = match &mut self.position {
                None => match self.cache.snapshot().await {
                    Ok((entries, position)) => {
                        self.position = Some(position);
                        return RouteChange::Snapshot(entries);
                    }
                    Err(error) => Err(error),
                },
                Some(position) => self.cache.changes_after(position).await.map(|changes| (changes, position)),
            };
            match outcome {
                Ok((Some(changes), position)) => {
                    for (id, entry) in changes {
                        position.id = id;
                        self.ready.push_back(entry);
                    }
                }
                Ok((None, _)) => self.position = None,
                Err(error) => {
                    tracing::warn!(error = %error.source, "cannot follow the routes, the known ones stay");
                    // The position may be of a Redis that is no more: begin with a snapshot.
                    self.position = None;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }
}

fn encode(entry: &Entry) -> Result<String> {
    serde_json::to_string(entry).map_err(|error| CacheError { doing: "write a route", source: Box::new(error) })
}

fn decode(text: &str) -> Result<Entry> {
    serde_json::from_str(text).map_err(|error| CacheError { doing: "read a route", source: Box::new(error) })
}

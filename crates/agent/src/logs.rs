//! Log streams on their way to the hub. Each stream is a sequence of bytes counted from its very first one; what
//! the hub has not stored yet is kept in memory, within bounds, and sent again after a reconnect. When the bound
//! is reached the oldest bytes are dropped and counted: the next chunk says how many are `lost`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stagely_domain::mask::Patterns;
use stagely_proto::agent::LogChunk;
use tokio::sync::Notify;

mod writer;

pub use writer::Writer;

/// The most bytes kept of one stream.
const STREAM_LIMIT: usize = 8 * 1024 * 1024;
/// The most bytes kept of all streams.
const TOTAL_LIMIT: usize = 32 * 1024 * 1024;
/// The largest chunk.
pub const CHUNK: usize = 32 * 1024;
/// The most bytes of one stream that may be under way.
const WINDOW: u64 = 256 * 1024;

/// All streams of this machine. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogBook(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    streams: HashMap<String, Stream>,
    /// The order in which streams take turns.
    turns: VecDeque<String>,
    total: usize,
    patterns: Patterns,
    masked: Vec<String>,
    patterns_version: u64,
    /// What the hub had stored of each stream when it last said so.
    stored: HashMap<String, u64>,
    greeted: bool,
}

/// Positions count from this process's first byte; `base` is what earlier processes wrote.
#[derive(Default)]
struct Stream {
    base: Option<u64>,
    /// Position of the first byte in `bytes`.
    start: u64,
    bytes: VecDeque<u8>,
    /// Position of the next byte to send.
    sent: u64,
    acked: u64,
}

impl Stream {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn sendable(&self) -> bool {
        self.base.is_some() && self.sent < self.end() && self.sent.saturating_sub(self.acked) < WINDOW
    }

    fn forget_before(&mut self, position: u64) -> usize {
        let count = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        self.start += count as u64;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(CHUNK);
        }
        count
    }

    fn acknowledge(&mut self, position: u64) -> usize {
        let position = position.min(self.end());
        self.acked = self.acked.max(position);
        self.sent = self.sent.max(self.acked);
        self.forget_before(self.acked)
    }
}

impl LogBook {
    /// Hides these texts, besides those hidden before, in everything written from now on.
    pub fn hide<'a>(&self, texts: impl IntoIterator<Item = &'a str>) {
        let mut state = self.state();
        let before = state.masked.len();
        for text in texts {
            if !text.is_empty() && !state.masked.iter().any(|known| known == text) {
                state.masked.push(text.to_owned());
            }
        }
        if state.masked.len() == before {
            return;
        }
        if let Some(patterns) = Patterns::new(state.masked.iter().map(String::as_str)) {
            state.patterns = patterns;
            state.patterns_version += 1;
        } else {
            tracing::error!("the texts to hide are too many to search for");
        }
    }

    /// `text` with what must be hidden replaced.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        self.patterns().1.mask(text)
    }

    /// Opens a stream for writing, or goes on with it.
    #[must_use]
    pub fn writer(&self, stream: &str) -> Writer {
        Writer::new(self.clone(), stream)
    }

    /// A new connection: the hub says where to go on.
    pub fn resume(&self, stored: &HashMap<String, u64>) {
        let mut state = self.state();
        state.stored.extend(stored.iter().map(|(k, v)| (k.clone(), *v)));
        state.greeted = true;
        let State { streams, stored, total, .. } = &mut *state;
        for (name, stream) in streams.iter_mut() {
            let at = stored.get(name).copied().unwrap_or(0);
            let base = *stream.base.get_or_insert(at);
            *total -= stream.acknowledge(at.saturating_sub(base));
            // What was under way on the old connection counts as not sent.
            stream.sent = stream.acked;
        }
        drop(state);
        self.0.ready.notify_one();
    }

    /// The hub has stored these streams up to these offsets.
    pub fn acknowledge(&self, offsets: &HashMap<String, u64>) {
        let mut state = self.state();
        for (name, offset) in offsets {
            state.stored.insert(name.clone(), *offset);
            if let Some(stream) = state.streams.get_mut(name) {
                let position = offset.saturating_sub(stream.base.unwrap_or(0));
                let freed = stream.acknowledge(position);
                state.total -= freed;
            }
        }
        drop(state);
        self.0.ready.notify_one();
    }

    /// Waits until something was written or room was made. May wake for nothing.
    pub async fn changed(&self) {
        self.0.ready.notified().await;
    }

    /// The next chunk to send, streams taking turns.
    #[must_use]
    pub fn next_chunk(&self) -> Option<LogChunk> {
        let mut state = self.state();
        let turn = (0..state.turns.len()).find(|at| {
            let name = &state.turns[*at];
            state.streams.get(name).is_some_and(Stream::sendable)
        })?;
        let name = state.turns.remove(turn)?;
        state.turns.push_back(name.clone());
        let stream = state.streams.get_mut(&name)?;
        let lost = stream.start.saturating_sub(stream.sent);
        let from = stream.sent.max(stream.start);
        let skip = usize::try_from(from - stream.start).ok()?;
        let mut content: Vec<u8> = stream.bytes.range(skip..).take(CHUNK).copied().collect();
        if skip + content.len() < stream.bytes.len() {
            cut_at_character(&mut content);
        }
        stream.sent = from + content.len() as u64;
        Some(LogChunk { stream: name, offset: stream.base.unwrap_or(0) + from, content, lost })
    }

    /// Whether everything written was stored by the hub.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.state().total == 0
    }

    fn patterns(&self) -> (u64, Patterns) {
        let state = self.state();
        (state.patterns_version, state.patterns.clone())
    }

    fn append(&self, name: &str, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let mut state = self.state();
        if !state.streams.contains_key(name) {
            let base = state.greeted.then(|| state.stored.get(name).copied().unwrap_or(0));
            let stream = Stream { base, ..Stream::default() };
            state.streams.insert(name.to_owned(), stream);
            state.turns.push_back(name.to_owned());
        }
        let State { streams, total, .. } = &mut *state;
        if let Some(stream) = streams.get_mut(name) {
            stream.bytes.extend(text);
            *total += text.len();
            if stream.bytes.len() > STREAM_LIMIT {
                let over = (stream.bytes.len() - STREAM_LIMIT) as u64;
                *total -= stream.drop_oldest(over);
            }
        }
        while *total > TOTAL_LIMIT {
            let Some(largest) = streams.values_mut().max_by_key(|s| s.bytes.len()) else {
                break;
            };
            *total -= largest.drop_oldest((*total - TOTAL_LIMIT) as u64);
        }
        drop(state);
        self.0.ready.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Drops at least `count` of the oldest bytes, and up to the next character's start.
    fn drop_oldest(&mut self, count: u64) -> usize {
        let mut freed = self.forget_before(self.start + count);
        while self.bytes.front().is_some_and(|byte| byte & 0xC0 == 0x80) {
            freed += self.forget_before(self.start + 1);
        }
        freed
    }
}

/// Shortens `content` so that it does not end within a character.
fn cut_at_character(content: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(content)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        content.truncate(error.valid_up_to());
    }
}

#[cfg(test)]
mod tests;

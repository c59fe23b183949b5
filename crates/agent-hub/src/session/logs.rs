//! Log chunks of a connection: what is ready is gathered, stored in one transaction and acknowledged.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use stagely_proto::agent::{self, agent_frame, hub_frame};
use stagely_store::{Outcome, Tx};

use super::{Session, Stream, put_off};
use crate::connections::Goodbye;
use crate::error::HubError;
use crate::intake::{self, Chunk, MAX_CHUNK_BYTES};
use crate::socket::{End, Socket};
use crate::stream_name::{self, StreamName};

/// Bytes gathered for one transaction at most.
const BATCH_BYTES: usize = 512 * 1024;

/// Streams that one machine may have.
const MAX_STREAMS: usize = 512;

impl Session {
    /// Stores a chunk and those that are ready behind it. Returns the frame that ended the gathering, if it was
    /// of another kind.
    pub(super) async fn take_logs(
        &mut self,
        socket: &mut Socket,
        first: agent::LogChunk,
    ) -> Result<Option<agent::AgentFrame>, End> {
        let mut bytes = first.content.len();
        let mut chunks = vec![checked(first)?];
        let mut other = None;
        while bytes < BATCH_BYTES && other.is_none() {
            let Some(frame) = socket.next_now()? else { break };
            match frame.body {
                Some(agent_frame::Body::Log(chunk)) => {
                    bytes += chunk.content.len();
                    chunks.push(checked(chunk)?);
                }
                _ => other = Some(frame),
            }
        }
        let offsets = self.store_logs(chunks).await?;
        socket.send(hub_frame::Body::LogAck(agent::LogAck { offsets })).await?;
        Ok(other)
    }

    async fn store_logs(&mut self, chunks: Vec<Chunk>) -> Result<HashMap<String, u64>, End> {
        let hub = std::sync::Arc::clone(&self.hub);
        let Ok(_slot) = hub.log_writes.acquire().await else { return Err(End::Gone) };
        match self.write(chunks).await {
            Ok(Some(offsets)) => Ok(offsets),
            Ok(None) => Err(self.outdated().await),
            Err(error) => Err(put_off(self.machine, error)),
        }
    }

    /// The streams' ends after the write; `None` when this connection may not write any more.
    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Option<HashMap<String, u64>>, HubError> {
        let tx = self.hub.store.begin().await?;
        if tx.hold_connection(self.machine, self.connection.conn_epoch).await? == Outcome::Stale {
            return Ok(None);
        }
        let (mut offsets, mut stored) = (HashMap::new(), 0);
        for (name, chunks) in intake::by_stream(chunks) {
            self.ensure_stream(&tx, &name).await?;
            match self.streams.get_mut(&name) {
                Some(Stream::Open { id, end }) => {
                    let append = intake::append(*end, &chunks, &self.patterns);
                    if append.to > append.from
                        && tx.append_log(*id, append.from, &append.rows, append.to).await? == Outcome::Stale
                    {
                        return Ok(None);
                    }
                    stored += append.rows.iter().map(|row| row.content.len()).sum::<usize>();
                    offsets.insert(name, append.to);
                }
                Some(Stream::Foreign { end }) => {
                    offsets.insert(name, intake::append(*end, &chunks, &self.patterns).to);
                }
                None => {}
            }
        }
        tx.commit().await?;
        // Only now: a rolled back transaction must leave no trace here.
        for (name, reached) in &offsets {
            match self.streams.get_mut(name) {
                Some(Stream::Open { end, .. } | Stream::Foreign { end }) => *end = *reached,
                None => {}
            }
        }
        self.hub.counters.log_bytes.fetch_add(u64::try_from(stored).unwrap_or(0), Ordering::Relaxed);
        self.hub.logged.notify_one();
        Ok(Some(offsets))
    }

    async fn ensure_stream(&mut self, tx: &Tx, name: &str) -> Result<(), HubError> {
        if self.streams.contains_key(name) {
            return Ok(());
        }
        let build = match stream_name::parse(name) {
            Some(StreamName::Build(job)) => Some(job),
            _ => None,
        };
        let (found, why_not) = match self.streams.len() {
            MAX_STREAMS.. => (None, "it has too many logs"),
            _ => (tx.ensure_log_stream(self.machine, name, build).await?, "its job is not one of this machine"),
        };
        let stream =
            found.map_or(Stream::Foreign { end: 0 }, |stream| Stream::Open { id: stream.id, end: stream.next_offset });
        if matches!(stream, Stream::Foreign { .. }) {
            let machine = self.machine;
            tracing::warn!(machine.id = %machine, "a log of {machine} is not kept: {why_not}");
        }
        self.streams.insert(name.to_owned(), stream);
        Ok(())
    }
}

fn checked(chunk: agent::LogChunk) -> Result<Chunk, End> {
    if chunk.content.len() > MAX_CHUNK_BYTES {
        return Err(End::Say(Goodbye::Protocol("a log chunk is longer than 64 KiB")));
    }
    if chunk.offset > u64::MAX / 4 {
        return Err(End::Say(Goodbye::Protocol("a log offset is absurd")));
    }
    if stream_name::parse(&chunk.stream).is_none() {
        return Err(End::Say(Goodbye::Protocol("unknown log stream name")));
    }
    Ok(Chunk { stream: chunk.stream, offset: chunk.offset, content: chunk.content })
}

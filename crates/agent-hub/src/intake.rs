//! From the chunks of one connection to rows: what was stored before is skipped, a hole is noted, and a stream
//! that has grown too long is cut off with one line that says so. No I/O here.

use std::collections::HashMap;

use stagely_domain::mask::Patterns;
use stagely_store::LogRow;

/// The longest stream, in bytes. What comes after it is acknowledged and thrown away.
pub const MAX_STREAM_BYTES: u64 = 16 * 1024 * 1024;

/// The longest chunk, in bytes. Agents keep to 32 KiB; twice that still passes.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// The longest row, in bytes before masking: chunks that come together are stored together up to this.
const MAX_ROW_BYTES: usize = 64 * 1024;

/// What the last row of a stream says that was too long.
pub const LIMIT_LINE: &str = "\n[log limit reached: the rest of this log is not kept]\n";

/// A chunk, as it came.
pub struct Chunk {
    /// The stream's name.
    pub stream: String,
    /// Offset of its first byte.
    pub offset: u64,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// What is to be stored of one stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Append {
    /// Where the stream ends before.
    pub from: u64,
    /// The rows.
    pub rows: Vec<LogRow>,
    /// Where it ends after.
    pub to: u64,
}

/// The chunks by stream, in the order in which each stream first occurs.
#[must_use]
pub fn by_stream(chunks: Vec<Chunk>) -> Vec<(String, Vec<Chunk>)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut streams: Vec<(String, Vec<Chunk>)> = Vec::new();
    for chunk in chunks {
        let place = *places.entry(chunk.stream.clone()).or_insert_with(|| {
            streams.push((chunk.stream.clone(), Vec::new()));
            streams.len() - 1
        });
        streams[place].1.push(chunk);
    }
    streams
}

/// What to store of `chunks` in a stream that ends at `end`.
#[must_use]
pub fn append(end: u64, chunks: &[Chunk], patterns: &Patterns) -> Append {
    let mut next = end;
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in chunks {
        let Some(fresh) = fresh(next, chunk) else { continue };
        let lost = fresh.offset - next;
        next = fresh.offset + length(fresh.bytes);
        match pieces.last_mut() {
            Some(last) if lost == 0 && last.bytes.len() + fresh.bytes.len() <= MAX_ROW_BYTES => {
                last.bytes.extend_from_slice(fresh.bytes);
            }
            _ => pieces.push(Piece { offset: fresh.offset, lost, bytes: fresh.bytes.to_vec() }),
        }
    }
    Append { from: end, rows: rows(end, next, pieces, patterns), to: next }
}

struct Piece {
    offset: u64,
    lost: u64,
    bytes: Vec<u8>,
}

struct Fresh<'a> {
    offset: u64,
    bytes: &'a [u8],
}

/// The part of a chunk that lies at `next` or after it.
fn fresh(next: u64, chunk: &Chunk) -> Option<Fresh<'_>> {
    let known = usize::try_from(next.saturating_sub(chunk.offset)).ok()?;
    let bytes = chunk.content.get(known..).filter(|bytes| !bytes.is_empty())?;
    Some(Fresh { offset: chunk.offset.max(next), bytes })
}

fn rows(end: u64, next: u64, pieces: Vec<Piece>, patterns: &Patterns) -> Vec<LogRow> {
    let mut rows = Vec::new();
    for mut piece in pieces {
        if piece.offset >= MAX_STREAM_BYTES {
            continue;
        }
        let room = usize::try_from(MAX_STREAM_BYTES - piece.offset).unwrap_or(usize::MAX);
        piece.bytes.truncate(room);
        let text = patterns.mask(&String::from_utf8_lossy(&piece.bytes)).replace('\0', "");
        rows.push(LogRow { offset: piece.offset, content: text, lost_bytes: piece.lost });
    }
    if end < MAX_STREAM_BYTES && next >= MAX_STREAM_BYTES {
        rows.push(LogRow { offset: MAX_STREAM_BYTES, content: LIMIT_LINE.to_owned(), lost_bytes: 0 });
    }
    rows
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Append, Chunk, LIMIT_LINE, MAX_STREAM_BYTES, append};
    use stagely_domain::mask::Patterns;

    fn chunk(offset: u64, content: &[u8]) -> Chunk {
        Chunk { stream: "compose".to_owned(), offset, content: content.to_vec() }
    }

    fn texts(append: &Append) -> Vec<(u64, &str, u64)> {
        append.rows.iter().map(|row| (row.offset, row.content.as_str(), row.lost_bytes)).collect()
    }

    #[test]
    fn what_comes_twice_is_stored_once_and_an_overlap_is_cut() {
        let stored =
            append(4, &[chunk(0, b"abcd"), chunk(2, b"cdef"), chunk(6, b"gh"), chunk(4, b"ef")], &Patterns::default());
        assert_eq!((stored.from, stored.to), (4, 8));
        assert_eq!(texts(&stored), [(4, "efgh", 0)]);
    }

    #[test]
    fn a_hole_is_noted_with_its_size() {
        let stored = append(0, &[chunk(0, b"ab"), chunk(10, b"cd")], &Patterns::default());
        assert_eq!(stored.to, 12);
        assert_eq!(texts(&stored), [(0, "ab", 0), (10, "cd", 8)]);
    }

    #[test]
    fn bad_utf_8_nul_and_secrets_are_repaired_removed_and_hidden() {
        let secret = Patterns::new(["hunter2hunter2"]).unwrap();
        let stored = append(0, &[chunk(0, b"a\0\xffb hunter2"), chunk(12, b"hunter2 c")], &secret);
        assert_eq!(texts(&stored), [(0, "a\u{fffd}b ***REDACTED*** c", 0)]);
        assert_eq!(stored.to, 21);
    }

    #[test]
    fn a_stream_that_is_too_long_ends_with_one_line_that_says_so() {
        let near = MAX_STREAM_BYTES - 2;
        let stored = append(near, &[chunk(near, b"abcd")], &Patterns::default());
        assert_eq!(texts(&stored), [(near, "ab", 0), (MAX_STREAM_BYTES, LIMIT_LINE, 0)]);
        let later = append(stored.to, &[chunk(stored.to, b"efgh")], &Patterns::default());
        assert!(later.rows.is_empty());
        assert_eq!(later.to, stored.to + 4);
    }

    #[test]
    fn absurd_offsets_do_not_overflow() {
        let stored = append(0, &[chunk(u64::MAX / 2, b"x")], &Patterns::default());
        assert_eq!(texts(&stored), [(MAX_STREAM_BYTES, LIMIT_LINE, 0)]);
    }
}

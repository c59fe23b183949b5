//! Hides secrets in streams of text. A [`Patterns`] is built once from the texts to hide and the shapes in which
//! programs tend to print them (base64 at each alignment, hex, percent-encoding, JSON escapes, single lines of
//! a longer text); a [`Masker`] is the state of one stream, so a secret cut by a chunk's border is still found.
//!
//! This stops accidents, not intent: a program that reverses a secret before printing it is not stopped.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

/// What a hidden text becomes.
pub const REPLACEMENT: &str = "***REDACTED***";

/// Texts shorter than this many bytes are not hidden: they occur by chance and would ruin the log.
pub const SHORTEST: usize = 6;

/// The texts to look for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Patterns(Option<Arc<Compiled>>);

struct Compiled {
    search: AhoCorasick,
    /// Sorted, without repeats.
    needles: Vec<Vec<u8>>,
    longest: usize,
    /// Which bytes start a needle.
    starts: [bool; 256],
}

impl Patterns {
    /// Patterns that hide each of `secrets` in all its shapes. A set too large to compile (hundreds of
    /// megabytes) cannot come from a stored project, so failing to build hides nothing but is not silent: `None`.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut needles = BTreeSet::new();
        for secret in secrets {
            add_shapes(secret, &mut needles);
        }
        if needles.is_empty() {
            return Some(Self(None));
        }
        let needles: Vec<Vec<u8>> = needles.into_iter().collect();
        let search = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&needles).ok()?;
        let mut starts = [false; 256];
        for needle in &needles {
            starts[usize::from(needle[0])] = true;
        }
        let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
        Some(Self(Some(Arc::new(Compiled { search, needles, longest, starts }))))
    }

    /// `text` with every secret hidden, for text that is whole.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        let mut masker = Masker::new(self.clone());
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The state of one stream.
pub struct Masker {
    patterns: Patterns,
    /// Bytes that may be the beginning of a secret.
    carry: Vec<u8>,
    /// How many bytes at the start of `carry` are hidden already.
    covered: usize,
}

impl Masker {
    /// The start of a stream.
    #[must_use]
    pub fn new(patterns: Patterns) -> Self {
        Self { patterns, carry: Vec::new(), covered: 0 }
    }

    /// Takes the next bytes and appends to `out` what is safe to show. What may be the beginning of a secret
    /// is held back until the next call; it is shorter than the longest secret.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(compiled) = self.patterns.0.clone() else {
            out.extend_from_slice(bytes);
            return;
        };
        if self.carry.is_empty() {
            self.scan(&compiled, bytes, out, false);
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(bytes);
            self.scan(&compiled, &joined, out, false);
        }
    }

    /// Appends what was held back: the stream is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(compiled) = self.patterns.0.clone() {
            let rest = std::mem::take(&mut self.carry);
            self.scan(&compiled, &rest, out, true);
        }
    }

    fn scan(&mut self, compiled: &Compiled, text: &[u8], out: &mut Vec<u8>, last: bool) {
        let hold = if last { text.len() } else { compiled.open_match(text) };
        // `covered` bytes at the start were hidden by a match that began earlier.
        let mut shown = self.covered;
        if compiled.search.is_match(text) {
            let mut found: Vec<(usize, usize)> =
                compiled.search.find_overlapping_iter(text).map(|hit| (hit.start(), hit.end())).collect();
            found.sort_unstable();
            for (start, end) in found {
                // Matches from `hold` on are found again with the bytes that follow.
                if start >= hold && start >= shown {
                    break;
                }
                if start >= shown {
                    out.extend_from_slice(&text[shown..start]);
                    out.extend_from_slice(REPLACEMENT.as_bytes());
                }
                shown = shown.max(end);
            }
        }
        if shown < hold {
            out.extend_from_slice(&text[shown..hold]);
        }
        self.carry.clear();
        self.carry.extend_from_slice(&text[hold..]);
        self.covered = shown.saturating_sub(hold);
    }
}

impl Compiled {
    /// Where the longest tail of `text` starts that is a proper beginning of a needle.
    fn open_match(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(self.longest - 1);
        (first..text.len())
            .find(|at| {
                self.starts[usize::from(text[*at])] && {
                    let tail = &text[*at..];
                    // The first needle after `tail` in order starts with it if any longer one does.
                    let next = self.needles.partition_point(|needle| needle.as_slice() <= tail);
                    self.needles.get(next).is_some_and(|needle| needle.starts_with(tail))
                }
            })
            .unwrap_or(text.len())
    }
}

fn add_shapes(secret: &str, needles: &mut BTreeSet<Vec<u8>>) {
    let mut add = |text: &[u8]| {
        if text.len() >= SHORTEST && !text.iter().all(u8::is_ascii_whitespace) {
            needles.insert(text.to_vec());
        }
    };
    if secret.len() < SHORTEST {
        return;
    }
    let trimmed = secret.trim();
    for text in [secret, trimmed] {
        add(text.as_bytes());
    }
    // A text of several lines is also hidden line by line: logs indent and re-wrap.
    for line in trimmed.lines() {
        add(line.trim().as_bytes());
    }
    if trimmed.len() < SHORTEST {
        return;
    }
    let bytes = trimmed.as_bytes();
    for shift in 0..3 {
        let standard = base64_inner(bytes, shift);
        let url: Vec<u8> = standard
            .iter()
            .map(|c| match c {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        add(&standard);
        add(&url);
    }
    add(hex(bytes, b"0123456789abcdef").as_slice());
    add(hex(bytes, b"0123456789ABCDEF").as_slice());
    add(percent(bytes).as_slice());
    if let Ok(json) = serde_json::to_string(trimmed) {
        add(json.trim_matches('"').as_bytes());
    }
}

/// The characters of base64 that `bytes` alone decide when they start at `shift` modulo 3.
fn base64_inner(bytes: &[u8], shift: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let first = (shift * 8).div_ceil(6);
    let end = (shift + bytes.len()) * 8 / 6;
    let bit = |at: usize| (bytes[at / 8 - shift] >> (7 - at % 8)) & 1;
    (first..end)
        .map(|index| {
            let value = (index * 6..index * 6 + 6).fold(0_u8, |value, at| value << 1 | bit(at));
            ALPHABET[usize::from(value)]
        })
        .collect()
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

fn percent(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.extend(hex(&[*byte], b"0123456789ABCDEF"));
        }
    }
    out
}

#[cfg(test)]
mod tests;

//! The writing end of one stream: bytes of any kind become masked UTF-8.

use stagely_domain::mask::Masker;

use super::LogBook;

/// Writes to one stream. What was held back as a possible secret is written when the writer is dropped.
pub struct Writer {
    book: LogBook,
    stream: String,
    masker: Masker,
    version: u64,
    /// The start of a character whose rest has not come yet; at most 3 bytes.
    partial: Vec<u8>,
}

impl Writer {
    pub(super) fn new(book: LogBook, stream: &str) -> Self {
        let (version, patterns) = book.patterns();
        Self { book, stream: stream.to_owned(), masker: Masker::new(patterns), version, partial: Vec::new() }
    }

    /// Appends `bytes`; what is not UTF-8 is replaced by U+FFFD.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        self.refresh(&mut out);
        let mut input = std::mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut rest = input.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(_) => {
                    self.masker.push(rest, &mut out);
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.masker.push(good, &mut out);
                    let Some(length) = error.error_len() else {
                        self.partial.extend_from_slice(bad);
                        break;
                    };
                    self.masker.push("\u{FFFD}".as_bytes(), &mut out);
                    rest = &bad[length..];
                }
            }
        }
        self.book.append(&self.stream, &out);
    }

    /// Appends one line.
    pub fn line(&mut self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Texts to hide may have been added since the stream was opened.
    fn refresh(&mut self, out: &mut Vec<u8>) {
        let (version, patterns) = self.book.patterns();
        if version != self.version {
            self.masker.finish(out);
            self.masker = Masker::new(patterns);
            self.version = version;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut out = Vec::new();
        if !self.partial.is_empty() {
            self.masker.push("\u{FFFD}".as_bytes(), &mut out);
        }
        self.masker.finish(&mut out);
        self.book.append(&self.stream, &out);
    }
}

use std::collections::HashMap;

use proptest::prelude::{any, prop, prop_assert_eq, proptest};

use super::{CHUNK, LogBook, STREAM_LIMIT};

fn stored(stream: &str, offset: u64) -> HashMap<String, u64> {
    HashMap::from([(stream.to_owned(), offset)])
}

#[test]
fn nothing_is_sent_before_the_hub_says_where_to_go_on() {
    let book = LogBook::default();
    book.writer("compose").line("one");
    assert!(book.next_chunk().is_none());
    // An earlier process wrote 100 bytes.
    book.resume(&stored("compose", 100));
    let chunk = book.next_chunk().unwrap();
    assert_eq!((chunk.offset, chunk.content.as_slice(), chunk.lost), (100, b"one\n".as_slice(), 0));
    assert!(book.next_chunk().is_none());
    book.acknowledge(&stored("compose", 104));
    assert!(book.is_drained());
}

#[test]
fn an_overflow_is_counted_once() {
    let book = LogBook::default();
    book.resume(&HashMap::new());
    let mut writer = book.writer("build/1");
    writer.write(&vec![b'a'; STREAM_LIMIT]);
    writer.write(&vec![b'b'; 1000]);
    let chunk = book.next_chunk().unwrap();
    assert_eq!((chunk.offset, chunk.lost, chunk.content.len()), (1000, 1000, CHUNK));
    assert_eq!(book.next_chunk().unwrap().lost, 0);
}

#[test]
fn a_stream_may_not_fill_the_line_beyond_its_window() {
    let book = LogBook::default();
    book.resume(&HashMap::new());
    book.writer("service/loud").write(&vec![b'x'; 1_000_000]);
    book.writer("service/quiet").line("hello");
    let mut sent = 0;
    let mut streams = Vec::new();
    while let Some(chunk) = book.next_chunk() {
        sent += chunk.content.len();
        streams.push(chunk.stream);
    }
    assert!(streams[..2].contains(&"service/quiet".to_owned()));
    assert_eq!(sent, 256 * 1024 + 6);
    book.acknowledge(&stored("service/loud", 100_000));
    assert!(book.next_chunk().is_some());
}

#[test]
fn texts_hidden_later_are_hidden_from_then_on() {
    let book = LogBook::default();
    book.resume(&HashMap::new());
    let mut writer = book.writer("compose");
    writer.line("sesame-1");
    book.hide(["sesame-1"]);
    writer.line("sesame-1");
    drop(writer);
    let chunk = book.next_chunk().unwrap();
    assert_eq!(chunk.content, b"sesame-1\n***REDACTED***\n");
}

proptest! {
    /// Connections break after any number of chunks, some of them stored and acknowledged, some not.
    #[test]
    fn the_hub_ends_up_with_every_byte_once(
        text in "[a-z\u{e9}\u{1F600}]{0,400}",
        cuts in prop::collection::vec((any::<u8>(), any::<bool>()), 1..12),
    ) {
        let big: String = text.repeat(300);
        let book = LogBook::default();
        book.resume(&HashMap::new());
        let mut writer = book.writer("s");
        let mut hub: Vec<u8> = Vec::new();
        let take = |hub: &mut Vec<u8>| match book.next_chunk() {
            Some(chunk) => {
                let at = usize::try_from(chunk.offset).unwrap();
                assert!(std::str::from_utf8(&chunk.content).is_ok());
                assert!(at <= hub.len(), "hole");
                let fresh = hub.len() - at;
                if fresh < chunk.content.len() {
                    hub.extend_from_slice(&chunk.content[fresh..]);
                }
                true
            }
            None => false,
        };
        let mut pieces = big.as_bytes().chunks(big.len() / cuts.len() + 1);
        for (chunks, ack) in &cuts {
            writer.write(pieces.next().unwrap_or_default());
            for _ in 0..chunks % 5 {
                take(&mut hub);
            }
            if *ack {
                book.acknowledge(&stored("s", hub.len() as u64));
            }
            if chunks % 2 == 0 {
                book.resume(&stored("s", hub.len() as u64));
            }
        }
        drop(writer);
        while take(&mut hub) {
            book.acknowledge(&stored("s", hub.len() as u64));
        }
        prop_assert_eq!(String::from_utf8(hub).unwrap(), big);
    }
}

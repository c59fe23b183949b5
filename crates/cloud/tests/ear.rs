//! Hears what is logged on its thread: events and spans with all their fields, ours at every level, those of libraries as far
//! as services log them.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

pub struct Ear {
    heard: Arc<Mutex<String>>,
    _listening: DefaultGuard,
}

impl Ear {
    /// Until it is dropped.
    pub fn listen() -> Self {
        let heard = Arc::default();
        let listener = Listener(Arc::clone(&heard));
        Self { heard, _listening: tracing::subscriber::set_default(listener) }
    }

    pub fn heard(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Listener(Arc<Mutex<String>>);

impl Listener {
    fn note(&self, tell: impl FnOnce(&mut Text<'_>)) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut Text(&mut heard));
        heard.push('\n');
    }
}

struct Text<'t>(&'t mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("stagely") || *metadata.level() <= Level::INFO
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(|text| span.record(text));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.note(|text| values.record(text));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.note(|text| event.record(text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn it_hears_events_and_the_fields_of_spans() {
    let ear = Ear::listen();
    let span = tracing::debug_span!(target: "stagely_cloud", "a call", first = "one", later = tracing::field::Empty);
    span.record("later", "two");
    tracing::trace!(target: "stagely_cloud", third = %"three", "and {}", "four");
    tracing::debug!(target: "somebody_else", "five");
    let heard = ear.heard();
    assert!(["one", "two", "three", "four"].iter().all(|word| heard.contains(word)), "{heard}");
    assert!(!heard.contains("five"), "{heard}");
}

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use penstock_telemetry::metrics::Metrics;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// Keeps the fields of lines, numbers as `7` and text as `"7"`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Fields>>>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{:?}", format!("{value:?}")));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[test]
fn a_dead_letters_line_says_whose_it_is_and_which_record_it_was() {
    let lines = Lines::default();
    let events = Events::new(Metrics::new(), Progress::default());
    let id = StreamId { ms: 1, seq: 0 };
    let data = br#"{"repo":"did:plc:a","ops":[{"action":"create","path":"app.bsky.feed.like/3k"}]}"#;
    let whole = Burial {
        id,
        applied: None,
        kind: b"commit",
        data,
        seq: b"4711",
        order: id,
        deliveries: 1,
        error: "op 0: no subject",
        repo: "did:plc:a",
    };
    // What another program wrote may be anything, and says nothing of that kind.
    let torn = Burial { kind: b"x\n", data: b"torn", seq: b"", repo: "", ..whole.clone() };
    tracing::subscriber::with_default(lines.clone(), || {
        events.buried(&whole, true);
        events.buried(&torn, true);
    });
    let lines = lines.0.lock().unwrap();
    let all =
        |line: &Fields| line.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    assert_eq!(
        all(&lines[0]),
        r#"did="did:plc:a" error="op 0: no subject" id="1-0" kind="commit" message="entry dead-lettered" ops=1 seq=4711 uri="at://did:plc:a/app.bsky.feed.like/3k""#
    );
    assert_eq!(all(&lines[1]), r#"error="op 0: no subject" id="1-0" kind="x\n" message="entry dead-lettered""#);
}

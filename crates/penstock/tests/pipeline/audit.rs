//! The stream held against what the relay says, part by part while it grows.

use std::iter::Peekable;

use fred::interfaces::{KeysInterface, StreamsInterface, TransactionInterface};
use penstock_replay::Settings;

use crate::frames::{self, Entry};
use crate::rig::{Rig, entry};

/// How many entries are read at once.
const PAGE: u64 = 10_000;

/// An entry as a positional reader gets it.
type Found = (String, Vec<(String, String)>);

/// Compares each part of the stream once, in full, and all of its numbers at the end.
pub(crate) struct Audit {
    said: Peekable<Box<dyn Iterator<Item = (u64, Option<Entry>)> + Send>>,
    /// What was found right so far: the entries' IDs and numbers.
    seen: Vec<(String, u64)>,
    cursor: u64,
}

// === impl Audit ===

impl Audit {
    /// Begins before the first event of a relay of these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let said: Box<dyn Iterator<Item = _> + Send> = Box::new(frames::said(settings));
        Self { said: said.peekable(), seen: Vec::new(), cursor: 0 }
    }

    /// The cursor when it was last looked at.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How many entries were compared.
    pub(crate) fn entries(&self) -> usize {
        self.seen.len()
    }

    /// Asserts that cursor and stream agree at this moment: the stream is every event up to the cursor, once and in
    /// order, and the cursor is the number of the last one, entry or not.
    pub(crate) async fn look(&mut self, rig: &Rig) {
        let after = self.seen.last().map_or_else(|| "-".to_owned(), |(id, _)| format!("({id}"));
        let moment = rig.client.multi();
        let () = moment.get(rig.keys.cursor()).await.unwrap();
        let () = moment.xrange(rig.keys.stream(), after, "+", None).await.unwrap();
        let (cursor, found): (Option<u64>, Vec<Found>) = moment.exec(true).await.unwrap();
        let Some(cursor) = cursor else {
            assert!(found.is_empty(), "{} entries without a cursor", found.len());
            return;
        };
        let mut last = self.cursor;
        for found in found {
            let (id, found) = entry(found);
            let (seq, expected) = self.said.find_map(|(seq, entry)| Some((seq, entry?))).unwrap();
            assert!(
                found == expected,
                "{id} must be {:.600}, is {:.600}",
                format!("{expected:?}"),
                format!("{found:?}")
            );
            last = seq;
            self.seen.push((id, seq));
        }
        while let Some((seq, entry)) = self.said.next_if(|(seq, _)| *seq <= cursor) {
            assert!(entry.is_none(), "the cursor is {cursor}, and {seq} is not in the stream");
            last = seq;
        }
        assert_eq!(cursor, last, "the cursor is not the last event's number");
        self.cursor = cursor;
    }

    /// Asserts the same of the whole stream, and that what was right once has not changed since.
    pub(crate) async fn end(mut self, rig: &Rig) {
        self.look(rig).await;
        let mut seen = self.seen.iter();
        let mut from = "-".to_owned();
        loop {
            let page: Vec<Found> = rig.client.xrange(rig.keys.stream(), from, "+", Some(PAGE)).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            from = format!("({last}");
            for (id, fields) in page {
                let expected = seen.next().unwrap();
                assert_eq!((&id, fields[2].1.parse()), (&expected.0, Ok(expected.1)));
            }
        }
        assert_eq!(seen.next(), None, "entries are gone from the stream");
    }
}

//! Events that are written to the stream together.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::entry::Root;
use penstock_core::live::Broadcast;
use tokio::sync::OwnedSemaphorePermit;

use crate::incidents::Incidents;
use crate::stream::traces::{BatchTraces, EventTrace};

/// Roughly what an entry or a letter takes besides its data, in bytes.
const OVERHEAD: usize = 64;

/// At a few thousand events a second no more come together; under load there are some dozen in each chunk.
const SMALL: usize = 8;

/// How many hexadecimal digits a root has.
const ROOT: usize = 2 * size_of::<Root>();

/// Events that are written to the stream together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) entries: Vec<BatchEntry>,
    /// Repos that are desynchronized though no entry says so, each with why.
    pub(super) desynchronized: Vec<(Box<str>, &'static str)>,
    /// The indexes of entries whose repo exceeds its rate.
    pub(super) above: Vec<usize>,
    pub(super) letters: Vec<Letter>,
    pub(super) lives: Vec<Broadcast>,
    pub(super) traces: BatchTraces,
    pub(super) shares: Vec<Arc<OwnedSemaphorePermit>>,
    pub(super) bytes: usize,
    pub(super) cursor: Option<u64>,
    pub(super) event_time: Option<Timestamp>,
    pub(super) written: String,
    /// The filter under which its events were chosen, where that is not what stands beside the cursor.
    pub(super) filter: Option<String>,
    /// What backfills are owed from here on, where that is to be stored.
    pub(super) owed: Option<String>,
    pub(super) usual_time: Option<Timestamp>,
    pub(super) incidents: Incidents,
    pub(super) received: Instant,
}

/// An entry to be written.
#[derive(Debug)]
pub(super) struct BatchEntry {
    pub(super) kind: EventKind,
    pub(super) data: Bytes,
    pub(super) seq: u64,
    pub(super) proven: Proven,
}

/// What an entry says of its commit besides the host's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The beginning of the digest of the tree it leaves.
    pub(crate) root: Option<Root>,
    /// Why its repo is desynchronized.
    pub(crate) sync: Option<&'static str>,
}

/// A frame set aside as a dead letter.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The frame.
    pub(crate) frame: Bytes,
    /// Its sequence number, if it has one.
    pub(crate) seq: Option<u64>,
    /// The DID of its repo, if that can be read.
    pub(crate) did: Option<Box<str>>,
    /// What is wrong with it.
    pub(crate) error: String,
    /// What identifies it: a letter that was written lately is not written again.
    pub(crate) id: u64,
    /// Whether its content is unknown, so that it counts as a loss.
    pub(crate) is_loss: bool,
}

// === impl Batch ===

impl Batch {
    /// Starts empty, received at this time.
    pub(crate) fn new(received: Instant) -> Self {
        Self {
            entries: Vec::new(),
            desynchronized: Vec::new(),
            above: Vec::new(),
            letters: Vec::new(),
            lives: Vec::new(),
            traces: BatchTraces::default(),
            shares: Vec::new(),
            bytes: 0,
            cursor: None,
            event_time: None,
            written: String::new(),
            filter: None,
            owed: None,
            usual_time: None,
            incidents: Incidents::default(),
            received,
        }
    }

    /// Sets the median time of recent events; single ones may be far off.
    pub(crate) fn set_usual_time(&mut self, time: Option<Timestamp>) {
        self.usual_time = time;
    }

    /// Returns whether it moves the cursor.
    pub(crate) fn moves_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// Sets the incidents to be counted with it.
    pub(crate) fn set_incidents(&mut self, incidents: Incidents) {
        self.incidents = incidents;
    }

    /// Sets what the host may send again once this batch is written.
    pub(crate) fn set_written(&mut self, kept: String) {
        self.written = kept;
    }

    /// Sets the filter that is to stand beside the cursor.
    pub(crate) fn set_filter(&mut self, filter: Option<String>) {
        self.filter = filter;
    }

    /// Sets the backfills that are owed from here on.
    pub(crate) fn set_owed(&mut self, owed: Option<String>) {
        self.owed = owed;
    }

    /// Adds an entry, and its trace if it has one.
    pub(crate) fn entry(&mut self, kind: EventKind, data: Bytes, seq: u64, trace: Option<EventTrace>) {
        self.bytes += data.len() + OVERHEAD;
        if let Some(trace) = trace {
            self.traces.push(self.entries.len(), trace);
        }
        self.entries.push(BatchEntry { kind, data, seq, proven: Proven::default() });
    }

    /// Marks the last entry: its repo exceeds its rate.
    pub(crate) fn set_above(&mut self) {
        self.above.extend(self.entries.len().checked_sub(1));
    }

    /// Sets what the last entry says of its commit.
    pub(crate) fn set_proven(&mut self, proven: Proven) {
        if let Some(last) = self.entries.last_mut() {
            last.proven = proven;
        }
    }

    /// Marks a repo as desynchronized; for what makes no entry.
    pub(crate) fn desynchronized(&mut self, did: &str, why: &'static str) {
        self.bytes += did.len() + OVERHEAD;
        self.desynchronized.push((did.into(), why));
    }

    /// Adds a dead letter.
    pub(crate) fn letter(&mut self, letter: Letter) {
        self.bytes += letter.frame.len() * 4 / 3 + OVERHEAD;
        self.letters.push(letter);
    }

    /// Adds what live streams show of an entry.
    pub(crate) fn live(&mut self, event: Broadcast) {
        self.lives.push(event);
    }

    /// Moves the cursor with this batch.
    pub(crate) fn advance(&mut self, cursor: u64, event_time: Option<Timestamp>) {
        self.cursor = Some(cursor);
        self.event_time = event_time;
    }

    /// Holds a share of the buffer until the batch is written.
    pub(crate) fn keep(&mut self, share: &Arc<OwnedSemaphorePermit>) {
        if self.shares.last().is_none_or(|last| !Arc::ptr_eq(last, share)) {
            self.shares.push(Arc::clone(share));
        }
    }

    /// Formats the repos that are desynchronized, as the script takes them.
    pub(super) fn list_desynchronized(&self) -> String {
        if self.desynchronized.is_empty() {
            return String::new();
        }
        let repos: Vec<_> = self.desynchronized.iter().map(|(did, why)| format!("{did} {why}")).collect();
        serde_json::to_string(&repos).unwrap_or_default()
    }

    /// Returns whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursor.is_none() && self.letters.is_empty() && self.desynchronized.is_empty()
    }

    /// Returns whether so few events came together that waiting for more costs more than it saves.
    pub(crate) fn is_small(&self) -> bool {
        self.entries.len() + self.letters.len() <= SMALL
    }

    /// Returns whether to send it without waiting for more.
    pub(crate) fn is_full(&self, events: usize, bytes: usize) -> bool {
        self.entries.len() + self.letters.len() >= events || self.bytes >= bytes
    }
}

// === impl Proven ===

impl Proven {
    /// Appends it as the script takes it.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + ROOT, b' ');
        match self.root {
            Some(root) => HEXLOWER.encode_mut(&root, out.get_mut(start..).unwrap_or_default()),
            // No root, and a short reason: longer than one alone all the same.
            None if self.sync.is_some() => {}
            None => out.truncate(start),
        }
        if let Some(why) = self.sync {
            out.push(b' ');
            out.extend_from_slice(why.as_bytes());
        }
    }
}

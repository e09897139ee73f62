//! The last sendings, in order: what clients read, each from its own place.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::Gathering;

/// The most bytes that are kept.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// How many of the newest events a client gets whose last one is not known.
const NEWEST: u64 = 50;

/// What was sent last.
#[derive(Debug)]
pub(super) struct Log {
    /// What the ids of this process begin with.
    process: String,
    sendings: VecDeque<Sending>,
    /// The most sendings that are kept.
    most: usize,
    bytes: usize,
    /// The number of the next sending.
    next_sending: u64,
    /// The number of the next event; the first is 1.
    next_event: u64,
    ended: bool,
}

/// Frames that went out together: events, or else one frame that is none.
#[derive(Debug)]
struct Sending {
    frames: Bytes,
    /// The number of the first event in it, or of the next one after it.
    first: u64,
    /// Where each event ends.
    ends: Vec<usize>,
}

/// How far a client has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The sending it gets next.
    sending: u64,
    /// The first event that it has not got.
    event: u64,
    /// The sending before which it wants events only: metrics of then are none of now.
    joined: u64,
}

/// What a client gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Sending(Bytes),
    /// So many events are gone.
    Missed(u64),
    /// Nothing until the log has grown.
    Nothing,
    /// Nothing any more.
    End,
}

// === impl Log ===

impl Log {
    pub(super) fn new(process: String, most: usize) -> Self {
        Self { process, sendings: VecDeque::new(), most, bytes: 0, next_sending: 0, next_event: 1, ended: false }
    }

    /// Says whether nothing was sent yet.
    pub(super) fn is_new(&self) -> bool {
        self.next_event == 1
    }

    /// Adds events, and returns how many.
    pub(super) fn add(&mut self, gathering: &mut Gathering) -> u64 {
        let first = self.next_event;
        let (frames, ends) = gathering.take(&self.process, first);
        self.next_event += ends.len() as u64;
        self.push(Sending { frames, first, ends });
        self.next_event - first
    }

    /// Adds what is no event.
    pub(super) fn say(&mut self, frame: Bytes) {
        self.push(Sending { frames: frame, first: self.next_event, ends: Vec::new() });
    }

    /// Nothing is added any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Returns where a client begins: behind the event of that id, or else with the newest; without an id at the end.
    pub(super) fn place(&self, last_seen: Option<&str>) -> Place {
        let end = Place { sending: self.next_sending, event: self.next_event, joined: self.next_sending };
        let Some(id) = last_seen else { return end };
        let oldest = self.sendings.front().map_or(self.next_event, |sending| sending.first);
        let known = self.number(id).map(|number| number.saturating_add(1));
        let event = match known {
            Some(event) if (oldest.max(2)..=self.next_event).contains(&event) => event,
            _ => self.next_event.saturating_sub(NEWEST).max(oldest),
        };
        let behind = self.sendings.iter().rev().take_while(|sending| sending.end() > event).count();
        Place { sending: self.next_sending - behind as u64, event, ..end }
    }

    /// Returns what a client gets next, and moves it on.
    pub(super) fn next(&self, place: &mut Place) -> Next {
        let oldest = self.next_sending - self.sendings.len() as u64;
        if place.sending < oldest {
            let missed = self.next_event - place.event;
            *place = self.place(None);
            if missed > 0 {
                return Next::Missed(missed);
            }
        }
        while let Some(sending) = self.sendings.get((place.sending - oldest) as usize) {
            place.sending += 1;
            if let Some(frames) = sending.from(place.event, place.sending <= place.joined) {
                place.event = sending.end();
                return Next::Sending(frames);
            }
        }
        if self.ended { Next::End } else { Next::Nothing }
    }

    fn push(&mut self, sending: Sending) {
        self.bytes += sending.frames.len();
        self.next_sending += 1;
        self.sendings.push_back(sending);
        while self.sendings.len() > self.most || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.sendings.pop_front() else { return };
            self.bytes -= oldest.frames.len();
        }
    }

    /// Reads the number in an id of this process.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.process)?.strip_prefix('-')?.parse().ok()
    }
}

// === impl Sending ===

impl Sending {
    /// The number of the first event after it.
    fn end(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// Returns its frames from that event on, if there are any.
    fn from(&self, event: u64, events_only: bool) -> Option<Bytes> {
        if self.ends.is_empty() {
            return (!events_only).then(|| self.frames.clone());
        }
        let before = usize::try_from(event.saturating_sub(self.first)).unwrap_or(usize::MAX);
        match before {
            0 => Some(self.frames.clone()),
            before if before >= self.ends.len() => None,
            before => Some(self.frames.slice(self.ends[before - 1]..)),
        }
    }
}

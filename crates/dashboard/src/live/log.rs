//! The last sendings, in order: what clients read, each from its own place.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::filter::{Filter, Traits};
use super::frame::{Gathering, Id};

/// The most bytes that are kept.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// What was sent last.
#[derive(Debug)]
pub(super) struct Log {
    /// What the ids of this process begin with.
    process: String,
    sendings: VecDeque<Arc<Sending>>,
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
pub(super) struct Sending {
    frames: Bytes,
    /// The number of the first event in it, or of the next one after it.
    first: u64,
    /// Where each event ends.
    ends: Vec<usize>,
    traits: Traits,
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
#[derive(Debug)]
pub(super) enum Next {
    /// The events of a sending from that number on, or what is none.
    Sending(Arc<Sending>, u64),
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
        let (frames, ends, traits) = gathering.take(&self.process, first);
        self.next_event += ends.len() as u64;
        self.push(Sending { frames, first, ends, traits });
        self.next_event - first
    }

    /// Adds what is no event.
    pub(super) fn say(&mut self, frame: Bytes) {
        self.push(Sending { frames: frame, first: self.next_event, ends: Vec::new(), traits: Traits::default() });
    }

    /// Nothing is added any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Returns where a client begins: behind the event of that id, if it is known and kept; else at the end.
    ///
    /// The second says whether there was such an event, or nothing was asked for.
    pub(super) fn place(&self, last_seen: Option<&str>) -> (Place, bool) {
        let end = Place { sending: self.next_sending, event: self.next_event, joined: self.next_sending };
        let Some(id) = last_seen else { return (end, true) };
        let oldest = self.sendings.front().map_or(self.next_event, |sending| sending.first);
        match self.number(id).map(|number| number.saturating_add(1)) {
            Some(event) if (oldest.max(2)..=self.next_event).contains(&event) => {
                let behind = self.sendings.iter().rev().take_while(|sending| sending.end() > event).count();
                (Place { sending: self.next_sending - behind as u64, event, ..end }, true)
            }
            _ => (end, false),
        }
    }

    /// Returns all that is kept.
    pub(super) fn kept(&self) -> Vec<Arc<Sending>> {
        self.sendings.iter().map(Arc::clone).collect()
    }

    /// Returns what a client gets next, and moves it on.
    pub(super) fn next(&self, place: &mut Place) -> Next {
        let oldest = self.next_sending - self.sendings.len() as u64;
        if place.sending < oldest {
            let missed = self.next_event - place.event;
            *place = self.place(None).0;
            if missed > 0 {
                return Next::Missed(missed);
            }
        }
        while let Some(sending) = self.sendings.get((place.sending - oldest) as usize) {
            place.sending += 1;
            let from = place.event;
            place.event = from.max(sending.end());
            let is_wanted = if sending.ends.is_empty() { place.sending > place.joined } else { sending.end() > from };
            if is_wanted {
                return Next::Sending(Arc::clone(sending), from);
            }
        }
        if self.ended { Next::End } else { Next::Nothing }
    }

    /// Returns the id of the last event before a place.
    pub(super) fn id_before(&self, place: Place) -> Bytes {
        format!("{}\n\n", Id { process: &self.process, number: place.event.saturating_sub(1) }).into()
    }

    fn push(&mut self, sending: Sending) {
        self.bytes += sending.bytes();
        self.next_sending += 1;
        self.sendings.push_back(Arc::new(sending));
        while self.sendings.len() > self.most || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.sendings.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    /// Reads the number in an id of this process.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.process)?.strip_prefix('-')?.parse().ok()
    }
}

// === impl Place ===

impl Place {
    /// Goes back from the end of what is kept, behind which it is, over the newest events that are wanted: so many, or all.
    pub(super) fn back(self, kept: &[Arc<Sending>], wanted: Option<&Filter>, most: usize) -> Self {
        let matches = kept.iter().rev().flat_map(|sending| {
            let look = wanted.map(|filter| filter.look(&sending.traits));
            let fits = move |event: &usize| look.as_ref().is_none_or(|look| look.lets_through(*event));
            (0..sending.ends.len()).rev().filter(fits).map(move |event| sending.first + event as u64)
        });
        let event = matches.take(most).last().unwrap_or(self.event);
        // Sendings without events stand between.
        let after = kept.iter().rev().take_while(|sending| sending.end() > event).count();
        Self { event, sending: self.sending.saturating_sub(after as u64), ..self }
    }
}

// === impl Sending ===

impl Sending {
    /// Says whether it is no event.
    pub(super) fn is_word(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns its frames from that event on, which is not behind it.
    pub(super) fn from(&self, event: u64) -> Bytes {
        self.frames.slice(self.begin_of(self.place_of(event))..)
    }

    /// Returns those of its frames from that event on that a filter lets through, and how many they are; nothing is copied
    /// where they follow each other.
    pub(super) fn matching(&self, event: u64, filter: &Filter) -> (Bytes, u64) {
        let look = filter.look(&self.traits);
        let wanted = |event: &usize| look.lets_through(*event);
        let mut matches = (self.place_of(event)..self.ends.len()).filter(wanted);
        let Some(first) = matches.next() else { return (Bytes::new(), 0) };
        let (mut run, mut count, mut copied) = (first..first + 1, 1, BytesMut::new());
        for event in matches {
            if event > run.end {
                copied.extend_from_slice(self.frames_of(&run));
                run.start = event;
            }
            run.end = event + 1;
            count += 1;
        }
        if copied.is_empty() {
            return (self.frames.slice(self.begin_of(run.start)..self.begin_of(run.end)), count);
        }
        copied.extend_from_slice(self.frames_of(&run));
        (copied.freeze(), count)
    }

    /// The number of the first event after it.
    fn end(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    fn bytes(&self) -> usize {
        self.frames.len() + self.traits.bytes()
    }

    /// Where in it an event stands, or would stand.
    fn place_of(&self, event: u64) -> usize {
        usize::try_from(event.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.ends.len())
    }

    /// Where the frame of one of its events begins.
    fn begin_of(&self, event: usize) -> usize {
        event.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or_default()
    }

    fn frames_of(&self, events: &std::ops::Range<usize>) -> &[u8] {
        self.frames.get(self.begin_of(events.start)..self.begin_of(events.end)).unwrap_or_default()
    }
}

//! Takes decoded items into batches, in order.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::live::Broadcast;
use penstock_wire::{BadFrame, Event, FrameError, Headline};
use tokio::sync::OwnedSemaphorePermit;

use crate::decode::{Decoding, Item};
use crate::events::Telemetry;
use crate::live::Sampler;
use crate::publish::{Batch, Letter};
use crate::recent::Recent;
use crate::revs::Revs;
use crate::seam::{Seam, Verdict};
use crate::traces::{self, Arrival, EventTrace};

/// How many times a frame may be unreadable at one cursor before it is set aside.
const UNREADABLE: u32 = 3;

/// What is known across the connections of one lease.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    revs: Revs,
    /// The last unreadable frame: behind which cursor, its hash, how many times.
    unreadable: Option<(Option<u64>, u64, u32)>,
    /// The last frame too large to be read: behind which cursor, its size, how many times.
    oversized: Option<(Option<u64>, u64, u32)>,
    /// The host that was read last, and its latest event times.
    host: String,
    recent: Recent,
}

/// The items of one connection on their way into batches.
pub(crate) struct Intake<'a> {
    /// The relay's host.
    pub(crate) host: &'a str,
    /// Judges the sequence numbers.
    pub(crate) seam: Seam,
    /// What is known across connections.
    pub(crate) memory: &'a mut Memory,
    /// Chooses the live events shown.
    pub(crate) sampler: &'a mut Sampler,
    /// Logs and counts.
    pub(crate) telemetry: &'a Telemetry,
    /// What is not sent yet.
    pub(crate) batch: Option<Batch>,
    /// Losses and such to be counted beside the cursor.
    pub(crate) notes: Notes,
    /// Whether the seam was a possible gap, and no loss was seen behind it yet.
    pub(crate) watching: bool,
    /// When the chunk that is taken in was decoded.
    pub(crate) decoding: Option<Decoding>,
}

/// How often each was seen since the notes were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Possible gaps.
    pub(crate) gaps: u32,
    /// Sequences that began again.
    pub(crate) resets: u32,
    /// Events known to be lost.
    pub(crate) losses: u32,
}

/// Why the connection cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The host's sequence began again.
    Reset,
    /// A frame is unreadable.
    Unreadable,
    /// The host's last word.
    Said(String),
}

// === impl Memory ===

impl Memory {
    /// Prepares for reading a host.
    pub(crate) fn read(&mut self, host: &str) {
        if self.host != host {
            host.clone_into(&mut self.host);
            self.recent.clear();
        }
    }

    /// Says whether a frame behind the cursor was too large to be read so often that it is to be passed over.
    pub(crate) fn is_to_pass_over(&self, cursor: Option<u64>) -> bool {
        self.oversized.is_some_and(|(at, _, times)| at == cursor && times + 1 >= UNREADABLE)
    }
}

// === impl Intake ===

impl Intake<'_> {
    /// Notes that the connection ended at a frame of that many bytes, too large to be read.
    pub(crate) fn oversized(&mut self, size: u64) {
        let cursor = self.seam.cursor();
        let times = match self.memory.oversized {
            Some((at, same, times)) if (at, same) == (cursor, size) => times + 1,
            _ => 1,
        };
        self.memory.oversized = Some((cursor, size, times));
        self.telemetry.oversized(size, cursor, times);
    }

    /// Takes the batch that is to be sent.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        let mut batch = self.batch.take()?;
        batch.set_usual_time(self.memory.recent.median());
        Some(batch)
    }

    /// Takes one item. What came before it is in the batch when it stops the connection.
    pub(crate) fn take(
        &mut self,
        item: Item,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
        now: Timestamp,
    ) -> Result<(), Stop> {
        match item {
            Item::Event(event) => {
                self.telemetry.event(event.kind);
                if self.judge(event.seq, event.time, received, now)? {
                    self.event(event, share, received, now);
                }
            }
            Item::Sync(sync) => {
                self.telemetry.sync();
                if self.judge(sync.seq, sync.time, received, now)? {
                    self.memory.revs.sync(&sync.did, &sync.rev);
                    self.advance(share, received);
                }
            }
            Item::Ignored(seq) => {
                self.telemetry.other();
                if let Some(seq) = seq
                    && self.judge(seq, None, received, now)?
                {
                    self.advance(share, received);
                }
            }
            Item::Refused(bad, frame) => {
                if self.judge(bad.seq, bad.time, received, now)? {
                    self.refused(&bad, frame, share, received);
                }
            }
            Item::Unreadable(error, frame) => return self.unreadable(&error, frame, share, received),
            Item::Oversized(size) => {
                self.telemetry.passed_over(size, self.seam.cursor());
                self.loss("a frame too large to be read was passed over");
                let error = format!("frame of {size} bytes is too large to be read");
                let batch = self.batch.get_or_insert_with(|| Batch::new(received));
                batch.letter(Letter { frame: Bytes::new(), seq: None, error });
                batch.keep(share);
            }
            Item::Info(info) => {
                self.telemetry.info(&info.name, info.message.as_deref());
                if &*info.name == "OutdatedCursor" {
                    self.seam.set_outdated();
                }
            }
            Item::Error(said) if &*said.error == "FutureCursor" => {
                self.reset(None);
                return Err(Stop::Reset);
            }
            Item::Error(said) => {
                let message = said.message.as_deref().unwrap_or_default();
                return Err(Stop::Said(format!("{} {message}", said.error)));
            }
        }
        Ok(())
    }

    /// Says whether the number is to be written.
    fn judge(&mut self, seq: u64, time: Option<Timestamp>, received: Instant, now: Timestamp) -> Result<bool, Stop> {
        let verdict = self.seam.judge(seq, time, now);
        if let (Verdict::Take | Verdict::TakeAfterGap(_), Some(time)) = (verdict, time) {
            self.memory.recent.note(received, time, now);
        }
        match verdict {
            Verdict::Take => Ok(true),
            Verdict::Repeat => {
                self.telemetry.repeat();
                Ok(false)
            }
            Verdict::TakeAfterGap(gap) => {
                self.telemetry.gap(self.host, gap);
                self.notes.gaps += 1;
                if gap.outdated {
                    self.loss("the relay said that the cursor is older than what it keeps");
                } else {
                    self.watching = true;
                }
                Ok(true)
            }
            Verdict::Reset => {
                self.reset(Some(seq));
                Err(Stop::Reset)
            }
        }
    }

    fn event(&mut self, event: Event, share: &Arc<OwnedSemaphorePermit>, received: Instant, now: Timestamp) {
        if let Some(rev) = &event.rev {
            let missed = self.memory.revs.commit(&event.did, rev, event.since.as_deref());
            if missed && self.watching {
                self.watching = false;
                self.loss("behind the gap a repo goes on from a revision that never came");
            }
        }
        // Only what is shown is put into words: at full speed that is one event in thirty.
        let shown = event.head != Headline::Commit { first: None } && self.sampler.admit(tokio::time::Instant::now());
        let live = if shown { live(&event, now) } else { None };
        let trace = self.arrival(received).and_then(|arrival| EventTrace::of(&event, arrival));
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        batch.entry(event.kind, Bytes::from(event.data), event.seq, trace);
        if let Some(live) = live {
            batch.live(live);
        }
        self.advance(share, received);
    }

    fn refused(&mut self, bad: &BadFrame, frame: Bytes, share: &Arc<OwnedSemaphorePermit>, received: Instant) {
        self.telemetry.refused(bad);
        if let Some(arrival) = self.arrival(received) {
            traces::refused(bad, arrival);
        }
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        batch.letter(Letter { frame, seq: Some(bad.seq), error: bad.to_string() });
        self.advance(share, received);
    }

    fn unreadable(
        &mut self,
        error: &FrameError,
        frame: Bytes,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
    ) -> Result<(), Stop> {
        let cursor = self.seam.cursor();
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        let hash = hasher.finish();
        let times = match self.memory.unreadable {
            Some((at, same, times)) if (at, same) == (cursor, hash) => times + 1,
            _ => 1,
        };
        self.memory.unreadable = Some((cursor, hash, times));
        let given_up = times >= UNREADABLE;
        self.telemetry.unreadable(error, cursor, times, given_up);
        if !given_up {
            return Err(Stop::Unreadable);
        }
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        batch.letter(Letter { frame, seq: None, error: error.to_string() });
        batch.keep(share);
        Ok(())
    }

    fn advance(&mut self, share: &Arc<OwnedSemaphorePermit>, received: Instant) {
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        if let Some(cursor) = self.seam.cursor() {
            batch.advance(cursor, self.seam.event_time());
        }
        batch.keep(share);
    }

    fn arrival(&self, received: Instant) -> Option<Arrival<'_>> {
        Some(Arrival { host: self.host, received, decoding: self.decoding? })
    }

    fn reset(&mut self, seq: Option<u64>) {
        self.telemetry.reset(self.host, self.seam.cursor(), seq);
        self.notes.resets += 1;
    }

    fn loss(&mut self, evidence: &'static str) {
        self.telemetry.data_loss(self.host, evidence);
        self.notes.losses += 1;
    }
}

/// What the live streams show of an event; a commit without ops shows nothing.
fn live(event: &Event, now: Timestamp) -> Option<Broadcast> {
    Some(match &event.head {
        Headline::Commit { first } => {
            let (action, collection) = first.as_ref()?;
            Broadcast::commit(&event.did, collection, *action, now)
        }
        Headline::Identity { handle } => Broadcast::identity(&event.did, handle.as_deref(), now),
        Headline::Account { active } => Broadcast::account(&event.did, *active, now),
    })
}

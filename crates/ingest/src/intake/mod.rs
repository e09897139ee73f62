//! In: decoded frames of one connection, in order.
//! Out: batches for the stream, each event judged by number and content: new, repeated, behind a gap, or of a reset sequence.
//! `session` hands over the frames and sends the batches.

pub(crate) mod chain;
mod cuts;
pub(crate) mod rates;
mod recent;
pub(crate) mod resets;
mod revs;
pub(crate) mod rhythm;
pub(crate) mod seam;
pub(crate) mod tries;
pub(crate) mod verify;
pub(crate) mod written;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::filter::Rules;
use penstock_core::live::Broadcast;
use penstock_wire::{BadFrame, BodyKind, Event, FrameError, Headline};
use tokio::sync::OwnedSemaphorePermit;

use crate::events::Events;
use crate::filtered::Filtered;
use crate::incidents::Incidents;
use crate::intake::chain::state::Why;
use crate::intake::cuts::Cuts;
use crate::intake::rates::{Rates, Sent};
use crate::intake::recent::Recent;
use crate::intake::resets::{Reset, Resets};
use crate::intake::revs::Revs;
use crate::intake::rhythm::Rhythm;
use crate::intake::seam::{Gap, Seam, Verdict};
use crate::intake::tries::{Disposition, Tries};
use crate::intake::verify::Verify;
use crate::intake::written::Mark;
use crate::owed::{Debts, Owed};
use crate::relay::decode::Decoding;
use crate::relay::item::{Failure, Item};
use crate::relay::socket::{MESSAGE_BYTES, Unfinished};
use crate::relay::transport::Skimming;
use crate::stream::batch::{Batch, Letter};
use crate::stream::live::Sampler;
use crate::stream::traces::{self, Arrival, EventTrace};

/// How often a frame may be too large at one cursor before it is skipped.
const OVERSIZED: u32 = 3;

/// What is known across the connections of one lease.
#[derive(Debug)]
pub(crate) struct Memory {
    /// How the current host sends.
    pub(crate) rhythm: Rhythm,
    /// Which hosts restarted their sequence.
    pub(crate) resets: Resets,
    revs: Revs,
    rates: Rates,
    /// Unreadable frames.
    tries: Tries,
    /// The last frame that was too large: the cursor before it, its size, how many times.
    oversized: Option<(Option<u64>, u64, u32)>,
    /// Frames that do not arrive complete.
    cuts: Cuts,
    /// The host read last, and its latest event times.
    host: String,
    recent: Recent,
    /// What verifies commits; none where they are not verified.
    pub(crate) verify: Option<Verify>,
    /// A reset is seen on one connection, and counted by the first batch of the next.
    incidents: Incidents,
    /// What is carried, and counts what is not.
    pub(crate) filtered: Filtered,
    /// Takes backfills of what was lost; none without a database.
    debts: Option<Debts>,
    /// The last possible gap, and the time of the event before it.
    gap: Option<(Gap, Option<Timestamp>)>,
}

/// Turns the items of one connection into batches.
pub(crate) struct Intake<'a> {
    /// The relay's host.
    pub(crate) host: &'a str,
    /// Judges the sequence numbers.
    pub(crate) seam: Seam,
    /// What is known across connections.
    pub(crate) memory: &'a mut Memory,
    /// Chooses which live events are published.
    pub(crate) sampler: &'a mut Sampler,
    /// Logs and counts.
    pub(crate) events: &'a Events,
    /// The batch being filled.
    pub(crate) batch: Option<Batch>,
    /// To be counted by the next batch that moves the cursor. What no batch has passed is seen again, so it must not be
    /// counted before.
    pub(crate) incidents: Incidents,
    /// Those of them that earlier connections left, and that no batch has taken yet.
    pub(crate) carried: Incidents,
    /// Whether there was a possible gap, and no loss was seen after it yet.
    pub(crate) watching: bool,
    /// When the current chunk was decoded.
    pub(crate) decoding: Option<Decoding>,
    /// How many events this connection brought that were not repeats.
    pub(crate) taken: u64,
    /// How many frames were skipped since the cursor moved; tells their letters apart.
    pub(crate) passed_over: u32,
}

/// What becomes of an event.
#[derive(Debug)]
struct Taken {
    /// Whether to write it.
    is_written: bool,
    /// Whether to go on with this connection.
    then: Result<(), Stop>,
}

/// Why a connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The host restarted its sequence; this is how to resume.
    Reset(Reset),
    /// A frame is unreadable.
    Unreadable,
    /// The host sent an error frame.
    Said(String),
}

// === impl Memory ===

impl Memory {
    /// Starts with nothing but the rates; `timeout` is how long a busy host may be silent, `debts` takes backfills where there is a
    /// database.
    pub(crate) fn new(timeout: Duration, rates: Rates, verify: Option<Verify>, debts: Option<Debts>) -> Self {
        Self {
            verify,
            filtered: Filtered::new(debts.clone()),
            debts,
            gap: None,
            rhythm: Rhythm::new(timeout),
            resets: Resets::default(),
            revs: Revs::default(),
            rates,
            incidents: Incidents::default(),
            tries: Tries::default(),
            oversized: None,
            cuts: Cuts::default(),
            host: String::new(),
            recent: Recent::default(),
        }
    }

    /// Prepares for reading a host.
    pub(crate) fn read(&mut self, host: &str, timeout: Duration) {
        if self.host != host {
            host.clone_into(&mut self.host);
            self.recent.clear();
            self.rhythm = Rhythm::new(timeout);
            self.tries.clear();
        }
    }

    /// Takes what the previous connection left to be counted.
    pub(crate) fn take_incidents(&mut self) -> Incidents {
        std::mem::take(&mut self.incidents)
    }

    /// Keeps what the next connection is to count.
    pub(crate) fn leave(&mut self, incidents: Incidents) {
        self.incidents = incidents;
    }

    /// Returns what to look for in the bytes that follow the cursor.
    pub(crate) fn skimming(&self, cursor: Option<u64>) -> Skimming {
        if self.oversized.is_some_and(|(at, _, times)| at == cursor && times + 1 >= OVERSIZED) {
            Skimming::Over(MESSAGE_BYTES as u64)
        } else if self.cuts.is_to_watch(cursor) {
            Skimming::Ends
        } else {
            Skimming::No
        }
    }

    /// Returns the frame after the cursor that is to be skipped because it never arrived complete.
    pub(crate) fn never_whole(&self, cursor: Option<u64>) -> Option<(u64, Bytes)> {
        self.cuts.never_whole(cursor)
    }
}

// === impl Intake ===

impl Intake<'_> {
    /// Records that the connection ended at a frame of this size, too large to be read.
    pub(crate) fn oversized(&mut self, size: u64) {
        let cursor = self.seam.cursor();
        let times = match self.memory.oversized {
            Some((at, same, times)) if (at, same) == (cursor, size) => times + 1,
            _ => 1,
        };
        self.memory.oversized = Some((cursor, size, times));
        self.events.oversized(size, cursor, times);
    }

    /// Records that the connection ended in the middle of a frame.
    pub(crate) fn cut(&mut self, unfinished: Unfinished) {
        let (cursor, seq) = (self.seam.cursor(), unfinished.seq);
        let times = self.memory.cuts.cut(cursor, unfinished);
        self.events.cut(seq, cursor, times);
    }

    /// Records that the connection ended without a close frame.
    pub(crate) fn ended(&mut self) {
        self.memory.cuts.ended(self.seam.cursor());
    }

    /// Dead-letters what arrived of a frame that never arrives complete, and moves the cursor past it.
    pub(crate) fn pass_never_whole(&mut self, seq: u64, beginning: Bytes) {
        self.events.never_whole(self.host, seq);
        let batch = self.batch.get_or_insert_with(|| Batch::new(Instant::now()));
        let error = "frame never arrives complete: the connection ended in the middle of it each time".to_owned();
        let id = hash(&("never whole", &beginning));
        batch.letter(Letter { frame: beginning, seq: Some(seq), did: None, error, id, is_loss: true });
        batch.advance(seq, self.seam.event_time());
    }

    /// Takes the batch to be sent.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        let mut batch = self.batch.take()?;
        batch.set_usual_time(self.memory.recent.median());
        if batch.moves_cursor() {
            batch.set_incidents(std::mem::take(&mut self.incidents));
            self.carried = Incidents::default();
        }
        batch.set_written(self.seam.kept());
        if batch.moves_cursor() {
            batch.set_filter(self.memory.filtered.take_unstored());
            batch.set_owed(self.memory.filtered.take_owed());
        }
        if let Some(verify) = &self.memory.verify {
            verify.send(&mut batch);
        }
        Some(batch)
    }

    /// Takes the rules under which the next items were decoded. Where they are others than before, that is told beside the cursor at
    /// once, even if no event follows.
    pub(crate) fn set_rules(&mut self, rules: &Arc<Rules>) {
        if !self.memory.filtered.set(rules, self.seam.cursor(), self.events) {
            return;
        }
        if let Some(verify) = &self.memory.verify {
            verify.states.lock().set_leaves_out(rules.has_collections());
        }
        if let Some(cursor) = self.seam.cursor()
            && self.memory.filtered.is_unstored()
        {
            let batch = self.batch.get_or_insert_with(|| Batch::new(Instant::now()));
            batch.advance(cursor, self.seam.event_time());
        }
    }

    /// Takes one item. If it stops the connection, everything before it is in the batch.
    pub(crate) fn take(
        &mut self,
        item: Item,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
        now: Timestamp,
    ) -> Result<(), Stop> {
        match item {
            Item::Event(event) => {
                self.events.event(event.kind);
                let taken = self.judge(Mark::event(&event), event.time, share, received, now);
                if taken.is_written {
                    self.event(event, false, share, received, now);
                }
                return taken.then;
            }
            Item::Failed(event, failure, frame) => {
                self.events.event(event.kind);
                let taken = self.judge(Mark::event(&event), event.time, share, received, now);
                if taken.is_written {
                    self.failed(event, &failure, frame, share, received, now);
                }
                return taken.then;
            }
            Item::Sync(sync) => {
                self.events.sync();
                let taken = self.judge(Mark::sync(&sync), sync.time, share, received, now);
                if taken.is_written && self.memory.filtered.rules().repo(&sync.did).is_some() {
                    self.advance(share, received);
                } else if taken.is_written {
                    self.memory.revs.sync(&sync.did, &sync.rev);
                    let is_new = self.memory.verify.as_ref().is_some_and(|verify| verify.sync(&sync, self.events));
                    self.advance(share, received);
                    if let Some(batch) = self.batch.as_mut().filter(|_| is_new) {
                        batch.desynchronized(&sync.did, Why::Sync.word());
                    }
                }
                return taken.then;
            }
            Item::Ignored(seq) => {
                self.events.other();
                if let Some(seq) = seq {
                    let taken = self.judge(Mark::frame(seq, &[]), None, share, received, now);
                    if taken.is_written {
                        self.advance(share, received);
                    }
                    return taken.then;
                }
            }
            Item::Refused(bad, frame) => {
                let taken = self.judge(Mark::frame(bad.seq, &frame), bad.time, share, received, now);
                if taken.is_written {
                    self.refused(&bad, frame, share, received);
                }
                return taken.then;
            }
            Item::Unreadable(error, frame) => return self.unreadable(&error, frame, share, received),
            Item::Oversized(size) => {
                self.passed_over += 1;
                self.events.passed_over(size, self.seam.cursor(), self.host);
                let id = hash(&("passed over", self.seam.cursor(), size, self.passed_over));
                let error = format!("frame of {size} bytes is too large");
                let batch = self.batch.get_or_insert_with(|| Batch::new(received));
                batch.letter(Letter { frame: Bytes::new(), seq: None, did: None, error, id, is_loss: true });
                batch.keep(share);
            }
            Item::Info(info) => {
                self.events.info(&info.name, info.message.as_deref());
                if &*info.name == "OutdatedCursor" {
                    self.seam.set_outdated();
                }
            }
            Item::Error(said) if &*said.error == "FutureCursor" => {
                let reset = self.record_reset(None);
                return Err(Stop::Reset(reset));
            }
            Item::Error(said) => {
                let message = said.message.as_deref().unwrap_or_default();
                return Err(Stop::Said(format!("{} {message}", said.error)));
            }
        }
        Ok(())
    }

    /// Judges an event's number, and decides what becomes of it.
    fn judge(
        &mut self,
        mark: Mark,
        time: Option<Timestamp>,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
        now: Timestamp,
    ) -> Taken {
        let before = self.seam.event_time();
        let verdict = self.seam.judge(mark, time, now);
        if matches!(verdict, Verdict::Repeat | Verdict::Pass) {
            self.events.repeat();
            if verdict == Verdict::Pass {
                self.advance(share, received);
            }
            return Taken { is_written: false, then: Ok(()) };
        }
        self.taken += 1;
        if let Some(time) = time {
            self.memory.recent.record(received, time, now);
        }
        let mut then = Ok(());
        if let Verdict::TakeAfterGap(gap) = verdict {
            self.events.gap(self.host, gap);
            self.incidents.gaps += 1;
            self.memory.gap = Some((gap, before));
            if gap.outdated {
                self.loss("the relay reported an outdated cursor");
            } else {
                self.watching = true;
            }
        }
        if verdict == Verdict::TakeReset {
            match self.record_reset(Some(mark.seq)) {
                Reset::FromOldest => then = Err(Stop::Reset(Reset::FromOldest)),
                Reset::Live => self.seam.follow_reset(),
            }
        }
        Taken { is_written: true, then }
    }

    fn event(
        &mut self,
        event: Event,
        has_failed: bool,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
        now: Timestamp,
    ) {
        self.memory.filtered.count(&event, self.events);
        if event.is_outside() {
            return self.advance(share, received);
        }
        if let Some(rev) = &event.rev {
            let missed = self.memory.revs.commit(&event.did, rev, event.since.as_deref());
            if missed && self.watching {
                self.watching = false;
                self.loss("after the gap a repo continues from a revision that never arrived");
            }
        }
        if event.is_filtered_out() {
            return self.filtered_out(&event, has_failed, share, received);
        }
        // Only what is published is formatted: at full speed that is one event in thirty.
        let shown = event.head != Headline::Commit { first: None } && self.sampler.admit(tokio::time::Instant::now());
        let live = if shown { live(&event, now) } else { None };
        let trace = self.arrival(received).and_then(|arrival| EventTrace::of(&event, arrival));
        let sent = Sent {
            did: &event.did,
            is_commit: event.kind == EventKind::Commit,
            ops: event.ops,
            bytes: event.data.len(),
            time: event.time,
        };
        let is_above = self.memory.rates.is_above(sent, received, now);
        if event.missing > 0 {
            self.events.missing(&event);
        }
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        if !event.left_out.is_empty() {
            self.events.parts_left_out(&event);
            left_out(&event).for_each(|letter| batch.letter(letter));
        }
        let proven = self.memory.verify.as_ref().map(|verify| verify.commit(&event, has_failed, self.events));
        batch.entry(event.kind, event.data, event.seq, trace);
        batch.set_proven(proven.unwrap_or_default());
        if is_above {
            batch.set_above();
        }
        if let Some(live) = live {
            batch.live(live);
        }
        self.advance(share, received);
    }

    /// Passes a commit of which the filter leaves nothing: it makes no entry, but its repo is where it says.
    fn filtered_out(&mut self, event: &Event, has_failed: bool, share: &Arc<OwnedSemaphorePermit>, received: Instant) {
        let why = self.memory.verify.as_ref().and_then(|verify| verify.commit_left_out(event, has_failed, self.events));
        if !event.left_out.is_empty() {
            self.events.parts_left_out(event);
            let batch = self.batch.get_or_insert_with(|| Batch::new(received));
            left_out(event).for_each(|letter| batch.letter(letter));
        }
        self.advance(share, received);
        if let (Some(why), Some(batch)) = (why, &mut self.batch) {
            batch.desynchronized(&event.did, why.word());
        }
    }

    /// Counts a commit that proves wrong, and where that is enforced sets it aside; otherwise it is written as any other.
    fn failed(
        &mut self,
        event: Event,
        failure: &Failure,
        frame: Bytes,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
        now: Timestamp,
    ) {
        let is_refused = self.memory.verify.as_ref().is_some_and(|verify| verify.refuses(&event, failure, self.events));
        if !is_refused {
            return self.event(event, true, share, received, now);
        }
        let id = hash(&frame);
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        batch.desynchronized(&event.did, Why::Refused.word());
        let error = format!("commit failed verification: {failure}");
        batch.letter(Letter { frame, seq: Some(event.seq), did: Some(event.did), error, id, is_loss: false });
        self.advance(share, received);
    }

    fn refused(&mut self, bad: &BadFrame, frame: Bytes, share: &Arc<OwnedSemaphorePermit>, received: Instant) {
        self.events.refused(bad);
        if let Some(arrival) = self.arrival(received) {
            traces::refused(bad, arrival);
        }
        let is_outside = bad.did.as_deref().is_some_and(|did| self.memory.filtered.rules().repo(did).is_some());
        // A #sync is never applied, so there is nothing to repair.
        if bad.kind != BodyKind::Sync && !(is_outside && bad.kind == BodyKind::Commit) {
            let id = hash(&frame);
            let batch = self.batch.get_or_insert_with(|| Batch::new(received));
            batch.letter(Letter {
                frame,
                seq: Some(bad.seq),
                did: bad.did.clone(),
                error: bad.to_string(),
                id,
                is_loss: false,
            });
        }
        self.advance(share, received);
    }

    fn unreadable(
        &mut self,
        error: &FrameError,
        frame: Bytes,
        share: &Arc<OwnedSemaphorePermit>,
        received: Instant,
    ) -> Result<(), Stop> {
        let id = hash(&frame);
        let answer = self.memory.tries.unreadable(id, received);
        self.events.unreadable(error, self.seam.cursor(), answer);
        if let Disposition::ReadAgain(_) = answer {
            return Err(Stop::Unreadable);
        }
        // Even if it was set aside before: that may not have been written, and the script writes each letter once.
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        batch.letter(Letter { frame, seq: None, did: None, error: error.to_string(), id, is_loss: false });
        batch.keep(share);
        Ok(())
    }

    fn advance(&mut self, share: &Arc<OwnedSemaphorePermit>, received: Instant) {
        self.passed_over = 0;
        let batch = self.batch.get_or_insert_with(|| Batch::new(received));
        if let Some(cursor) = self.seam.cursor() {
            batch.advance(cursor, self.seam.event_time());
        }
        batch.keep(share);
    }

    fn arrival(&self, received: Instant) -> Option<Arrival<'_>> {
        Some(Arrival { host: self.host, received, decoding: self.decoding? })
    }

    /// Records that the host restarted its sequence, and decides how to resume.
    fn record_reset(&mut self, seq: Option<u64>) -> Reset {
        let now = tokio::time::Instant::now();
        let reset = self.memory.resets.decide(self.host, now);
        let suppressed = self.memory.resets.tell(self.host, now);
        self.events.reset(self.host, self.seam.cursor(), seq, reset, suppressed);
        self.incidents.resets += 1;
        reset
    }

    fn loss(&mut self, evidence: &'static str) {
        self.events.data_loss(self.host, evidence);
        self.incidents.losses += 1;
        if let (Some(debts), Some((gap, time))) = (&self.memory.debts, self.memory.gap) {
            debts.add(Owed::by_gap(gap.after, gap.first, time));
        }
    }
}

/// Returns a letter for each part that was left out of an event, with the bytes of its block.
fn left_out(event: &Event) -> impl Iterator<Item = Letter> {
    event.left_out.iter().enumerate().map(|(index, part)| {
        let (did, rev) = (&event.did, event.rev.as_deref().unwrap_or_default());
        let of = part.path.as_ref().map(|path| format!(" op at://{did}/{path}")).unwrap_or_default();
        let cid = part.cid.as_ref().map(|cid| format!(" cid {cid}")).unwrap_or_default();
        Letter {
            frame: Bytes::from(part.block.clone()),
            seq: Some(event.seq),
            did: Some(event.did.clone()),
            error: format!("left out of #commit {}{of}{cid} of {did} rev {rev}: {}", event.seq, part.reason),
            id: hash(&("left out", event.seq, did, rev, index)),
            is_loss: false,
        }
    })
}

/// Returns what identifies a letter.
fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Returns what live streams show of an event; nothing for a commit without ops.
fn live(event: &Event, now: Timestamp) -> Option<Broadcast> {
    let live = match &event.head {
        Headline::Commit { first } => {
            let (action, path) = first.as_ref()?;
            Broadcast::commit(&event.did, path, *action, now)
        }
        Headline::Identity { handle } => Broadcast::identity(&event.did, handle.as_deref(), now),
        Headline::Account { active } => Broadcast::account(&event.did, *active, now),
    };
    Some(live.of(event.rev.as_deref(), event.seq))
}

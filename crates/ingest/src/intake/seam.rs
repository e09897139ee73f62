//! Follows a host's sequence numbers: which event is a repeat, where the main line is, whether the sequence restarted.
//!
//! A number is a place to resume from and nothing else. Every event is written whatever its number, unless the very same event
//! was just written under the same number. The cursor follows the *main line*, which moves to numbers close to it. A number far
//! ahead is written, and believed once others follow it; several in a row below show that the host restarted its sequence.
//!
//! How far is far is a question of cost. Mistaking a real jump for a stray number only keeps the cursor back for
//! [`FOLLOWERS`] events, whose repeats are known. Mistaking a stray number for the line loses the events between if ingest stops
//! there, because it would resume behind them. So [`NEAR`] is small, no greater than what relays usually skip.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::intake::written::{Mark, Written};

/// How far the main line moves in one step.
const NEAR: u64 = 100;

/// How many rising numbers must follow one that is far ahead.
const FOLLOWERS: u32 = 3;

/// How many rising numbers in a row below the line show that a host restarted its sequence.
const BELOW: u32 = 3;

/// How many jumps of the main line are remembered, and for how many events: numbers from between are late.
const JUMPS: (usize, u64) = (4, 64);

/// The place where one connection resumed, and the line it follows from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    /// The last number of the main line.
    cursor: Option<u64>,
    /// The latest event time up to there, capped at its arrival. A hint for others; nothing here depends on it.
    event_time: Option<Timestamp>,
    /// Whether the first frame past the cursor is still to come.
    open: bool,
    /// Whether the host reported that the cursor is outdated.
    outdated: bool,
    /// Numbers in a row that are not on the main line.
    run: Option<Run>,
    /// The numbers before the last jumps of the line, and the event at which each happened.
    jumps: VecDeque<(u64, u64)>,
    /// How many events were written on this connection.
    events: u64,
    /// Whether the host is being read after a reset.
    is_after_reset: bool,
    written: Written,
}

/// Numbers in a row, each greater than the one before, all above the main line or all below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    is_above: bool,
    first: u64,
    last: u64,
    count: u32,
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write it.
    Take,
    /// Write it; numbers before it were skipped by the host.
    TakeAfterGap(Gap),
    /// Write it; it is the last of several that show that the host restarted its sequence.
    TakeReset,
    /// Skip it: it was written before.
    Repeat,
    /// Skip it but move the cursor: it was written when it showed that the host restarted its sequence.
    Pass,
}

/// Sequence numbers that the host skipped. Numbers may be unused without an event being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The cursor before it.
    pub(crate) after: u64,
    /// The first number after it.
    pub(crate) first: u64,
    /// Whether the host reported that the cursor is outdated.
    pub(crate) outdated: bool,
}

// === impl Seam ===

impl Seam {
    /// Resumes at a cursor of the same host, with the events written last.
    pub(crate) fn after(cursor: u64, event_time: Option<Timestamp>, written: Written) -> Self {
        Self { cursor: Some(cursor), event_time, open: true, written, ..Self::anything() }
    }

    /// Resumes at a number up to which nothing is missing. It need not be that of an event, so only the host can report a gap
    /// after it.
    pub(crate) fn past(cursor: u64, event_time: Option<Timestamp>) -> Self {
        Self { cursor: Some(cursor), event_time, ..Self::anything() }
    }

    /// Accepts whatever arrives first: the cursor is another host's, or of a sequence that is gone.
    pub(crate) fn anything() -> Self {
        Self {
            cursor: None,
            event_time: None,
            open: false,
            outdated: false,
            run: None,
            jumps: VecDeque::new(),
            events: 0,
            is_after_reset: false,
            written: Written::default(),
        }
    }

    /// Accepts whatever arrives first after a reset, except what was just written.
    pub(crate) fn after_reset(written: Written) -> Self {
        Self { written, is_after_reset: true, ..Self::anything() }
    }

    /// Records that the host reported the cursor as outdated.
    pub(crate) fn set_outdated(&mut self) {
        self.outdated = true;
    }

    /// Returns the last number of the main line.
    pub(crate) fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Returns the latest event time taken.
    pub(crate) fn event_time(&self) -> Option<Timestamp> {
        self.event_time
    }

    /// Returns what to store beside the cursor.
    pub(crate) fn kept(&self) -> String {
        self.written.kept(self.cursor.unwrap_or_default())
    }

    /// Judges the next event, and records it as written unless it is a repeat.
    pub(crate) fn judge(&mut self, mark: Mark, time: Option<Timestamp>, now: Timestamp) -> Verdict {
        let seq = mark.seq;
        if self.written.holds(mark) {
            self.written.name(mark);
            if self.cursor == Some(seq) {
                self.open = false;
            }
            let is_next = self.cursor.is_none_or(|cursor| seq > cursor && seq - cursor <= NEAR);
            if self.is_after_reset && is_next {
                self.go_to(mark);
                return Verdict::Pass;
            }
            return Verdict::Repeat;
        }
        self.events += 1;
        self.event_time = self.event_time.max(time.map(|time| time.min(now)));
        let Some(cursor) = self.cursor else {
            self.go_to(mark);
            return Verdict::Take;
        };
        if seq > cursor {
            let gap =
                (self.open || self.outdated).then_some(Gap { after: cursor, first: seq, outdated: self.outdated });
            (self.open, self.outdated) = (false, false);
            self.take_above(mark, cursor);
            return gap.map_or(Verdict::Take, Verdict::TakeAfterGap);
        }
        self.take_below(mark)
    }

    /// Moves the line to the run of numbers below it: the host restarted its sequence, and is followed there.
    pub(crate) fn follow_reset(&mut self) {
        if let Some(run) = self.run.take() {
            self.cursor = Some(run.last);
            self.jumps.clear();
        }
    }

    fn take_above(&mut self, mark: Mark, cursor: u64) {
        if mark.seq - cursor > NEAR && self.runs_on(true, mark.seq).count <= FOLLOWERS {
            self.written.record_above(mark);
            return;
        }
        if mark.seq - cursor > 1 {
            let (most, _) = JUMPS;
            self.jumps.push_back((cursor, self.events));
            if self.jumps.len() > most {
                self.jumps.pop_front();
            }
        }
        self.go_to(mark);
    }

    fn take_below(&mut self, mark: Mark) -> Verdict {
        self.written.record(mark, false);
        let run = self.runs_on(false, mark.seq);
        if run.count < BELOW {
            return Verdict::Take;
        }
        let (_, lately) = JUMPS;
        if self.jumps.iter().any(|(from, at)| run.first > *from && self.events - at <= lately) {
            // The line had jumped to a stray number, and these fill the gap: move it back to them.
            self.follow_reset();
            return Verdict::Take;
        }
        Verdict::TakeReset
    }

    fn go_to(&mut self, mark: Mark) {
        self.cursor = Some(mark.seq);
        self.run = None;
        self.written.record(mark, true);
        self.written.pass(mark.seq);
    }

    /// Counts one more number of a run.
    fn runs_on(&mut self, is_above: bool, seq: u64) -> Run {
        let run = match self.run {
            Some(run) if run.is_above == is_above && seq > run.last => Run { last: seq, count: run.count + 1, ..run },
            _ => Run { is_above, first: seq, last: seq, count: 1 },
        };
        self.run = Some(run);
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn mark(seq: u64) -> Mark {
        Mark { seq, print: u32::try_from(seq % 1_000_000_007).unwrap() }
    }

    /// Judges numbers that each stand for an event of their own.
    fn judged(seam: &mut Seam, seqs: impl IntoIterator<Item = u64>) -> Vec<Verdict> {
        seqs.into_iter().map(|seq| seam.judge(mark(seq), None, now())).collect()
    }

    fn at(cursor: u64) -> Seam {
        Seam::after(cursor, None, Written::read("", cursor))
    }

    use Verdict::{Repeat, Take, TakeReset};

    #[test]
    fn the_cursor_itself_shows_a_whole_seam() {
        let mut seam = at(10);
        assert_eq!(judged(&mut seam, [10, 12]), [Repeat, Take], "numbers may be left out past the seam");
        assert_eq!(seam.cursor(), Some(12));
        assert_eq!(judged(&mut at(10), [9, 10, 11]), [Repeat, Repeat, Take], "some answer with what was asked for");
    }

    #[test]
    fn a_first_number_above_the_cursor_is_a_possible_gap() {
        let mut seam = at(10);
        let gap = Gap { after: 10, first: 11, outdated: false };
        assert_eq!(judged(&mut seam, [11, 20]), [Verdict::TakeAfterGap(gap), Take]);
        let mut seam = at(10);
        seam.set_outdated();
        let gap = Gap { after: 10, first: 500, outdated: true };
        assert_eq!(judged(&mut seam, [500, 501]), [Verdict::TakeAfterGap(gap), Take]);
    }

    #[test]
    fn past_a_checkpoint_only_the_host_can_tell_of_a_gap() {
        assert_eq!(judged(&mut Seam::past(10, None), [500]), [Take]);
        let mut seam = Seam::past(10, None);
        seam.set_outdated();
        let gap = Gap { after: 10, first: 500, outdated: true };
        assert_eq!(judged(&mut seam, [500, 501]), [Verdict::TakeAfterGap(gap), Take]);
        assert_eq!(judged(&mut Seam::past(1000, None), 5..8), [Take, Take, TakeReset]);
    }

    #[test]
    fn one_far_number_moves_nothing_and_hides_nothing() {
        let mut seam = Seam::anything();
        let verdicts = judged(&mut seam, (1_000..=1_004).chain([900_000]).chain(1_005..=1_024));
        assert!(verdicts.iter().all(|verdict| *verdict == Take), "{verdicts:?}");
        assert_eq!(seam.cursor(), Some(1_024));
        let mut again = Seam::after(1_024, None, Written::read(&seam.kept(), 1_024));
        assert_eq!(judged(&mut again, [900_000, 1_024, 1_025]), [Repeat, Repeat, Take], "it is known at the next seam");
    }

    #[test]
    fn a_far_number_is_believed_once_three_follow() {
        let mut seam = at(10);
        judged(&mut seam, [10, 5_000, 5_001, 5_003]);
        assert_eq!(seam.cursor(), Some(10));
        assert_eq!(judged(&mut seam, [5_010]), [Take]);
        assert_eq!(seam.cursor(), Some(5_010));
        // Whoever leaves out many numbers each time is followed too.
        judged(&mut seam, [10_000, 20_000, 30_000, 40_000]);
        assert_eq!(seam.cursor(), Some(40_000));
    }

    #[test]
    fn two_lines_at_once_are_both_written() {
        let mut seam = Seam::anything();
        let both = (0..50).flat_map(|step| [1_000 + step, 900_000 - step]);
        assert!(judged(&mut seam, both).iter().all(|verdict| *verdict == Take));
        assert_eq!(seam.cursor(), Some(1_049));
    }

    #[test]
    fn a_late_number_is_written_and_moves_nothing() {
        let mut seam = at(1_060);
        judged(&mut seam, [1_060, 1_061]);
        assert_eq!(judged(&mut seam, [1_064, 1_062, 1_065]), [Take; 3]);
        assert_eq!(seam.cursor(), Some(1_065));
        assert_eq!(judged(&mut seam, [1_062, 1_065]), [Repeat; 2]);
    }

    #[test]
    fn the_line_goes_back_to_what_a_stray_number_left_out() {
        for stray in [vec![1_054], vec![900_000, 900_001, 900_002, 900_003]] {
            let mut seam = at(1_000);
            judged(&mut seam, 1_000..=1_004);
            judged(&mut seam, stray.clone());
            assert_eq!(seam.cursor(), stray.last().copied(), "it is believed");
            assert!(judged(&mut seam, 1_005..=1_053).iter().all(|verdict| *verdict == Take));
            assert_eq!(seam.cursor(), Some(1_053));
        }
    }

    #[test]
    fn three_in_a_row_below_and_rising_count_anew() {
        let mut seam = at(1_000);
        judged(&mut seam, [1_000]);
        assert_eq!(judged(&mut seam, [7, 6, 5, 4, 3, 4, 1_000]), [Take, Take, Take, Take, Take, Repeat, Repeat]);
        assert_eq!(judged(&mut seam, [8]), [Take]);
        assert_eq!(judged(&mut seam, [9]), [TakeReset]);
        assert_eq!(seam.cursor(), Some(1_000), "whoever reads it from its oldest keeps the cursor until then");
        seam.follow_reset();
        assert_eq!(judged(&mut seam, [10, 11]), [Take, Take]);
        assert_eq!(seam.cursor(), Some(11));
    }

    #[test]
    fn what_showed_that_a_host_counts_anew_is_passed_when_it_is_read_from_its_oldest() {
        let mut seam = at(1_000);
        assert_eq!(judged(&mut seam, [1_000, 6, 7, 8]), [Repeat, Take, Take, TakeReset]);
        let mut anew = Seam::after_reset(Written::read(&seam.kept(), 0));
        assert_eq!(judged(&mut anew, 4..=9), [Take, Take, Verdict::Pass, Verdict::Pass, Verdict::Pass, Take]);
        let mut anew = Seam::after_reset(Written::read(&seam.kept(), 0));
        judged(&mut anew, 6..=8);
        assert_eq!(anew.cursor(), Some(8), "though nothing else came");
    }

    #[test]
    fn another_event_under_a_number_that_was_used_is_written() {
        let mut seam = Seam::anything();
        judged(&mut seam, 1..=10);
        let other = |seq| Mark { print: 0, ..mark(seq) };
        assert!((1..=10).all(|seq| seam.judge(other(seq), None, now()) != Repeat));
    }

    #[test]
    fn times_are_hints_and_decide_nothing() {
        let at = |seconds| Timestamp::from_second(seconds).ok();
        let mut seam = Seam::anything();
        for (seq, time) in [(1, at(9_000_000)), (2, None), (3, at(5)), (4, at(-9_000_000)), (5, at(999_999))] {
            assert_eq!(seam.judge(mark(seq), time, now()), Take);
        }
        assert_eq!((seam.cursor(), seam.event_time()), (Some(5), Some(now())));
    }
}

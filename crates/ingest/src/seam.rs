//! Judges each sequence number: new, a repeat, behind a gap, or a sign that the host's sequence began again.

use jiff::{SignedDuration, Timestamp};

/// How far ahead of ours a host's clock may be. An event from beyond proves nothing about the order of things.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// Where reading was to go on, on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    /// The last sequence number taken.
    cursor: Option<u64>,
    /// The latest event time up to there, never later than when it was received.
    event_time: Option<Timestamp>,
    /// Whether the first frame past the cursor is still to come.
    open: bool,
    /// Whether the host said that the cursor is older than what it keeps.
    outdated: bool,
}

/// What is to be done with a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new.
    Take,
    /// It is new, and the first after a number that the host did not send.
    TakeAfterGap(Gap),
    /// It was written before.
    Repeat,
    /// It is below the cursor and yet later: the host counts anew.
    Reset,
}

/// A stretch of sequence numbers that the host did not send. Numbers may be left out without an event being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The cursor before it.
    pub(crate) after: u64,
    /// The first number behind it.
    pub(crate) first: u64,
    /// Whether the host said that it no longer has what was asked for.
    pub(crate) outdated: bool,
}

// === impl Seam ===

impl Seam {
    /// Goes on after a cursor of the same host, or with whatever comes where there is none.
    pub(crate) fn after(cursor: Option<u64>, event_time: Option<Timestamp>) -> Self {
        Self { cursor, event_time, open: cursor.is_some(), outdated: false }
    }

    /// Goes on after a number up to which nothing is missing, which need not be that of an event: so only the host can tell
    /// of a gap behind it.
    pub(crate) fn past(cursor: u64, event_time: Option<Timestamp>) -> Self {
        Self { cursor: Some(cursor), event_time, open: false, outdated: false }
    }

    /// Takes whatever comes first: the cursor is another host's, or of a sequence that is gone.
    pub(crate) fn anything() -> Self {
        Self { cursor: None, event_time: None, open: false, outdated: false }
    }

    /// Notes that the host no longer has what was asked for.
    pub(crate) fn set_outdated(&mut self) {
        self.outdated = true;
    }

    /// Returns the last number taken.
    pub(crate) fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Returns the latest event time taken.
    pub(crate) fn event_time(&self) -> Option<Timestamp> {
        self.event_time
    }

    /// Judges the next frame's number, and moves on if it is taken.
    ///
    /// Event times are not in order: hosts copy them from clocks that are not theirs. So the latest one up to the cursor
    /// counts, capped at the time of receipt; a repeat is never later than that.
    pub(crate) fn judge(&mut self, seq: u64, time: Option<Timestamp>, now: Timestamp) -> Verdict {
        let believable = time.filter(|time| now.checked_add(CLOCKS_DIFFER).is_ok_and(|latest| *time <= latest));
        let verdict = match self.cursor {
            None => Verdict::Take,
            Some(cursor) if seq > cursor => {
                if self.open || self.outdated {
                    Verdict::TakeAfterGap(Gap { after: cursor, first: seq, outdated: self.outdated })
                } else {
                    Verdict::Take
                }
            }
            Some(cursor) if seq == cursor => {
                self.open = false;
                return Verdict::Repeat;
            }
            // What was asked for is above cursor - 1; some hosts answer with cursor - 1 itself.
            Some(cursor) if seq + 1 == cursor => return Verdict::Repeat,
            Some(_) => match (believable, self.event_time) {
                (Some(time), Some(before)) if time > before => return Verdict::Reset,
                // Nothing says how old the cursor is: skipping everything for good would be worse than reading it again.
                (Some(_), None) => return Verdict::Reset,
                _ => return Verdict::Repeat,
            },
        };
        (self.open, self.outdated) = (false, false);
        self.cursor = Some(seq);
        self.event_time = self.event_time.max(time.map(|time| time.min(now)));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_second(seconds).ok()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    #[test]
    fn the_cursor_itself_shows_a_whole_seam() {
        let mut seam = Seam::after(Some(10), at(100));
        assert_eq!(seam.judge(10, at(100), now()), Verdict::Repeat);
        assert_eq!(seam.judge(12, at(101), now()), Verdict::Take, "numbers may be left out past the seam");
        assert_eq!(seam.cursor(), Some(12));
    }

    #[test]
    fn a_host_that_answers_with_what_was_asked_is_whole_too() {
        let mut seam = Seam::after(Some(10), at(100));
        assert_eq!(seam.judge(9, at(99), now()), Verdict::Repeat);
        assert_eq!(seam.judge(10, at(100), now()), Verdict::Repeat);
        assert_eq!(seam.judge(11, at(101), now()), Verdict::Take);
    }

    #[test]
    fn a_first_number_above_the_cursor_is_a_possible_gap() {
        let mut seam = Seam::after(Some(10), at(100));
        let gap = Gap { after: 10, first: 11, outdated: false };
        assert_eq!(seam.judge(11, at(101), now()), Verdict::TakeAfterGap(gap));
        assert_eq!(seam.judge(20, at(102), now()), Verdict::Take);
        let mut seam = Seam::after(Some(10), at(100));
        seam.set_outdated();
        let gap = Gap { after: 10, first: 500, outdated: true };
        assert_eq!(seam.judge(500, at(101), now()), Verdict::TakeAfterGap(gap));
    }

    #[test]
    fn past_a_checkpoint_only_the_host_can_tell_of_a_gap() {
        let mut seam = Seam::past(10, None);
        assert_eq!(seam.judge(500, at(101), now()), Verdict::Take);
        let mut seam = Seam::past(10, None);
        seam.set_outdated();
        let gap = Gap { after: 10, first: 500, outdated: true };
        assert_eq!(seam.judge(500, at(101), now()), Verdict::TakeAfterGap(gap));
        assert_eq!(seam.judge(501, at(101), now()), Verdict::Take);
        assert_eq!(Seam::past(1000, None).judge(5, at(100), now()), Verdict::Reset);
    }

    #[test]
    fn far_below_the_cursor_the_time_decides() {
        let mut seam = Seam::after(Some(1000), at(100));
        assert_eq!(seam.judge(5, at(100), now()), Verdict::Repeat);
        assert_eq!(seam.judge(6, None, now()), Verdict::Repeat);
        assert_eq!(seam.judge(7, at(101), now()), Verdict::Reset);
    }

    #[test]
    fn a_repeat_out_of_time_order_is_no_reset() {
        let mut seam = Seam::anything();
        assert_eq!(seam.judge(1, at(100), now()), Verdict::Take);
        assert_eq!(seam.judge(2, at(500), now()), Verdict::Take);
        assert_eq!(seam.judge(3, at(101), now()), Verdict::Take);
        assert_eq!(seam.judge(4, at(102), now()), Verdict::Take);
        assert_eq!(seam.judge(2, at(500), now()), Verdict::Repeat);
    }

    #[test]
    fn an_event_from_the_future_does_not_hide_a_reset_for_good() {
        let mut seam = Seam::anything();
        assert_eq!(seam.judge(900, at(9_000_000), now()), Verdict::Take);
        let later = Timestamp::from_second(1_000_005).unwrap();
        assert_eq!(seam.judge(3, Some(later), later), Verdict::Reset);
    }

    #[test]
    fn a_repeat_from_the_far_future_is_no_reset() {
        let mut seam = Seam::after(Some(1000), at(1_000_000));
        assert_eq!(seam.judge(5, at(9_000_000), now()), Verdict::Repeat);
    }

    #[test]
    fn a_cursor_of_unknown_age_does_not_skip_everything() {
        let mut seam = Seam::after(Some(1000), None);
        assert_eq!(seam.judge(5, at(100), now()), Verdict::Reset);
    }

    #[test]
    fn without_a_cursor_anything_is_taken() {
        let mut seam = Seam::after(None, None);
        assert_eq!(seam.judge(77, None, now()), Verdict::Take);
        assert_eq!(seam.cursor(), Some(77));
    }
}

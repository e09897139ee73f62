//! The numbers written lately, each with a fingerprint of its event, to tell a repeat from another event of the same number.
//!
//! What the host may send again after a resume is stored beside the cursor, so that a cut at any frame duplicates nothing. On a
//! well-behaved host that is small: the event at the cursor and the one before it.

use std::collections::VecDeque;
use std::fmt::Write;

use penstock_core::data::EventKind;
use penstock_wire::{Event, Sync};

/// How many numbers are remembered on a connection, in order of arrival.
const RECENT: usize = 1_024;

/// How many numbers are stored beside the cursor at most: some 5 kB, and only on a host with odd numbers.
const KEPT: usize = 256;

/// A number below the cursor is not expected again after a resume once this many others have arrived since.
const BEHIND: usize = 64;

/// A number and the event it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The host's number.
    pub(crate) seq: u64,
    /// A fingerprint of the event.
    pub(crate) print: u32,
}

/// The numbers written lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// In order of arrival; whether each was on the main line.
    recent: VecDeque<(Mark, bool)>,
    /// Numbers above the main line: a host that resumes by number sends them again, however long ago they arrived.
    above: VecDeque<Mark>,
    /// The greatest number, or more.
    top: u64,
    /// A number whose event is unknown. It and the one before it may arrive again until
    /// something else does.
    unnamed: Option<u64>,
    /// How many arrived since `top` was recomputed.
    since_look: usize,
}

// === impl Mark ===

impl Mark {
    /// Returns the mark of an event.
    pub(crate) fn event(event: &Event) -> Self {
        let print = match (event.kind, &event.rev) {
            // No two commits of a repo have the same revision.
            (EventKind::Commit, Some(rev)) => print(&[event.did.as_bytes(), rev.as_bytes()]),
            _ => print(&[event.kind.as_str().as_bytes(), &event.data]),
        };
        Self { seq: event.seq, print }
    }

    /// Returns the mark of a `#sync`.
    pub(crate) fn sync(sync: &Sync) -> Self {
        Self { seq: sync.seq, print: print(&[b"#sync", sync.did.as_bytes(), sync.rev.as_bytes()]) }
    }

    /// Returns the mark of a frame of which only the number is understood.
    pub(crate) fn frame(seq: u64, frame: &[u8]) -> Self {
        Self { seq, print: print(&[frame]) }
    }
}

/// Hashes by FNV-1a: it is stored, so it must be the same in every version.
fn print(parts: &[&[u8]]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let folded = (hash >> 32) ^ (hash & u64::from(u32::MAX));
    u32::try_from(folded).unwrap_or_default()
}

// === impl Written ===

impl Written {
    /// Parses what was stored beside a cursor. If the event at the cursor is not among it, its number alone decides.
    pub(crate) fn read(text: &str, cursor: u64) -> Self {
        let mut written = Self::default();
        for word in text.split_ascii_whitespace() {
            let mark = word.split_once('.').and_then(|(seq, print)| {
                Some(Mark { seq: seq.parse().ok()?, print: u32::from_str_radix(print, 16).ok()? })
            });
            let Some(mark) = mark else { continue };
            if mark.seq > cursor {
                written.above.push_back(mark);
            } else {
                // A number below was off the line, and may arrive again for as long.
                written.recent.push_back((mark, mark.seq + 1 >= cursor));
            }
            written.top = written.top.max(mark.seq);
        }
        if !written.recent.iter().any(|(mark, _)| mark.seq == cursor) {
            written.unnamed = Some(cursor);
            written.top = written.top.max(cursor);
        }
        written
    }

    /// Returns whether this very event was just written under this number.
    pub(crate) fn holds(&self, mark: Mark) -> bool {
        if mark.seq > self.top {
            return false;
        }
        // Some hosts start with the number they are asked for, others after it.
        let is_at_seam = self.unnamed.is_some_and(|cursor| cursor == mark.seq || cursor == mark.seq + 1);
        is_at_seam || self.recent.iter().any(|(known, _)| *known == mark) || self.above.contains(&mark)
    }

    /// Records the event of a number that was unknown until it arrived again.
    pub(crate) fn name(&mut self, mark: Mark) {
        let is_known = self.recent.iter().any(|(known, _)| *known == mark);
        if self.unnamed.is_some() && !is_known {
            self.recent.push_back((mark, true));
        }
    }

    /// Records an event that is being written, on the main line or off it.
    pub(crate) fn record(&mut self, mark: Mark, is_on_line: bool) {
        self.unnamed = None;
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((mark, is_on_line));
        self.top = self.top.max(mark.seq);
        self.since_look += 1;
        if self.since_look >= RECENT {
            self.since_look = 0;
            let numbers = self.recent.iter().map(|(mark, _)| mark).chain(&self.above).map(|mark| mark.seq);
            self.top = numbers.max().unwrap_or_default();
        }
    }

    /// Records one that is above the main line.
    pub(crate) fn record_above(&mut self, mark: Mark) {
        if self.above.len() >= KEPT {
            self.above.pop_front();
        }
        self.above.push_back(mark);
        self.record(mark, false);
    }

    /// Records that the main line has passed some that were above it. They stay among the recent ones: it may move back.
    pub(crate) fn pass(&mut self, cursor: u64) {
        if self.above.iter().all(|mark| mark.seq > cursor) {
            return;
        }
        let above = std::mem::take(&mut self.above);
        for mark in above {
            if mark.seq > cursor {
                self.above.push_back(mark);
            } else if !self.recent.iter().any(|(known, _)| *known == mark) {
                self.recent.push_back((mark, false));
            }
        }
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Formats what may arrive again after a resume at the cursor, newest last.
    pub(crate) fn kept(&self, cursor: u64) -> String {
        let mut marks: Vec<Mark> = Vec::new();
        for (back, (mark, is_on_line)) in self.recent.iter().rev().enumerate() {
            let may_come = mark.seq + 1 >= cursor || !is_on_line && back < BEHIND;
            if may_come && marks.len() < KEPT {
                marks.push(*mark);
            }
        }
        let above = self.above.iter().rev().filter(|mark| !marks.contains(mark)).copied().collect::<Vec<_>>();
        marks.extend(above.into_iter().take(KEPT.saturating_sub(marks.len())));
        let mut text = String::with_capacity(marks.len() * 20);
        for Mark { seq, print } in marks.iter().rev() {
            let _ = write!(text, "{}{seq}.{print:x}", if text.is_empty() { "" } else { " " });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: u64) -> Mark {
        Mark { seq, print: u32::try_from(seq).unwrap() ^ 0xabcd }
    }

    #[test]
    fn an_event_is_known_by_number_and_print() {
        let mut written = Written::default();
        written.record(mark(5), true);
        assert!(written.holds(mark(5)));
        assert!(!written.holds(Mark { print: 1, ..mark(5) }), "another event under the same number");
        assert!(!written.holds(mark(6)));
    }

    #[test]
    fn what_is_kept_on_a_host_that_counts_well_is_the_cursor_and_the_one_before() {
        let mut written = Written::default();
        for seq in 1..5_000 {
            written.record(mark(seq), true);
        }
        let kept = written.kept(4_999);
        assert_eq!(kept.split(' ').count(), 2, "{kept}");
        let again = Written::read(&kept, 4_999);
        assert!(again.holds(mark(4_998)) && again.holds(mark(4_999)) && !again.holds(mark(4_997)));
        assert_eq!(again.kept(4_999), kept);
    }

    #[test]
    fn numbers_above_the_line_are_kept_until_it_passes_them() {
        let mut written = Written::default();
        written.record_above(mark(900_000));
        for seq in 1..5_000 {
            written.record(mark(seq), true);
            written.pass(seq);
        }
        assert!(Written::read(&written.kept(4_999), 4_999).holds(mark(900_000)));
        for seq in 900_001..900_100 {
            written.record(mark(seq), true);
            written.pass(seq);
        }
        let kept = written.kept(900_099);
        assert!(!Written::read(&kept, 900_099).holds(mark(900_000)), "{kept}");
    }

    #[test]
    fn without_a_print_the_number_is_gone_by_until_something_else_comes() {
        let mut written = Written::read("", 10);
        assert!(written.holds(mark(9)) && written.holds(mark(10)) && !written.holds(mark(11)));
        assert!(!written.holds(mark(8)));
        written.name(mark(10));
        written.record(mark(11), true);
        assert!(written.holds(mark(10)), "it came once more");
        assert!(!written.holds(Mark { print: 7, ..mark(10) }));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut written = Written::default();
        for seq in 0..10_000 {
            written.record_above(mark(1_000_000 + seq));
        }
        assert!(written.kept(5).len() <= KEPT * 20);
        assert!(Written::read(&written.kept(5), 5).holds(mark(1_009_999)));
        assert!(written.recent.len() <= RECENT && written.above.len() <= KEPT);
    }

    #[test]
    fn what_is_no_word_of_it_is_passed_over() {
        let written = Written::read("x 1.zz 7.ff 99999999999999999999999.1 -", 7);
        assert!(written.holds(Mark { seq: 7, print: 0xff }));
    }
}

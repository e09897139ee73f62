//! Frames that a host never delivers completely: each time, the connection ends in the middle of them.

use bytes::Bytes;

use crate::relay::socket::Unfinished;

/// How many connections must be seen to end at one place in the middle of a frame before it is skipped. The first end is not
/// observed, because nobody watches for it yet: so it is skipped the third time.
const SEEN: u32 = 2;

/// How far past the cursor a number found in an incomplete frame may be; one further away is not trusted.
const NEAR: u64 = 100;

/// How the last connections ended.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// The cursor at which the last one ended without a close frame; none where it ended otherwise.
    ended: Option<Option<u64>>,
    /// The last incomplete frame: the cursor before it, what arrived of it, how many times.
    cut: Option<(Option<u64>, Unfinished, u32)>,
}

// === impl Cuts ===

impl Cuts {
    /// Records that a connection ended without a close frame.
    pub(crate) fn ended(&mut self, cursor: Option<u64>) {
        self.ended = Some(cursor);
    }

    /// Records that one ended in the middle of a frame; returns how many times in a row it was this one.
    pub(crate) fn cut(&mut self, cursor: Option<u64>, unfinished: Unfinished) -> u32 {
        self.ended = Some(cursor);
        let times = match &self.cut {
            Some((at, before, times)) if *at == cursor && before.seq == unfinished.seq => times + 1,
            _ => 1,
        };
        self.cut = Some((cursor, unfinished, times));
        times
    }

    /// Returns whether to watch how a connection resumed at the cursor ends.
    pub(crate) fn is_to_watch(&self, cursor: Option<u64>) -> bool {
        self.ended == Some(cursor)
    }

    /// Returns the number and the beginning of the frame after the cursor that never arrives complete.
    pub(crate) fn never_whole(&self, cursor: Option<u64>) -> Option<(u64, Bytes)> {
        let (at, unfinished, times) = self.cut.as_ref()?;
        if *at != cursor || *times < SEEN {
            return None;
        }
        let seq = match cursor {
            Some(cursor) => unfinished
                .seq
                .filter(|seq| *seq > cursor && seq - cursor <= NEAR)
                .unwrap_or_else(|| cursor.saturating_add(1)),
            None => unfinished.seq?,
        };
        Some((seq, unfinished.beginning.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfinished(seq: Option<u64>) -> Unfinished {
        Unfinished { seq, beginning: Bytes::from_static(b"a") }
    }

    #[test]
    fn a_frame_is_passed_over_the_third_time() {
        let mut cuts = Cuts::default();
        cuts.ended(Some(5));
        assert!(cuts.is_to_watch(Some(5)) && !cuts.is_to_watch(Some(6)));
        assert_eq!((cuts.cut(Some(5), unfinished(Some(7))), cuts.never_whole(Some(5))), (1, None));
        assert_eq!(cuts.cut(Some(5), unfinished(Some(7))), 2);
        assert_eq!(cuts.never_whole(Some(5)).map(|(seq, _)| seq), Some(7));
        assert_eq!(cuts.never_whole(Some(7)), None, "reading went on");
    }

    #[test]
    fn another_frame_or_another_place_begins_anew() {
        let mut cuts = Cuts::default();
        cuts.cut(Some(5), unfinished(Some(7)));
        assert_eq!(cuts.cut(Some(5), unfinished(Some(8))), 1);
        assert_eq!(cuts.cut(Some(6), unfinished(Some(8))), 1);
    }

    #[test]
    fn a_number_that_cannot_be_is_not_gone_by() {
        for odd in [None, Some(4), Some(5), Some(1 << 52)] {
            let mut cuts = Cuts::default();
            cuts.cut(Some(5), unfinished(odd));
            cuts.cut(Some(5), unfinished(odd));
            assert_eq!(cuts.never_whole(Some(5)).map(|(seq, _)| seq), Some(6), "{odd:?}");
        }
    }
}

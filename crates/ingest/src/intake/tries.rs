//! Unreadable frames: how often each was tried, and which were set aside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a frame may be unreadable before it is set aside: by then it is what the host sends.
const TRIES: u32 = 3;

/// How many frames are remembered.
const KEPT: usize = 64;

/// How many connections may end for unreadable frames within [`PERIOD`]. A host that sends more of them
/// means to, and each further one is set aside at once.
const ENDS: usize = 6;

/// The period over which ended connections count.
const PERIOD: Duration = Duration::from_secs(3600);

/// The unreadable frames of one host.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// The latest frames, newest last.
    frames: VecDeque<Tried>,
    /// When connections ended for one of them.
    ends: VecDeque<Instant>,
}

/// One frame.
#[derive(Clone, Copy, Debug)]
struct Tried {
    frame: u64,
    times: u32,
    is_aside: bool,
}

/// What to do with an unreadable frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Read it again on another connection; seen this many times.
    ReadAgain(u32),
    /// Set it aside; seen this many times.
    SetAside(u32),
    /// It was set aside before.
    AlreadySetAside,
}

// === impl Tries ===

impl Tries {
    /// Records that the frame with this hash was unreadable, and returns what to do with it.
    pub(crate) fn unreadable(&mut self, frame: u64, now: Instant) -> Disposition {
        let place = self.frames.iter().position(|tried| tried.frame == frame);
        let known = place.and_then(|place| self.frames.remove(place));
        let mut tried = known.unwrap_or(Tried { frame, times: 0, is_aside: false });
        tried.times = tried.times.saturating_add(1);
        self.ends.retain(|end| now.saturating_duration_since(*end) < PERIOD);
        let answer = if tried.is_aside {
            Disposition::AlreadySetAside
        } else if tried.times >= TRIES || self.ends.len() >= ENDS {
            tried.is_aside = true;
            Disposition::SetAside(tried.times)
        } else {
            self.ends.push_back(now);
            Disposition::ReadAgain(tried.times)
        };
        self.frames.push_back(tried);
        if self.frames.len() > KEPT {
            self.frames.pop_front();
        }
        answer
    }

    /// Forgets everything: another host is read.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Disposition::*;
    use super::*;

    #[test]
    fn two_frames_in_a_row_are_each_set_aside_once() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let mut see = |frame| tries.unreadable(frame, now);
        assert_eq!([see(1), see(1)], [ReadAgain(1), ReadAgain(2)]);
        assert_eq!([see(1), see(2)], [SetAside(3), ReadAgain(1)]);
        assert_eq!([see(1), see(2)], [AlreadySetAside, ReadAgain(2)]);
        assert_eq!([see(1), see(2)], [AlreadySetAside, SetAside(3)]);
        assert_eq!([see(1), see(2)], [AlreadySetAside, AlreadySetAside]);
    }

    #[test]
    fn frames_that_are_other_ones_each_time_do_not_stop_reading() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let ends = (0..1_000).filter(|frame| matches!(tries.unreadable(*frame, now), ReadAgain(_))).count();
        assert_eq!((ends, tries.frames.len()), (ENDS, KEPT));
        let later = now + PERIOD;
        assert_eq!(tries.unreadable(5_000, later), ReadAgain(1), "an hour later one is tried again");
        assert_eq!(tries.unreadable(999, later), AlreadySetAside, "but none that was set aside");
        tries.clear();
        assert_eq!(tries.unreadable(999, later), ReadAgain(1));
    }
}

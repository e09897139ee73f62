//! How a host sends, steadily or now and then; its silence is judged by that.

use std::time::Duration;

use tokio::time::Instant;

/// How many slots the timeout of a busy host is divided into.
const PARTS: u32 = 8;

/// How many slots are looked back.
const LOOK_BACK: u32 = 64;

/// A host is busy if it sent something in this many of twenty slots, including the silent ones at the end.
///
/// So a host that was busy for at least as long as it is now silent is still busy; one that was busy for hours is silent for four
/// timeouts before it counts as quiet; a burst, or a backlog, makes no host busy.
const OF_TWENTY: u32 = 9;

/// The factor by which the pause before asking a quiet host again grows, and its limit in timeouts.
const GROWTH: (u32, u32) = (4, 20);

/// When one host sent something lately.
#[derive(Clone, Debug)]
pub(crate) struct Rhythm {
    part: Duration,
    /// When the last slot of `sent` began.
    at: Option<Instant>,
    /// The slots in which something arrived, the latest in the lowest bit.
    sent: u64,
    /// How many slots were seen.
    seen: u32,
    /// How long a quiet host may be silent before it is asked.
    ask_after: Duration,
    timeout: Duration,
}

// === impl Rhythm ===

impl Rhythm {
    /// Starts knowing nothing of the host; the timeout is that of a busy one.
    pub(crate) fn new(timeout: Duration) -> Self {
        let part = (timeout / PARTS).max(Duration::from_millis(1));
        Self { part, at: None, sent: 0, seen: 0, ask_after: timeout, timeout }
    }

    /// Records that something new arrived.
    pub(crate) fn record(&mut self, now: Instant) {
        self.turn(now);
        self.sent |= 1;
        if self.is_busy(now) {
            self.ask_after = self.timeout;
        }
    }

    /// Returns whether the host sends so steadily that its silence means trouble.
    pub(crate) fn is_busy(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.seen >= PARTS && self.sent.count_ones() * 20 >= self.seen * OF_TWENTY
    }

    /// Returns how long a quiet host may be silent before a second connection asks for more.
    pub(crate) fn ask_after(&self) -> Duration {
        self.ask_after
    }

    /// Records that it was asked: the next pause is longer.
    pub(crate) fn asked(&mut self) {
        let (growth, most) = GROWTH;
        self.ask_after = (self.ask_after * growth).min(self.timeout * most);
    }

    /// Moves on to the slot of this moment.
    fn turn(&mut self, now: Instant) {
        let Some(at) = self.at else {
            (self.at, self.seen) = (Some(now), 1);
            return;
        };
        let parts = now.duration_since(at).as_nanos() / self.part.as_nanos().max(1);
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).min(LOOK_BACK);
        if parts == 0 {
            return;
        }
        self.sent = self.sent.checked_shl(parts).unwrap_or(0);
        self.seen = self.seen.saturating_add(parts).min(LOOK_BACK);
        self.at = Some(if parts == LOOK_BACK { now } else { at + self.part * parts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Records an event each so often, for so long; returns when the last one came.
    fn sent(rhythm: &mut Rhythm, from: Instant, every: Duration, long: Duration) -> Instant {
        let mut now = from;
        while now <= from + long {
            rhythm.record(now);
            now += every;
        }
        now - every
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_that_was_busy_for_a_while_is_dead_after_one_timeout() {
        for long in [TIMEOUT + SECOND * 4, TIMEOUT * 3, TIMEOUT * 100] {
            let mut rhythm = Rhythm::new(TIMEOUT);
            let last = sent(&mut rhythm, Instant::now(), SECOND, long);
            assert!(rhythm.is_busy(last + TIMEOUT), "{long:?}");
        }
    }

    #[test]
    fn a_relay_that_stays_silent_is_left_and_not_waited_for() {
        let mut rhythm = Rhythm::new(TIMEOUT);
        let last = sent(&mut rhythm, Instant::now(), SECOND / 50, TIMEOUT * 20);
        assert!((1..=4).all(|times| rhythm.is_busy(last + TIMEOUT * times)), "four connections long it counts as busy");
        assert!(!rhythm.is_busy(last + TIMEOUT * 6), "it is quiet by now");
    }

    #[test]
    fn a_quiet_host_and_one_that_sends_in_bursts_are_not_busy() {
        let mut rhythm = Rhythm::new(TIMEOUT);
        let last = sent(&mut rhythm, Instant::now(), SECOND * 70, SECOND * 7_000);
        assert!(!rhythm.is_busy(last + TIMEOUT));
        let mut rhythm = Rhythm::new(TIMEOUT);
        for burst in 0..20 {
            let last = sent(&mut rhythm, Instant::now() + SECOND * 60 * burst, SECOND / 100, SECOND * 5);
            assert!(!rhythm.is_busy(last + TIMEOUT));
        }
        assert!(!Rhythm::new(TIMEOUT).is_busy(Instant::now()), "nothing is known");
    }

    #[test]
    fn a_quiet_host_is_asked_ever_more_rarely() {
        let mut rhythm = Rhythm::new(TIMEOUT);
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(rhythm.ask_after().as_secs());
            rhythm.asked();
        }
        assert_eq!(waits, [30, 120, 480, 600, 600]);
        sent(&mut rhythm, Instant::now(), SECOND, TIMEOUT * 4);
        assert_eq!(rhythm.ask_after(), TIMEOUT, "a busy host is judged by the first time again");
    }
}

//! When a server counts as away, and what is said of it: a state machine without clock and without log.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

/// How long a server must have answered without a failure in between until it is back.
const STEADY: Duration = Duration::from_secs(2);

/// How long a connection that was lost may take to be made again before the server is away.
const BLINK: Duration = Duration::from_secs(1);

/// How often an outage that goes on is told again.
const REMIND: Duration = Duration::from_secs(300);

/// How many outages are told in one [`BUDGET_TIME`]; further ones only count.
const BUDGET: usize = 2;

/// See [`BUDGET`].
const BUDGET_TIME: Duration = Duration::from_secs(60);

/// Follows whether one server answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Outage {
    away: Option<Away>,
    /// When the last outages were told, oldest first; at most [`BUDGET`].
    told: VecDeque<Instant>,
    /// How many outages were over before they were told, since the last one that was.
    untold: u64,
    /// When the last outage was over.
    ended: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    /// When it was told last.
    told: Option<Instant>,
    /// Since when it answers again, without a failure.
    answering: Option<Instant>,
    /// Whether nothing failed but the connection that was lost.
    is_only_lost: bool,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is away; so many outages before were not told.
    Gone {
        /// How many.
        untold: u64,
    },
    /// It is still away.
    Still {
        /// For how long.
        after: Duration,
    },
    /// It is back.
    Back {
        /// How long it was away.
        after: Duration,
    },
    /// It ended a connection and took another one at once.
    Blinked {
        /// How long it took.
        after: Duration,
    },
}

// === impl Outage ===

impl Outage {
    /// Records that a request or a connection failed because the server did not answer.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Notice> {
        let away = self.away.get_or_insert(Away::new(now));
        (away.answering, away.is_only_lost) = (None, false);
        self.due(now)
    }

    /// Records that a connection ended: the next one may be made at once.
    pub(super) fn lost(&mut self, now: Instant) -> Option<Notice> {
        let away = self.away.get_or_insert(Away { is_only_lost: true, ..Away::new(now) });
        away.answering = None;
        if away.is_only_lost && now.saturating_duration_since(away.since) < BLINK {
            return None;
        }
        self.failed(now)
    }

    /// Records an answer.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Notice> {
        let away = self.away.as_mut()?;
        let answering = *away.answering.get_or_insert(now);
        if now.saturating_duration_since(answering) < STEADY {
            return None;
        }
        let after = answering.saturating_duration_since(away.since);
        let (told, is_only_lost) = (away.told.is_some(), away.is_only_lost);
        (self.away, self.ended) = (None, Some(now));
        if told {
            return Some(Notice::Back { after });
        }
        if is_only_lost && self.spend(now) {
            return Some(Notice::Blinked { after });
        }
        self.untold += 1;
        None
    }

    /// Returns since when the server is away; none while it answers, or only lost a connection.
    pub(super) fn away_since(&self) -> Option<Instant> {
        self.away.filter(|away| !away.is_only_lost).map(|away| away.since)
    }

    /// Returns when the last outage was over.
    pub(super) fn last_end(&self) -> Option<Instant> {
        self.ended
    }

    fn due(&mut self, now: Instant) -> Option<Notice> {
        let away = self.away?;
        let notice = match away.told {
            None if self.spend(now) => Notice::Gone { untold: std::mem::take(&mut self.untold) },
            Some(told) if now.saturating_duration_since(told) >= REMIND => {
                Notice::Still { after: now.saturating_duration_since(away.since) }
            }
            _ => return None,
        };
        self.away = Some(Away { told: Some(now), ..away });
        Some(notice)
    }

    /// Returns whether one more outage may be told now.
    fn spend(&mut self, now: Instant) -> bool {
        if self.told.len() >= BUDGET {
            if self.told.front().is_some_and(|first| now.saturating_duration_since(*first) < BUDGET_TIME) {
                return false;
            }
            self.told.pop_front();
        }
        self.told.push_back(now);
        true
    }
}

// === impl Away ===

impl Away {
    fn new(since: Instant) -> Self {
        Self { since, told: None, answering: None, is_only_lost: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is recorded.
    #[derive(Clone, Copy, Debug)]
    enum Said {
        Failed,
        Lost,
        Answered,
    }

    use Said::{Answered, Failed, Lost};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Plays events, each with its time in milliseconds, and returns what was told and when.
    fn play(events: &[(u64, Said)]) -> Vec<(u64, Notice)> {
        let (start, mut outage) = (Instant::now(), Outage::default());
        let notices = events.iter().filter_map(|(ms, said)| {
            let now = start + Duration::from_millis(*ms);
            let notice = match said {
                Failed => outage.failed(now),
                Lost => outage.lost(now),
                Answered => outage.answered(now),
            };
            notice.map(|notice| (*ms, notice))
        });
        notices.collect()
    }

    #[test]
    fn each_outage_is_told_once_and_its_end_once() {
        const GONE: Notice = Notice::Gone { untold: 0 };
        type Case = (&'static str, Vec<(u64, Said)>, Vec<(u64, Notice)>);
        let cases: Vec<Case> = vec![
            ("an answer that follows answers", vec![(0, Answered), (5_000, Answered)], vec![]),
            (
                "34 s with a failure each second",
                (0..34).map(|n| (n * 1_000, Failed)).chain([(34_000, Answered), (36_000, Answered)]).collect(),
                vec![(0, GONE), (36_000, Notice::Back { after: s(34) })],
            ),
            (
                "an hour: a reminder each five minutes",
                (0..901).map(|n| (n * 1_000, Failed)).collect(),
                vec![
                    (0, GONE),
                    (300_000, Notice::Still { after: s(300) }),
                    (600_000, Notice::Still { after: s(600) }),
                    (900_000, Notice::Still { after: s(900) }),
                ],
            ),
            (
                "one connection answers while another one still fails",
                vec![
                    (0, Failed),
                    (1_000, Answered),
                    (1_500, Failed),
                    (2_000, Answered),
                    (3_000, Failed),
                    (4_000, Answered),
                    (6_000, Answered),
                ],
                vec![(0, GONE), (6_000, Notice::Back { after: s(4) })],
            ),
            (
                "a lost connection that is made again at once",
                vec![(0, Lost), (500, Answered), (2_500, Answered)],
                vec![(2_500, Notice::Blinked { after: Duration::from_millis(500) })],
            ),
            (
                "a lost connection, and why the next one is refused",
                vec![(0, Lost), (50, Failed), (5_000, Answered), (7_000, Answered)],
                vec![(50, GONE), (7_000, Notice::Back { after: s(5) })],
            ),
            (
                "a connection that is lost again and again",
                vec![(0, Lost), (500, Lost), (1_500, Lost)],
                vec![(1_500, GONE)],
            ),
        ];
        for (name, events, expected) in cases {
            assert_eq!(play(&events), expected, "{name}");
        }
    }

    #[test]
    fn flapping_costs_two_lines_a_minute_and_is_counted() {
        // Away for a second, back for four, for ten minutes.
        let mut events = Vec::new();
        for round in 0..120 {
            let at = round * 5_000;
            events.extend([(at, Failed), (at + 1_000, Answered), (at + 3_500, Answered)]);
        }
        let told = play(&events);
        let gone: Vec<_> = told.iter().filter(|(_, notice)| matches!(notice, Notice::Gone { .. })).collect();
        let back = told.iter().filter(|(_, notice)| matches!(notice, Notice::Back { .. })).count();
        assert_eq!((gone.len(), back), (20, 20), "{told:?}");
        let untold: u64 =
            gone.iter().map(|(_, notice)| if let Notice::Gone { untold } = notice { *untold } else { 0 }).sum();
        assert_eq!(untold, 90, "all but those that were told, and those after the last that was");
    }

    #[test]
    fn an_outage_that_came_too_soon_to_be_told_is_told_if_it_lasts() {
        let mut events = vec![];
        for at in [0, 10_000, 20_000] {
            events.extend([(at, Failed), (at + 1_000, Answered), (at + 3_000, Answered)]);
        }
        events.extend((30..62).map(|n| (n * 1_000, Failed)));
        let told = play(&events);
        assert_eq!(told.last(), Some(&(60_000, Notice::Gone { untold: 1 })), "{told:?}");
    }

    #[test]
    fn only_a_server_that_fails_is_away() {
        let (now, mut outage) = (Instant::now(), Outage::default());
        outage.lost(now);
        assert_eq!(outage.away_since(), None);
        outage.failed(now + s(1));
        assert_eq!(outage.away_since(), Some(now));
        outage.answered(now + s(2));
        assert_eq!(outage.away_since(), Some(now), "one answer may be the last");
        outage.answered(now + s(4));
        assert_eq!(outage.away_since(), None);
    }
}

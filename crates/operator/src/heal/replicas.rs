//! How many healers there are to be.

use std::collections::VecDeque;
use std::time::Duration;

use penstock_core::backfill::Backlog;
use tokio::time::Instant;

use crate::state::Healers;

/// How many times what one healer reads at once must wait before there is another one.
const ROUNDS: u64 = 20;

/// How far is looked back before one is taken away: the greatest number wins.
const WINDOW: Duration = Duration::from_secs(120);

/// What was wanted within the window.
#[derive(Debug, Default)]
pub(crate) struct Wanted(VecDeque<(Instant, u16)>);

// === impl Wanted ===

impl Wanted {
    /// Decides: more at once, fewer only when nothing within the window asked for more.
    pub(crate) fn decide(&mut self, backlog: Backlog, healers: &Healers, now: Instant) -> u16 {
        self.0.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        self.0.push_back((now, wanted(backlog, healers)));
        self.0.iter().map(|(_, wanted)| *wanted).max().unwrap_or(healers.min)
    }
}

/// What is left, in the numbers that one healer copes with. Repos that are not due yet wait for their hosts and not for healers.
fn wanted(backlog: Backlog, healers: &Healers) -> u16 {
    let each = u64::from(healers.parallelism.max(1));
    let busy = backlog.running.div_ceil(each);
    let waiting = backlog.due.div_ceil(each * ROUNDS);
    // Those that are busy are not taken away, and none is added for them.
    let wanted = if waiting == 0 { busy } else { waiting };
    u16::try_from(wanted).unwrap_or(u16::MAX).clamp(healers.min, healers.max.max(healers.min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    fn healers(min: u16, max: u16) -> Healers {
        let deployment = Name { namespace: "ns".into(), name: "p-heal".into() };
        Healers { url: String::new(), deployment, min, max, parallelism: 8, suspended: false }
    }

    fn backlog(due: u64, running: u64) -> Backlog {
        Backlog { waiting: due, due, running, backfills: 1 }
    }

    #[test]
    fn there_are_as_many_as_what_is_left_asks_for() {
        for ((due, running), (min, max), number) in [
            ((0, 0), (1, 4), 1),
            ((1, 8), (1, 4), 1),
            ((160, 8), (1, 4), 1),
            ((161, 8), (1, 4), 2),
            ((500, 16), (1, 4), 4),
            ((40_000_000, 32), (1, 4), 4),
            ((40_000_000, 32), (3, 100), 100),
            ((0, 24), (1, 4), 3),
            ((0, 0), (2, 4), 2),
            ((u64::MAX, 0), (1, 4), 4),
        ] {
            assert_eq!(wanted(backlog(due, running), &healers(min, max)), number, "{due} {running} {min} {max}");
        }
        // What waits for hosts asks for nobody.
        let later = Backlog { waiting: 10_000, due: 0, running: 0, backfills: 1 };
        assert_eq!(wanted(later, &healers(1, 4)), 1);
    }

    #[test]
    fn one_is_added_at_once_and_taken_away_after_the_window() {
        let (mut history, begun) = (Wanted::default(), Instant::now());
        let mut at =
            |seconds, due| history.decide(backlog(due, 0), &healers(1, 4), begun + Duration::from_secs(seconds));
        assert_eq!(at(0, 0), 1);
        assert_eq!(at(5, 1_000), 4);
        assert_eq!(at(10, 300), 4);
        assert_eq!(at(124, 0), 4);
        assert_eq!(at(126, 0), 2);
        assert_eq!(at(131, 0), 1);
    }
}

//! What may be trimmed, and whether the stream is too full to go on reading.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use penstock_core::settings::Percent;
use penstock_core::stream::StreamId;

/// One consumer group as Redis reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: String,
    /// The last entry delivered to it.
    pub(crate) last_delivered: StreamId,
    /// Its first pending entry that still holds the stream.
    pub(crate) first_pending: Option<StreamId>,
    /// The idle time of its most active consumer; none without consumers.
    pub(crate) least_idle: Option<Duration>,
    /// Whether it has acknowledged everything: then it cannot show any activity.
    pub(crate) is_caught_up: bool,
}

/// What all groups together allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Every entry below it is acknowledged by every holding group; none before our own group exists.
    pub(crate) trim_below: Option<StreamId>,
    /// The number of holding groups.
    pub(crate) holding: usize,
    /// The groups that no longer hold.
    pub(crate) left_out: Vec<String>,
}

/// What must stay in the stream because it tells where to resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Everything: the position is not known yet.
    #[default]
    Everything,
    /// Everything from this entry on.
    From(StreamId),
    /// Nothing.
    Nothing,
}

/// When each group last moved, or had nothing left to read, as far as this process saw.
#[derive(Debug, Default)]
pub(crate) struct Sightings(HashMap<String, (StreamId, Instant)>);

/// How full the stream and its Redis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Entries in the stream.
    pub(crate) entries: u64,
    /// The entries it should hold at most.
    pub(crate) cap: u64,
    /// Bytes of Redis in use.
    pub(crate) used: u64,
    /// The memory limit of Redis; none without one.
    pub(crate) max: Option<u64>,
}

// === impl Hold ===

impl Hold {
    /// Limits the ID below which entries may be trimmed.
    pub(crate) fn bound(self, below: Option<StreamId>) -> Option<StreamId> {
        match self {
            Self::Everything => None,
            Self::From(id) => below.map(|below| below.min(id)),
            Self::Nothing => below,
        }
    }
}

// === impl Sightings ===

impl Sightings {
    /// Decides which groups hold and what may be trimmed. A group seen for the first time counts as active now.
    pub(crate) fn decide(&mut self, groups: &[Group], ours: &str, now: Instant, hold: Duration) -> Holding {
        self.0.retain(|name, _| groups.iter().any(|group| group.name == *name));
        let mut decision = Holding::default();
        let mut bound: Option<StreamId> = None;
        let mut ours_is_there = false;
        for group in groups {
            let seen = self.0.entry(group.name.clone()).or_insert((group.last_delivered, now));
            if group.is_caught_up || seen.0 != group.last_delivered {
                *seen = (group.last_delivered, now);
            }
            let idle = now.saturating_duration_since(seen.1);
            let idle = group.least_idle.map_or(idle, |least| least.min(idle));
            let is_ours = group.name == ours;
            if !is_ours && idle > hold {
                decision.left_out.push(group.name.clone());
                continue;
            }
            ours_is_there |= is_ours;
            decision.holding += 1;
            let first = group.first_pending.unwrap_or_else(|| group.last_delivered.next());
            bound = Some(bound.map_or(first, |bound| bound.min(first)));
        }
        // Before our workers create their group, every entry is unread to them.
        decision.trim_below = bound.filter(|_| ours_is_there);
        decision
    }
}

// === impl Fill ===

impl Fill {
    /// Returns whether to pause reading: from the high watermark on, until below the low one.
    pub(crate) fn pause(&self, paused: bool, high: Percent, low: Percent) -> bool {
        let mark = if paused { low } else { high };
        self.entries >= mark.of(self.cap) || self.max.is_some_and(|max| self.used >= mark.of(max))
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Value;

    use super::*;

    const HOLD: Duration = Duration::from_secs(3600);

    fn id(text: &str) -> StreamId {
        text.parse().unwrap()
    }

    fn group(name: &str, last: &str, pending: Option<&str>, idle: Option<u64>) -> Group {
        Group {
            name: name.into(),
            last_delivered: id(last),
            first_pending: pending.map(id),
            least_idle: idle.map(Duration::from_secs),
            is_caught_up: false,
        }
    }

    #[test]
    fn the_slowest_group_that_holds_bounds_the_trim() {
        let mut seen = Sightings::default();
        let groups = [group("ours", "50-0", Some("40-3"), Some(0)), group("other", "20-0", None, Some(5))];
        let holding = seen.decide(&groups, "ours", Instant::now(), HOLD);
        assert_eq!((holding.trim_below, holding.holding), (Some(id("20-1")), 2));
    }

    #[test]
    fn what_tells_the_position_stays() {
        let below = Some(id("50-0"));
        assert_eq!(Hold::default().bound(below), None);
        assert_eq!(Hold::From(id("40-0")).bound(below), Some(id("40-0")));
        assert_eq!(Hold::From(id("60-0")).bound(below), below);
        assert_eq!(Hold::Nothing.bound(below), below);
    }

    #[test]
    fn nothing_goes_before_our_group_is_there() {
        let mut seen = Sightings::default();
        assert_eq!(seen.decide(&[], "ours", Instant::now(), HOLD).trim_below, None);
        let other = [group("other", "20-0", None, Some(0))];
        assert_eq!(seen.decide(&other, "ours", Instant::now(), HOLD).trim_below, None);
    }

    #[test]
    fn a_group_without_a_sign_of_life_is_left_out_and_named() {
        let mut seen = Sightings::default();
        let start = Instant::now();
        let groups = [group("ours", "50-0", None, Some(0)), group("other", "20-0", None, Some(7200))];
        assert_eq!(seen.decide(&groups, "ours", start, HOLD).trim_below, Some(id("20-1")), "first seen now");
        let later = seen.decide(&groups, "ours", start + HOLD * 2, HOLD);
        assert_eq!((later.trim_below, later.left_out), (Some(id("50-1")), vec!["other".to_owned()]));
        let moved = [groups[0].clone(), group("other", "21-0", None, Some(7200))];
        assert_eq!(seen.decide(&moved, "ours", start + HOLD * 2, HOLD).trim_below, Some(id("21-1")), "it moved");
    }

    #[test]
    fn a_group_that_read_everything_holds_what_comes_after_a_quiet_time() {
        let mut seen = Sightings::default();
        let start = Instant::now();
        let ours = group("ours", "20-0", None, Some(0));
        let quiet = Group { is_caught_up: true, ..group("other", "20-0", None, Some(7200)) };
        seen.decide(&[ours.clone(), quiet.clone()], "ours", start, HOLD);
        let later = seen.decide(&[ours, quiet.clone()], "ours", start + HOLD * 2, HOLD);
        assert_eq!((later.trim_below, later.left_out.len()), (Some(id("20-1")), 0));
        let behind = [group("ours", "50-0", None, Some(0)), Group { is_caught_up: false, ..quiet }];
        assert_eq!(seen.decide(&behind, "ours", start + HOLD * 3, HOLD).trim_below, Some(id("20-1")));
        assert_eq!(seen.decide(&behind, "ours", start + HOLD * 4, HOLD).trim_below, Some(id("50-1")));
    }

    #[test]
    fn our_own_group_holds_however_long_it_is_idle() {
        let mut seen = Sightings::default();
        let start = Instant::now();
        let groups = [group("ours", "0-0", None, None)];
        seen.decide(&groups, "ours", start, HOLD);
        assert_eq!(seen.decide(&groups, "ours", start + HOLD * 9, HOLD).trim_below, Some(id("0-1")));
    }

    #[test]
    fn reading_pauses_at_the_high_mark_until_below_the_low() {
        let (high, low) = (Percent::parse("80").unwrap(), Percent::parse("50").unwrap());
        let fill = |entries, used, max| Fill { entries, cap: 1000, used, max };
        assert!(!fill(799, 0, None).pause(false, high, low));
        assert!(fill(800, 0, None).pause(false, high, low));
        assert!(fill(500, 0, None).pause(true, high, low));
        assert!(!fill(499, 0, None).pause(true, high, low));
        assert!(fill(0, 80, Some(100)).pause(false, high, low));
        assert!(fill(0, 50, Some(100)).pause(true, high, low));
    }
}

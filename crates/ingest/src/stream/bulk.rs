//! Who reads the second stream. Entries above their repo's rate may go there only while every reader of the first reads both.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::stream::pressure::{Group, Holding};

/// A consumer that asked for entries within this time is reading: ours ask twice a second, others every few seconds.
const READS: Duration = Duration::from_secs(10);

/// Whether entries may go to the second stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bulk {
    /// They may, as long as the first stream has only these groups: ours, and those that no longer read.
    Open(Vec<String>),
    /// They may not.
    Closed(Blocker),
}

/// Why entries may not go to the second stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocker {
    /// The readers have not been checked yet.
    Unknown,
    /// Another producer writes to the first stream, and its IDs do not take account of the second.
    Shared,
    /// No live worker reads it.
    NoWorker,
    /// Another group reads the first stream.
    Group(String),
    /// A consumer of our group reads only the first stream.
    Consumer(String),
}

/// A consumer of our group in the first stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    /// Its name.
    pub(crate) name: String,
    /// How long ago it asked for entries.
    pub(crate) idle: Duration,
}

/// The consumers of our group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readers {
    /// Those of the first stream.
    pub(crate) first: Vec<Consumer>,
    /// The names of those of the second stream.
    pub(crate) second: BTreeSet<String>,
    /// Whether one of the latter is alive.
    pub(crate) live: bool,
}

/// Since when nobody but consumers of the first stream alone has been reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deserted(Option<Instant>);

// === impl Bulk ===

impl Bulk {
    /// Decides by the readers.
    pub(crate) fn decide(ours: &str, groups: &[Group], holding: &Holding, readers: &Readers) -> Self {
        let others = groups.iter().filter(|group| group.name != ours && !holding.left_out.contains(&group.name));
        if let Some(group) = others.map(|group| &group.name).next() {
            return Self::Closed(Blocker::Group(group.clone()));
        }
        if let Some(alone) = readers.alone().next() {
            return Self::Closed(Blocker::Consumer(alone.to_owned()));
        }
        if !readers.live {
            return Self::Closed(Blocker::NoWorker);
        }
        Self::Open(std::iter::once(ours.to_owned()).chain(holding.left_out.iter().cloned()).collect())
    }
}

// === impl Readers ===

impl Readers {
    /// Lists the consumers that read only the first stream.
    fn alone(&self) -> impl Iterator<Item = &str> {
        let reads = |reader: &&Consumer| reader.idle < READS && !self.second.contains(&reader.name);
        self.first.iter().filter(reads).map(|reader| reader.name.as_str())
    }
}

// === impl Deserted ===

impl Deserted {
    /// Returns whether that has lasted for `away`: then the second stream's entries must be moved to them.
    pub(crate) fn check(&mut self, readers: &Readers, now: Instant, away: Duration) -> bool {
        if readers.live || readers.alone().next().is_none() {
            self.0 = None;
            return false;
        }
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= away
    }
}

// === impl Why ===

impl Blocker {
    /// Returns whether it is lasting, and thus worth reporting.
    pub(crate) fn is_to_show(&self) -> bool {
        matches!(self, Self::Shared | Self::Group(_) | Self::Consumer(_))
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the readers are not known yet"),
            Self::Shared => f.write_str("another producer writes to the stream"),
            Self::NoWorker => f.write_str("no live worker reads the second stream"),
            Self::Group(group) => write!(f, "group {group} reads only the first stream"),
            Self::Consumer(consumer) => write!(f, "consumer {consumer} reads only the first stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::stream::StreamId;

    use super::*;

    fn group(name: &str) -> Group {
        Group {
            name: name.to_owned(),
            last_delivered: StreamId::MIN,
            first_pending: None,
            least_idle: None,
            is_caught_up: false,
        }
    }

    fn readers(first: &[(&str, u64)], second: &[&str], live: bool) -> Readers {
        let reader =
            |(name, idle): &(&str, u64)| Consumer { name: (*name).to_owned(), idle: Duration::from_secs(*idle) };
        let second = second.iter().map(|name| (*name).to_owned()).collect();
        Readers { first: first.iter().map(reader).collect(), second, live }
    }

    #[test]
    fn it_is_open_only_while_all_who_read_the_first_stream_read_both() {
        let decide = |groups: &[&str], left_out: &[&str], readers: &Readers| {
            let groups: Vec<Group> = groups.iter().map(|name| group(name)).collect();
            let left_out = left_out.iter().map(|name| (*name).to_owned()).collect();
            Bulk::decide("ours", &groups, &Holding { left_out, ..Holding::default() }, readers)
        };
        let ours = readers(&[("w-0", 0), ("python", 11)], &["w-0"], true);
        assert_eq!(decide(&["ours"], &[], &ours), Bulk::Open(vec!["ours".to_owned()]));
        assert_eq!(decide(&["ours", "old"], &["old"], &ours), Bulk::Open(vec!["ours".to_owned(), "old".to_owned()]));
        let closed = [
            (decide(&["ours", "osprey"], &[], &ours), Blocker::Group("osprey".to_owned())),
            (
                decide(&["ours"], &[], &readers(&[("w-0", 0), ("python", 9)], &["w-0"], true)),
                Blocker::Consumer("python".to_owned()),
            ),
            (decide(&["ours"], &[], &readers(&[("w-0", 0)], &["w-0"], false)), Blocker::NoWorker),
            (decide(&[], &[], &Readers::default()), Blocker::NoWorker),
        ];
        for (bulk, why) in closed {
            assert_eq!(bulk, Bulk::Closed(why));
        }
    }

    #[test]
    fn the_second_stream_is_deserted_once_only_others_have_read_for_long() {
        let (mut deserted, start, away) = (Deserted::default(), Instant::now(), Duration::from_secs(60));
        let theirs = readers(&[("python", 0)], &["w-0"], false);
        assert!(!deserted.check(&theirs, start, away));
        assert!(deserted.check(&theirs, start + away, away));
        assert!(!deserted.check(&readers(&[("python", 0)], &["w-0"], true), start + away, away), "one of ours is back");
        assert!(!deserted.check(&theirs, start + away, away), "counted anew");
        assert!(!deserted.check(&readers(&[], &[], false), start + away * 2, away), "nobody reads at all");
        assert!(!deserted.check(&theirs, start + away * 2, away));
    }
}

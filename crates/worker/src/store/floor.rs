//! Up to which rev a snapshot covers a repo: what an event at or below it did is in the rows already.
//!
//! What a snapshot found equal keeps the version that it had, and what is in neither has none. So an event that comes after the
//! snapshot and is older can be told by nothing but this.

use penstock_core::stream::StreamId;

use super::version::{Stamp, Version};

/// Behind every path: none holds a character outside ASCII.
pub(crate) const END: &str = "\u{ff}";

/// What snapshots cover of a repo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    /// The last one that was finished.
    pub(crate) whole: Option<Floor>,
    /// The one that is being written, and the path through which it is.
    pub(crate) part: Option<(Floor, String)>,
    /// Whether nothing of the repo was stored when writing it began: then all of it is covered at once, and whatever is stored at or below
    /// its rev is of it.
    pub(crate) is_fresh: bool,
}

/// A snapshot as a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Its rev.
    pub(crate) rev: String,
    /// When reading it began.
    pub(crate) started: StreamId,
}

// === impl Floors ===

impl Floors {
    /// Reads the columns of a repo's row.
    pub(crate) fn from_columns(
        whole: (Option<String>, Option<String>),
        part: (Option<String>, Option<String>, Option<String>),
        is_fresh: bool,
    ) -> Self {
        let floor = |rev: Option<String>, entry: Option<String>| {
            Some(Floor { rev: rev?, started: Stamp::parse(&entry?)?.id() })
        };
        let (rev, entry, through) = part;
        Self { whole: floor(whole.0, whole.1), part: floor(rev, entry).zip(through), is_fresh }
    }

    /// Returns whether a change of a record is in a snapshot, unless a deletion of the account took that. Where the path is not
    /// known only what is finished counts.
    pub(crate) fn cover(&self, path: Option<&str>, version: &Version, deleted_through: Option<StreamId>) -> bool {
        let holds = |floor: &Floor| Some(floor.started) > deleted_through && floor.covers(version);
        let in_part = |through: &str| self.is_fresh || path.is_some_and(|path| path.as_bytes() <= through.as_bytes());
        self.whole.as_ref().is_some_and(holds)
            || self.part.as_ref().is_some_and(|(floor, through)| in_part(through) && holds(floor))
    }
}

// === impl Floor ===

impl Floor {
    fn covers(&self, version: &Version) -> bool {
        match (&version.rev, version.stamp) {
            (Some(rev), _) => rev.as_bytes() <= self.rev.as_bytes(),
            // A fill has nothing to say where all is known.
            (None, Some(stamp)) => stamp.is_filled() || stamp.id() <= self.started,
            (None, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[test]
    fn what_is_at_or_below_a_floor_is_covered_and_a_deletion_after_it_voids_it() {
        let live = |rev: Option<&str>, ms: u64| Version {
            rev: rev.map(str::to_owned),
            stamp: Some(Stamp::live(id(ms), None)),
        };
        let floor = |rev: &str, ms: u64| Floor { rev: rev.to_owned(), started: id(ms) };
        let floors =
            Floors { whole: Some(floor("3b", 20)), part: Some((floor("3d", 40), "a.b/k".to_owned())), is_fresh: false };
        for (path, version, covered) in [
            (Some("a.b/z"), live(Some("3b"), 99), true),
            (Some("a.b/z"), live(Some("3c"), 9), false),
            (Some("a.b/k"), live(Some("3d"), 99), true),
            (Some("a.b/k"), live(Some("3e"), 9), false),
            (None, live(Some("3c"), 9), false),
            (None, live(None, 20), true),
            (None, live(None, 21), false),
            (Some("a.b/a"), live(None, 40), true),
            (Some("a.b/a"), live(None, 41), false),
            (Some("z.z/z"), Version { rev: None, stamp: Some(Stamp::filled(id(99))) }, true),
        ] {
            assert_eq!(floors.cover(path, &version, None), covered, "{path:?} {version:?}");
        }
        let fresh = Floors { is_fresh: true, ..floors.clone() };
        assert!(fresh.cover(None, &live(Some("3d"), 9), None) && !fresh.cover(None, &live(Some("3e"), 9), None));
        let old = live(Some("3a"), 1);
        assert!(floors.cover(Some("z.z/z"), &old, Some(id(19))) && !floors.cover(Some("z.z/z"), &old, Some(id(20))));
        assert!(floors.cover(Some("a.a/a"), &old, Some(id(20))), "the one being written is younger");
        assert!(Some("app.bsky.feed.post/~~~").is_some_and(|path| path < END));
    }
}

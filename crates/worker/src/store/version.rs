//! What decides which of two states of a record is the later one.

use std::cmp::Ordering;
use std::fmt;

use penstock_core::stream::StreamId;

/// The entry that a row, a tombstone or a shadow came from, as it stands in the `entry_id` columns.
///
/// As text it sorts bytewise as the stream does: `1782000000000-000003`, and `!1782000000000-000003` where a backfill
/// filled a gap, which sorts before every live entry. A number with more digits than the padding is written as `~` and
/// 20 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stamp {
    /// Filled in by an entry with neither rev nor seq: weaker than any live one.
    Filled(StreamId),
    /// Written by a live entry.
    Live(StreamId),
}

/// The guard of a row, a tombstone or a shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// The rev of the commit, where it said one.
    pub(crate) rev: Option<String>,
    /// The entry; none on rows that somebody else wrote.
    pub(crate) stamp: Option<Stamp>,
}

/// How a change stands to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What is there stays as it is.
    Older,
    /// The same commit seen again under a later entry: only the stamp moves, and the number that came with it.
    Again,
    /// The change takes effect.
    Newer,
}

// === impl Stamp ===

const FILLED: char = '!';
const LONG: char = '~';

impl Stamp {
    /// Returns the stream ID, whoever wrote it.
    pub(crate) fn id(self) -> StreamId {
        match self {
            Self::Filled(id) | Self::Live(id) => id,
        }
    }

    /// Reads the text of an `entry_id` column; `None` where it is not ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (filled, text) = text.strip_prefix(FILLED).map_or((false, text), |rest| (true, rest));
        let (ms, seq) = text.split_once('-')?;
        let number = |digits: &str| digits.strip_prefix(LONG).unwrap_or(digits).parse().ok();
        let id = StreamId { ms: number(ms)?, seq: number(seq)? };
        Some(if filled { Self::Filled(id) } else { Self::Live(id) })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Filled(_) = self {
            write!(f, "{FILLED}")?;
        }
        let StreamId { ms, seq } = self.id();
        if ms < 10_000_000_000_000 { write!(f, "{ms:013}-") } else { write!(f, "{LONG}{ms:020}-") }?;
        if seq < 1_000_000 { write!(f, "{seq:06}") } else { write!(f, "{LONG}{seq:020}") }
    }
}

// === impl Version ===

impl Version {
    /// Reads the two guard columns.
    pub(crate) fn from_columns(rev: Option<String>, entry_id: Option<&str>) -> Self {
        Self { rev, stamp: entry_id.and_then(Stamp::parse) }
    }

    /// Compares a change of this version with what stands.
    ///
    /// A fill takes only a place that is empty when it comes: refused, it is not remembered, should a deletion of the
    /// account that lies before it come later and empty the place.
    pub(crate) fn against(&self, standing: &Self) -> Verdict {
        if let Some(Stamp::Filled(_)) = self.stamp {
            return Verdict::Older;
        }
        let later = self.stamp > standing.stamp;
        match (&self.rev, &standing.rev) {
            (Some(new), Some(old)) => match new.as_bytes().cmp(old.as_bytes()) {
                Ordering::Greater => Verdict::Newer,
                Ordering::Equal if later => Verdict::Again,
                _ => Verdict::Older,
            },
            _ if later => Verdict::Newer,
            _ => Verdict::Older,
        }
    }

    /// Tells whether an account deleted through this ID took the record with it; what nobody stamped went too.
    pub(crate) fn is_gone(&self, deleted_through: Option<StreamId>) -> bool {
        deleted_through.is_some_and(|through| self.stamp.is_none_or(|stamp| stamp.id() <= through))
    }

    /// Orders records of one repo that want the same place: by rev, by stamp where there is no rev, then by URI.
    ///
    /// A total order, unlike [`Version::against`] among records with and without rev: the winner must not depend on
    /// who came first.
    pub(crate) fn rank<'a>(&'a self, uri: &'a str) -> (Option<&'a [u8]>, Option<Stamp>, &'a str) {
        (self.rev.as_deref().map(str::as_bytes), if self.rev.is_none() { self.stamp } else { None }, uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    fn version(rev: Option<&str>, stamp: Option<Stamp>) -> Version {
        Version { rev: rev.map(str::to_owned), stamp }
    }

    #[test]
    fn stamps_sort_as_text_as_they_do_as_ids() {
        let mut stamps = vec![
            Stamp::Filled(id(5, 0)),
            Stamp::Filled(id(u64::MAX, u64::MAX)),
            Stamp::Live(id(0, 0)),
            Stamp::Live(id(9, 999_999)),
            Stamp::Live(id(9, 1_000_000)),
            Stamp::Live(id(9, u64::MAX)),
            Stamp::Live(id(10, 2)),
            Stamp::Live(id(1_782_000_000_000, 3)),
            Stamp::Live(id(9_999_999_999_999, 1)),
            Stamp::Live(id(10_000_000_000_000, 0)),
            Stamp::Live(id(u64::MAX, 0)),
        ];
        assert!(stamps.is_sorted());
        let mut texts: Vec<_> = stamps.iter().map(ToString::to_string).collect();
        assert_eq!(texts[7], "1782000000000-000003");
        assert!(texts.is_sorted(), "{texts:?}");
        stamps.reverse();
        texts.reverse();
        for (stamp, text) in stamps.into_iter().zip(texts) {
            assert_eq!(Stamp::parse(&text), Some(stamp));
        }
        assert_eq!(Stamp::parse("no stamp"), None);
    }

    #[test]
    fn the_greater_rev_wins_whatever_the_entries_say() {
        let old = version(Some("3b"), Some(Stamp::Live(id(9, 0))));
        assert_eq!(version(Some("3c"), Some(Stamp::Live(id(1, 0)))).against(&old), Verdict::Newer);
        assert_eq!(version(Some("3B"), Some(Stamp::Live(id(99, 0)))).against(&old), Verdict::Older, "bytewise");
        assert_eq!(version(Some("3b"), Some(Stamp::Live(id(99, 0)))).against(&old), Verdict::Again);
        assert_eq!(version(Some("3b"), Some(Stamp::Live(id(9, 0)))).against(&old), Verdict::Older);
    }

    #[test]
    fn without_a_rev_on_either_side_the_entry_decides() {
        let old = version(Some("3b"), Some(Stamp::Live(id(9, 0))));
        assert_eq!(version(None, Some(Stamp::Live(id(10, 0)))).against(&old), Verdict::Newer);
        assert_eq!(version(None, Some(Stamp::Live(id(9, 0)))).against(&old), Verdict::Older);
        assert_eq!(version(None, Some(Stamp::Live(id(1, 0)))).against(&version(None, None)), Verdict::Newer);
    }

    #[test]
    fn a_backfill_moves_nothing_and_yields_to_all() {
        let filled = version(None, Some(Stamp::Filled(id(9, 0))));
        assert_eq!(filled.against(&version(None, None)), Verdict::Older);
        assert_eq!(version(None, Some(Stamp::Live(id(1, 0)))).against(&filled), Verdict::Newer);
    }

    #[test]
    fn a_deleted_account_takes_what_came_before_and_what_nobody_stamped() {
        let through = Some(id(9, 0));
        assert!(version(None, None).is_gone(through));
        assert!(version(None, Some(Stamp::Filled(id(9, 0)))).is_gone(through));
        assert!(!version(None, Some(Stamp::Live(id(9, 1)))).is_gone(through));
        assert!(!version(None, None).is_gone(None));
    }
}

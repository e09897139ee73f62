//! Decides which of two states of a record is the later one.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use penstock_core::stream::StreamId;

use super::project::MAX_REV;

/// Where a state of a record came from, as stored in `commit_seq` of the AppView's tables and `entry_id` of Penstock's.
///
/// As text it sorts bytewise as the stream does, and takes 32 characters at most: `1782000000000-000003`, and
/// `!1782000000000-000003` where a backfill filled a gap, which sorts before every live entry. A part of the ID with more
/// digits than the padding is written as `~` and 13 digits of base 36. The relay's number follows the ID as
/// `:26512345678`, or as `_` and 11 digits of base 36 where it has more than 11 digits; it is left out where there is no
/// room. The AppView's own writers put the number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    kind: StampKind,
    id: StreamId,
    number: Option<u64>,
}

/// Who wrote a state, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum StampKind {
    /// Another program: only the relay's number is known.
    Foreign,
    /// An entry with neither rev nor number: weaker than any live one.
    Filled,
    /// A live entry.
    Live,
}

/// The guard of a row, a tombstone or a shadow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// The rev of the commit, where it said one.
    pub(crate) rev: Option<String>,
    /// The entry; none on rows that somebody else wrote.
    pub(crate) stamp: Option<Stamp>,
}

/// How a change relates to what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What exists stays as it is.
    Older,
    /// The same event seen again under a later entry: only the stamp moves.
    Again,
    /// The change takes effect.
    Newer,
}

/// How far apart two numbers of one host can be: more than the network sends in the three days that a relay keeps. What
/// is further apart was counted by different hosts, and says nothing about the order.
const ONE_HOST: u64 = 1 << 30;

const FILLED: char = '!';
const LONG: char = '~';
const NUMBER: char = ':';
const LONG_NUMBER: char = '_';

/// The longest text of a stamp: `commit_seq` takes no more.
const MAX_TEXT: usize = 32;

// === impl Stamp ===

impl Stamp {
    /// Makes the stamp of a live entry, with the relay's number where it has one.
    pub(crate) fn live(id: StreamId, number: Option<u64>) -> Self {
        Self { kind: StampKind::Live, id, number }
    }

    /// Makes the stamp of an entry that only fills gaps.
    pub(crate) fn filled(id: StreamId) -> Self {
        Self { kind: StampKind::Filled, id, number: None }
    }

    /// Returns the stream ID.
    pub(crate) fn id(self) -> StreamId {
        self.id
    }

    /// Returns whether an entry with neither rev nor number wrote it.
    pub(crate) fn is_filled(self) -> bool {
        self.kind == StampKind::Filled
    }

    /// Reads the text of a column; `None` where nobody wrote it who counts.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Some((ms, rest)) = text.split_once('-') else {
            return Some(Self { kind: StampKind::Foreign, id: StreamId::MIN, number: Some(text.parse().ok()?) });
        };
        let (kind, ms) = ms.strip_prefix(FILLED).map_or((StampKind::Live, ms), |ms| (StampKind::Filled, ms));
        let (seq, number) = match rest.split_once([NUMBER, LONG_NUMBER]) {
            None => (rest, None),
            Some((seq, digits)) => {
                let radix = if rest.contains(NUMBER) { 10 } else { 36 };
                (seq, Some(u64::from_str_radix(digits, radix).ok()?))
            }
        };
        let part = |digits: &str| match digits.strip_prefix(LONG) {
            // Before base 36 they were decimal.
            Some(long) if long.len() == LONG_DECIMAL => long.parse().ok(),
            Some(long) => u64::from_str_radix(long, 36).ok(),
            None => digits.parse().ok(),
        };
        Some(Self { kind, id: StreamId { ms: part(ms)?, seq: part(seq)? }, number })
    }

    /// Compares by who wrote and by the stream ID.
    fn order(self) -> (StampKind, StreamId) {
        (self.kind, self.id)
    }
}

const LONG_DECIMAL: usize = 20;

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StreamId { ms, seq } = self.id;
        let mut text = String::with_capacity(MAX_TEXT);
        if self.kind == StampKind::Filled {
            text.push(FILLED);
        }
        // Writing to a string cannot fail.
        let _ =
            if ms < 10_000_000_000_000 { write!(text, "{ms:013}-") } else { write!(text, "{LONG}{}-", base36(ms, 13)) };
        let _ = if seq < 1_000_000 { write!(text, "{seq:06}") } else { write!(text, "{LONG}{}", base36(seq, 13)) };
        if let Some(number) = self.number {
            let number = match number {
                ..100_000_000_000 => format!("{NUMBER}{number}"),
                _ => format!("{LONG_NUMBER}{}", base36(number, 11)),
            };
            if text.len() + number.len() <= MAX_TEXT {
                text.push_str(&number);
            }
        }
        f.write_str(&text)
    }
}

/// Writes a number in so many digits of base 36, which sort as the numbers do.
fn base36(mut number: u64, digits: usize) -> String {
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    text.into_iter().map(char::from).collect()
}

// === impl Version ===

impl Version {
    /// Reads the two guard columns.
    pub(crate) fn from_columns(rev: Option<String>, entry_id: Option<&str>) -> Self {
        Self { rev, stamp: entry_id.and_then(Stamp::parse) }
    }

    /// Compares a change of this version with what exists.
    ///
    /// A fill takes only a place that is empty when it comes: refused, it is not remembered, should a deletion of the
    /// account that lies before it come later and empty the place.
    pub(crate) fn against(&self, standing: &Self) -> Verdict {
        if self.stamp.is_some_and(Stamp::is_filled) {
            return Verdict::Older;
        }
        let is_later = self.is_later(standing);
        if let (Some(new), Some(old)) = (&self.rev, &standing.rev) {
            return match new.as_bytes().cmp(old.as_bytes()) {
                Ordering::Greater => Verdict::Newer,
                Ordering::Equal if is_later => Verdict::Again,
                _ => Verdict::Older,
            };
        }
        match self.numbers(standing) {
            Some(Ordering::Greater) => Verdict::Newer,
            Some(Ordering::Less) => Verdict::Older,
            Some(Ordering::Equal) | None if is_later => Verdict::Newer,
            Some(Ordering::Equal) | None => Verdict::Older,
        }
    }

    /// Compares the numbers that one host gave two events, where the later entry may be one that was pushed again: by a
    /// client that says no revs. Our own ingest goes back only to read on to the end.
    fn numbers(&self, other: &Self) -> Option<Ordering> {
        let later = if self.is_later(other) { self } else { other };
        let (a, b) = (self.stamp?.number?, other.stamp?.number?);
        (later.rev.is_none() && a.abs_diff(b) < ONE_HOST).then(|| a.cmp(&b))
    }

    /// Returns whether both are of one rev.
    pub(crate) fn has_rev_of(&self, other: &Self) -> bool {
        self.rev.is_some() && self.rev == other.rev
    }

    fn is_later(&self, other: &Self) -> bool {
        self.stamp.map(Stamp::order) > other.stamp.map(Stamp::order)
    }

    /// Returns whether an account deleted through this ID took the record with it; what nobody stamped went too.
    pub(crate) fn is_gone(&self, deleted_through: Option<StreamId>) -> bool {
        deleted_through.is_some_and(|through| {
            self.stamp.is_none_or(|stamp| stamp.kind == StampKind::Foreign || stamp.id <= through)
        })
    }

    /// Returns the version just below: above that of every earlier rev, and given way to by whatever says this one. None
    /// where there is no rev, or one with no room for it.
    pub(crate) fn just_below(&self) -> Option<Self> {
        let rev = self.rev.as_deref().filter(|rev| rev.len() < MAX_REV)?;
        let (last, before) = rev.as_bytes().split_last()?;
        let less = char::from(last.checked_sub(1).filter(u8::is_ascii_graphic)?);
        let before = str::from_utf8(before).ok()?;
        Some(Self { rev: Some(format!("{before}{less}~")), stamp: self.stamp })
    }

    /// Orders records of one repo that want the same place: by rev; where there is none by number, then by entry; then
    /// by URI.
    ///
    /// A total order, unlike [`Version::against`] among records with and without rev: the winner must not depend on
    /// who came first.
    pub(crate) fn rank<'a>(&'a self, uri: &'a str) -> impl Ord {
        let stamp = if self.rev.is_none() { self.stamp } else { None };
        (self.rev.as_deref().map(str::as_bytes), stamp.map(|stamp| (stamp.number, stamp.order())), uri)
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
            Stamp::filled(id(5, 0)),
            Stamp::filled(id(u64::MAX, u64::MAX)),
            Stamp::live(id(0, 0), None),
            Stamp::live(id(9, 999_999), None),
            Stamp::live(id(9, 1_000_000), None),
            Stamp::live(id(9, u64::MAX), None),
            Stamp::live(id(10, 2), None),
            Stamp::live(id(1_782_000_000_000, 3), None),
            Stamp::live(id(9_999_999_999_999, 1), None),
            Stamp::live(id(10_000_000_000_000, 0), None),
            Stamp::live(id(u64::MAX, 0), None),
        ];
        assert!(stamps.is_sorted_by_key(|stamp| stamp.order()));
        let mut texts: Vec<_> = stamps.iter().map(ToString::to_string).collect();
        assert_eq!(texts[7], "1782000000000-000003");
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|text| text.len() <= MAX_TEXT), "{texts:?}");
        stamps.reverse();
        texts.reverse();
        for (stamp, text) in stamps.into_iter().zip(texts) {
            assert_eq!(Stamp::parse(&text), Some(stamp));
        }
        assert_eq!(Stamp::parse("no stamp"), None);
        let old = "~00010000000000000000-~00000000000001000000";
        assert_eq!(Stamp::parse(old), Some(Stamp::live(id(10_000_000_000_000_000, 1_000_000), None)));
    }

    #[test]
    fn a_stamp_carries_the_number_in_the_room_that_there_is() {
        for (number, text) in [
            (1, "1782000000000-000003:1"),
            (99_999_999_999, "1782000000000-000003:99999999999"),
            (100_000_000_000, "1782000000000-000003_00019xtf1ts"),
            ((1 << 53) - 1, "1782000000000-000003_2gosa7pa2gv"),
        ] {
            let stamp = Stamp::live(id(1_782_000_000_000, 3), Some(number));
            assert_eq!((stamp.to_string(), Stamp::parse(text)), (text.to_owned(), Some(stamp)));
        }
        let crowded = Stamp::live(id(u64::MAX, u64::MAX), Some(1 << 40));
        assert_eq!(Stamp::parse(&crowded.to_string()), Some(Stamp::live(id(u64::MAX, u64::MAX), None)));
        let foreign = Stamp::parse("26512345678").unwrap();
        assert_eq!((foreign.kind, foreign.number), (StampKind::Foreign, Some(26_512_345_678)));
        assert!(foreign.order() < Stamp::filled(StreamId::MIN).order());
    }

    /// What each of two versions says of the other, whichever of them stands: at most one may take effect.
    fn verdicts(a: &Version, b: &Version) -> (Verdict, Verdict) {
        (a.against(b), b.against(a))
    }

    #[test]
    fn a_client_without_revs_that_pushes_old_events_again_moves_nothing() {
        let entry = |rev, ms, number| version(rev, Some(Stamp::live(id(ms, 0), Some(number))));
        let (create, delete, again) = (entry(None, 1, 100), entry(None, 2, 105), entry(None, 3, 100));
        assert_eq!(verdicts(&create, &delete), (Verdict::Older, Verdict::Newer));
        assert_eq!(verdicts(&again, &delete), (Verdict::Older, Verdict::Newer));
        assert_eq!(verdicts(&again, &create), (Verdict::Newer, Verdict::Older));
        // The same where the deletion came by our own ingest, and where another program wrote it.
        assert_eq!(verdicts(&again, &entry(Some("3b"), 2, 105)), (Verdict::Older, Verdict::Newer));
        let foreign = Version::from_columns(None, Some("105"));
        assert_eq!(again.against(&foreign), Verdict::Older);
        assert_eq!(entry(None, 3, 106).against(&foreign), Verdict::Newer);
    }

    #[test]
    fn numbers_of_two_hosts_say_nothing() {
        let entry = |rev, ms, number| version(rev, Some(Stamp::live(id(ms, 0), Some(number))));
        let (one, other) = (entry(None, 1, 26_000_000_000), entry(None, 2, 700));
        assert_eq!(verdicts(&other, &one), (Verdict::Newer, Verdict::Older));
        // Our own ingest may have failed over: it never pushes old events again but to read on to the end.
        assert_eq!(verdicts(&entry(Some("3b"), 2, 90), &entry(None, 1, 100)), (Verdict::Newer, Verdict::Older));
    }

    #[test]
    fn the_greater_rev_wins_whatever_the_entries_say() {
        let old = version(Some("3b"), Some(Stamp::live(id(9, 0), None)));
        assert_eq!(version(Some("3c"), Some(Stamp::live(id(1, 0), None))).against(&old), Verdict::Newer);
        assert_eq!(version(Some("3B"), Some(Stamp::live(id(99, 0), None))).against(&old), Verdict::Older, "bytewise");
        assert_eq!(version(Some("3b"), Some(Stamp::live(id(99, 0), None))).against(&old), Verdict::Again);
        assert_eq!(version(Some("3b"), Some(Stamp::live(id(9, 0), None))).against(&old), Verdict::Older);
    }

    #[test]
    fn just_below_a_rev_is_nothing_but_what_comes_before_it() {
        let at = |rev: &str| version(Some(rev), Some(Stamp::live(id(9, 0), None)));
        for (earlier, rev) in [("3kaaaaaaaaaaa", "3kaaaaaaaaaab"), ("3kaaaaaaaaazz", "3kaaaaaaaab22"), ("2", "3")] {
            let below = at(rev).just_below().unwrap();
            assert_eq!(below.against(&at(earlier)), Verdict::Newer, "{below:?}");
            assert_eq!(at(earlier).against(&below), Verdict::Older);
            assert_eq!(at(rev).against(&below), Verdict::Newer);
            assert_eq!(below.against(&at(rev)), Verdict::Older);
            assert_eq!(below.stamp, at(rev).stamp);
        }
        assert_eq!(version(None, None).just_below(), None);
        for rev in ["", "a\u{1}", "a\u{7f}é", &"x".repeat(64)] {
            assert_eq!(at(rev).just_below(), None, "{rev:?}");
        }
    }

    #[test]
    fn without_a_rev_on_either_side_the_entry_decides() {
        let old = version(Some("3b"), Some(Stamp::live(id(9, 0), None)));
        assert_eq!(version(None, Some(Stamp::live(id(10, 0), None))).against(&old), Verdict::Newer);
        assert_eq!(version(None, Some(Stamp::live(id(9, 0), None))).against(&old), Verdict::Older);
        assert_eq!(version(None, Some(Stamp::live(id(1, 0), None))).against(&version(None, None)), Verdict::Newer);
    }

    #[test]
    fn a_backfill_moves_nothing_and_yields_to_all() {
        let filled = version(None, Some(Stamp::filled(id(9, 0))));
        assert_eq!(filled.against(&version(None, None)), Verdict::Older);
        assert_eq!(version(None, Some(Stamp::live(id(1, 0), None))).against(&filled), Verdict::Newer);
    }

    #[test]
    fn a_deleted_account_takes_what_came_before_and_what_nobody_stamped() {
        let through = Some(id(9, 0));
        assert!(version(None, None).is_gone(through));
        assert!(version(None, Some(Stamp::filled(id(9, 0)))).is_gone(through));
        assert!(!version(None, Some(Stamp::live(id(9, 1), None))).is_gone(through));
        assert!(!version(None, None).is_gone(None));
    }
}

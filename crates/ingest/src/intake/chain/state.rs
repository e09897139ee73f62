//! What must come next in a repo, and whether a commit is that; pure.

use penstock_core::entry::Root;

/// Why a repo is desynchronized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A commit follows another one than the last.
    Since,
    /// A commit changes another tree than the last one left.
    PrevData,
    /// The host said so with `#sync`.
    Sync,
    /// A commit was refused: it proved wrong.
    Refused,
}

/// The last that is known of a repo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Its rev; 0 where no commit of it was ever written.
    pub(crate) rev: u64,
    /// The beginning of the digest of its tree, as a number; none where nobody computed it.
    pub(crate) root: Option<u64>,
    /// Why it is desynchronized, until that is in PostgreSQL.
    pub(crate) why: Option<Why>,
    /// Whether PostgreSQL was not asked, and may know a newer state: then a commit that does not follow this one proves nothing.
    pub(crate) is_partial: bool,
    /// Whether commits may have followed of which the filter left nothing: then one that does not follow this one proves nothing.
    pub(crate) is_floor: bool,
}

/// A commit, as far as the chain is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) rev: u64,
    /// The rev before.
    pub(crate) since: Option<u64>,
    /// The root that it leaves.
    pub(crate) root: Option<u64>,
    /// The root before.
    pub(crate) before: Option<u64>,
}

/// What a commit turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It follows the last one.
    Follows,
    /// It is the first one of its repo that is seen.
    First,
    /// It is not newer than the last one: it was seen before, or the host went back.
    NotNewer,
    /// It does not follow the last one.
    Breaks(Why),
    /// It cannot be judged, for this reason.
    Unknown(Gap),
}

/// What is missing to judge a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The last state of its repo.
    NoState,
    /// What it follows: it does not say.
    NoSince,
    /// The commits since the last one that was written: the filter may have left them out, or they were missed.
    Filtered,
}

// === impl Why ===

impl Why {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Since, Self::PrevData, Self::Sync, Self::Refused];

    /// Names it for entries, tables and metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Since => "since",
            Self::PrevData => "prev_data",
            Self::Sync => "sync",
            Self::Refused => "refused",
        }
    }

    /// Reads the word of an entry.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Since, Self::PrevData, Self::Sync, Self::Refused].into_iter().find(|why| why.word() == word)
    }

    /// Returns it as three bits, never 0.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Since => 1,
            Self::PrevData => 2,
            Self::Sync => 3,
            Self::Refused => 4,
        }
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        [Self::Since, Self::PrevData, Self::Sync, Self::Refused].into_iter().find(|why| why.bits() == bits)
    }
}

// === impl Gap ===

impl Gap {
    /// Names it for metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NoState => "no_state",
            Self::NoSince => "no_since",
            Self::Filtered => "filtered",
        }
    }
}

// === impl State ===

impl State {
    /// The state of a repo of which no commit was ever written, or of which it is not known what was.
    pub(crate) const NOTHING: Self = Self { rev: 0, root: None, why: None, is_partial: false, is_floor: false };

    /// Judges the next commit.
    pub(crate) fn judge(self, next: Link) -> Verdict {
        if self.rev == 0 {
            return Verdict::First;
        }
        if next.rev <= self.rev {
            return Verdict::NotNewer;
        }
        // Only what lies after a floor may have been left out.
        let breaks = |why| {
            let is_after = next.since.is_none_or(|since| since > self.rev);
            if self.is_floor && is_after { Verdict::Unknown(Gap::Filtered) } else { Verdict::Breaks(why) }
        };
        let is_other = next.since.is_some_and(|since| since != self.rev);
        match (self.root, next.before) {
            // It changes the tree that is known: nothing was missed, whatever its `since`. Of a host that signed the same tree again, as
            // after a change of key, only a `#sync` told the rev, which a process that was killed has forgotten.
            (Some(root), Some(before)) if root == before => Verdict::Follows,
            _ if is_other => breaks(Why::Since),
            (Some(_), Some(_)) => breaks(Why::PrevData),
            _ if next.since.is_some() => Verdict::Follows,
            _ => Verdict::Unknown(Gap::NoSince),
        }
    }

    /// Returns whether a `#sync` says what is known already, or something older.
    pub(crate) fn covers(self, rev: u64, root: Option<u64>) -> bool {
        let is_same = self.root.is_none() || root.is_none() || self.root == root;
        rev < self.rev || rev == self.rev && is_same
    }

    /// Returns whether a `#sync` has the tree that is known: then nothing was missed, whatever its rev. So it is after a change of key,
    /// when a host signs the same tree again.
    pub(crate) fn has_tree(self, root: Option<u64>) -> bool {
        root.is_some() && self.root == root
    }

    /// Combines it with what PostgreSQL says: the newer one is the last.
    pub(crate) fn with(self, told: Self) -> Self {
        let is_floor = if told.rev > self.rev { told.is_floor } else { self.is_floor };
        Self { is_partial: false, is_floor, ..self.after(told.rev, told.root, None) }
    }

    /// Returns the state after a commit or a `#sync`, and a reason found with it.
    pub(crate) fn after(self, rev: u64, root: Option<u64>, why: Option<Why>) -> Self {
        let why = self.why.or(why);
        match rev.cmp(&self.rev) {
            std::cmp::Ordering::Less => Self { why, ..self },
            std::cmp::Ordering::Equal => Self { root: root.or(self.root), why, ..self },
            std::cmp::Ordering::Greater => Self { rev, root, why, is_floor: false, ..self },
        }
    }
}

/// Returns the beginning of a digest as a number.
pub(crate) fn prefix(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Returns it as the bytes that entries and rows hold.
pub(crate) fn root(number: u64) -> Root {
    number.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rev: u64, since: impl Into<Option<u64>>, before: impl Into<Option<u64>>) -> Link {
        Link { rev, since: since.into(), root: Some(rev * 10), before: before.into() }
    }

    #[test]
    fn a_commit_follows_by_rev_and_by_tree() {
        let known = State { rev: 5, root: Some(50), ..State::NOTHING };
        let no_root = State { root: None, ..known };
        let table = [
            (State::NOTHING, link(7, 6, 60), Verdict::First),
            (State::NOTHING, link(7, None, None), Verdict::First),
            (known, link(7, 5, 50), Verdict::Follows),
            (known, link(7, 6, 60), Verdict::Breaks(Why::Since)),
            (known, link(7, 6, 50), Verdict::Follows),
            (known, link(7, 4, 50), Verdict::Follows),
            (known, link(7, 4, 60), Verdict::Breaks(Why::Since)),
            (known, link(7, 4, None), Verdict::Breaks(Why::Since)),
            (known, link(7, 5, 51), Verdict::Breaks(Why::PrevData)),
            (known, link(7, 5, None), Verdict::Follows),
            (known, link(7, None, 50), Verdict::Follows),
            (known, link(7, None, 51), Verdict::Breaks(Why::PrevData)),
            (known, link(7, None, None), Verdict::Unknown(Gap::NoSince)),
            (no_root, link(7, 5, 99), Verdict::Follows),
            (no_root, link(7, 6, 99), Verdict::Breaks(Why::Since)),
            (no_root, link(7, None, 99), Verdict::Unknown(Gap::NoSince)),
            (known, link(5, 4, 40), Verdict::NotNewer),
            (known, link(3, 9, 90), Verdict::NotNewer),
        ];
        for (state, next, verdict) in table {
            assert_eq!(state.judge(next), verdict, "{state:?} {next:?}");
        }
    }

    #[test]
    fn what_may_have_been_left_out_since_proves_nothing() {
        let floor = State { rev: 5, root: Some(50), is_floor: true, ..State::NOTHING };
        let table = [
            (link(9, 8, 80), Verdict::Unknown(Gap::Filtered)),
            (link(9, None, 80), Verdict::Unknown(Gap::Filtered)),
            (link(9, 5, 50), Verdict::Follows),
            (link(9, 5, 51), Verdict::Breaks(Why::PrevData)),
            (link(9, 4, 40), Verdict::Breaks(Why::Since)),
            (link(4, 3, 30), Verdict::NotNewer),
        ];
        for (next, verdict) in table {
            assert_eq!(floor.judge(next), verdict, "{next:?}");
        }
        assert!(!floor.after(6, Some(60), None).is_floor, "what was seen is known");
        assert!(floor.after(5, Some(50), None).is_floor);
        let exact = State { rev: 6, root: Some(60), ..State::NOTHING };
        assert_eq!((exact.with(floor).is_floor, floor.with(exact).is_floor), (false, false));
        assert!(State { rev: 4, ..State::NOTHING }.with(floor).is_floor);
    }

    #[test]
    fn a_sync_says_something_new_or_nothing() {
        let known = State { rev: 5, root: Some(50), ..State::NOTHING };
        for (rev, root, covered) in
            [(5, Some(50), true), (5, None, true), (4, Some(1), true), (5, Some(51), false), (6, Some(50), false)]
        {
            assert_eq!(known.covers(rev, root), covered, "{rev} {root:?}");
        }
        assert!(State { root: None, ..known }.covers(5, Some(9)));
        assert!(!State::NOTHING.covers(5, Some(9)));
    }

    #[test]
    fn the_state_is_that_of_the_greatest_rev_and_the_first_reason_stays() {
        let known = State { rev: 5, root: Some(50), ..State::NOTHING };
        assert_eq!(known.after(6, Some(60), None), State { rev: 6, root: Some(60), ..State::NOTHING });
        assert_eq!(
            known.after(6, None, Some(Why::Since)),
            State { rev: 6, root: None, why: Some(Why::Since), ..State::NOTHING }
        );
        assert_eq!(known.after(4, Some(40), None), known);
        assert_eq!(known.after(5, None, None), known);
        let marked = known.after(6, Some(60), Some(Why::Sync));
        assert_eq!(marked.after(7, Some(70), Some(Why::Since)).why, Some(Why::Sync));
    }

    #[test]
    fn a_reason_is_read_as_it_is_written() {
        for why in Why::ALL {
            assert_eq!(Why::from_word(why.word()), Some(why));
        }
        assert_eq!(Why::from_word("else"), None);
    }
}

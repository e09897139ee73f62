//! What a repo's row says of its chain of commits: the tree at its rev, and whether a commit was missed.

use penstock_core::entry::{Commit, Entry, Root};

/// The root of a repo whose last commit came without a rev: what the next one follows is not known.
const UNKNOWN: &[u8] = &[];

/// What the entries of a batch say of one repo's chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain<'a> {
    rev: Option<&'a str>,
    /// The root at that rev.
    root: Option<Root>,
    /// Why the repo is desynchronized.
    pub(crate) sync: Option<&'a str>,
    /// Whether a commit came without a rev, as from other programs.
    is_unknown: bool,
}

// === impl Chain ===

impl<'a> Chain<'a> {
    /// Adds what a commit says.
    pub(crate) fn add(&mut self, entry: &Entry, commit: &'a Commit) {
        let rev = commit.rev.as_deref();
        // A fill says what stands, not what happened.
        self.is_unknown |= rev.is_none() && entry.seq.is_some();
        if rev > self.rev {
            (self.rev, self.root) = (rev, commit.proven.root);
        } else if rev == self.rev {
            self.root = commit.proven.root.or(self.root);
        }
        self.sync = self.sync.or(commit.proven.sync.as_deref());
    }

    /// Returns the root as its column has it.
    pub(crate) fn root(&self) -> Option<&[u8]> {
        if self.is_unknown { Some(UNKNOWN) } else { self.root.as_ref().map(|root| &root[..]) }
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::entry::{Event, Proven};
    use penstock_core::stream::{Seq, StreamId};

    use super::*;

    fn entry(rev: Option<&str>, seq: Option<u64>, root: Option<u8>, sync: Option<&str>) -> Entry {
        let proven = Proven { root: root.map(|byte| [byte; 8]), sync: sync.map(str::to_owned) };
        let commit = Commit {
            repo: "did:plc:a".to_owned(),
            rev: rev.map(str::to_owned),
            since: None,
            commit: None,
            time: None,
            ops: Vec::new(),
            missing: 0,
            proven,
        };
        let id = StreamId::MIN;
        Entry { id, order: id, seq: seq.and_then(Seq::new), event: Event::Commit(commit) }
    }

    fn said(entries: &[Entry]) -> (Option<Vec<u8>>, Option<String>) {
        let mut chain = Chain::default();
        for entry in entries {
            let Event::Commit(commit) = &entry.event else { continue };
            chain.add(entry, commit);
        }
        (chain.root().map(<[u8]>::to_vec), chain.sync.map(str::to_owned))
    }

    #[test]
    fn the_root_is_that_of_the_greatest_rev_and_any_mark_counts() {
        let (a, b) = (entry(Some("3a"), Some(1), Some(1), Some("since")), entry(Some("3b"), Some(2), Some(2), None));
        let expected = (Some(vec![2; 8]), Some("since".to_owned()));
        assert_eq!(said(&[a.clone(), b.clone()]), expected);
        assert_eq!(said(&[b.clone(), a]), expected);
        let again = entry(Some("3b"), Some(3), None, None);
        assert_eq!(said(&[b.clone(), again.clone()]).0, Some(vec![2; 8]), "the same commit, not verified this time");
        assert_eq!(said(&[again, b.clone()]).0, Some(vec![2; 8]));
        let unverified = entry(Some("3c"), Some(4), None, None);
        assert_eq!(said(&[b, unverified]).0, None);
    }

    #[test]
    fn after_a_commit_without_a_rev_nothing_is_known() {
        let (foreign, fill) = (entry(None, Some(1), None, None), entry(None, None, None, None));
        let ours = entry(Some("3b"), Some(2), Some(2), None);
        assert_eq!(said(&[ours.clone(), foreign]).0, Some(Vec::new()));
        assert_eq!(said(&[fill, ours]).0, Some(vec![2; 8]));
    }
}

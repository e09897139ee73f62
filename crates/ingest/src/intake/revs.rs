//! Remembers the last revision of recent repos, to tell a missed commit from an unused number.

use std::hash::{BuildHasher, RandomState};

use crate::hashed::HashedMap;

/// How many repos each of two generations holds; together they take about 4 MB.
const GENERATION: usize = 32_768;

type Tid = [u8; 13];

/// The last revision of each recent repo.
#[derive(Debug, Default)]
pub(crate) struct Revs {
    hasher: RandomState,
    young: HashedMap<Tid>,
    old: HashedMap<Tid>,
}

// === impl Revs ===

impl Revs {
    /// Records a commit; returns whether the one before it (its `since`) was missed although an older one was seen.
    pub(crate) fn commit(&mut self, did: &str, rev: &str, since: Option<&str>) -> bool {
        let key = self.hasher.hash_one(did);
        let known = self.young.get(&key).or_else(|| self.old.get(&key));
        let missed = match (known, since.and_then(tid)) {
            (Some(known), Some(since)) => since > *known,
            _ => false,
        };
        self.know(key, rev);
        missed
    }

    /// Records a `#sync`: the repo moved to this revision without commits.
    pub(crate) fn sync(&mut self, did: &str, rev: &str) {
        self.know(self.hasher.hash_one(did), rev);
    }

    fn know(&mut self, key: u64, rev: &str) {
        let Some(rev) = tid(rev) else { return };
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, rev);
    }
}

fn tid(text: &str) -> Option<Tid> {
    text.as_bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_since_past_the_known_rev_is_a_missed_commit() {
        let mut revs = Revs::default();
        assert!(!revs.commit("did:plc:a", "3aaaaaaaaaaa2", None));
        assert!(!revs.commit("did:plc:a", "3aaaaaaaaaaa4", Some("3aaaaaaaaaaa2")));
        assert!(revs.commit("did:plc:a", "3aaaaaaaaaaa7", Some("3aaaaaaaaaaa6")));
        assert!(!revs.commit("did:plc:b", "3aaaaaaaaaaa7", Some("3aaaaaaaaaaa6")), "unknown repos prove nothing");
    }

    #[test]
    fn a_sync_explains_it() {
        let mut revs = Revs::default();
        revs.commit("did:plc:a", "3aaaaaaaaaaa2", None);
        revs.sync("did:plc:a", "3aaaaaaaaaaa6");
        assert!(!revs.commit("did:plc:a", "3aaaaaaaaaaa7", Some("3aaaaaaaaaaa6")));
    }

    #[test]
    fn memory_is_bounded() {
        let mut revs = Revs::default();
        for index in 0..200_000 {
            revs.commit(&format!("did:plc:{index}"), "3aaaaaaaaaaa2", None);
        }
        assert!(revs.young.len() <= GENERATION && revs.old.len() <= GENERATION);
    }
}

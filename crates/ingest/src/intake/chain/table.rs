//! A table of repos in fixed memory: 24 bytes each, without pointers.
//!
//! A repo may stand in one of two buckets of eight, and goes where there is more room; so a table is full only when it is very
//! nearly full. Of a full pair of buckets the repo goes that is settled and has the smallest rev, which is the one that has been
//! quiet for longest.

use crate::intake::chain::state::{State, Why};

/// How many repos stand side by side.
const BUCKET: usize = 8;

/// The size of a repo in bytes.
const SLOT: u64 = 24;

/// The lowest bits of the hash, which tell the repos of a bucket apart.
const TAG_BITS: u32 = 43;
const TAG: u64 = (1 << TAG_BITS) - 1;

/// Above the tag: why the repo is desynchronized, whether the root is known, whether a newer state may be known, the epoch.
const WHY_SHIFT: u32 = TAG_BITS;
const WHY: u64 = 0b111 << WHY_SHIFT;
const HAS_ROOT: u64 = 1 << (TAG_BITS + 3);
const IS_PARTIAL: u64 = 1 << (TAG_BITS + 4);
const EPOCH_SHIFT: u32 = TAG_BITS + 5;

/// The epoch of what has been settled for long.
pub(crate) const SETTLED: u16 = 0;

/// The highest bit of a rev, which no TID has: whether newer commits may have been left out.
const IS_FLOOR: u64 = 1 << 63;

/// One repo: tag and flags, rev, root. All zero where there is none.
type Slot = [u64; 3];

/// What became of a repo that was to be put into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It stands there.
    Stands,
    /// It stands there in the place of another one.
    Replaced,
    /// There is no room: everything where it may stand is unsettled.
    Full,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    buckets: Box<[[Slot; BUCKET]]>,
    repos: usize,
}

// === impl Table ===

impl Table {
    /// Makes an empty table that takes at most so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let buckets = usize::try_from(bytes / SLOT).unwrap_or(usize::MAX) / BUCKET;
        Self { buckets: empty(buckets.max(1)), repos: 0 }
    }

    /// Returns how many repos it holds.
    pub(crate) fn len(&self) -> usize {
        self.repos
    }

    /// Returns what is known of a repo, and the epoch of it.
    pub(crate) fn get(&self, hash: u64) -> Option<(State, u16)> {
        let slot = self.pair(hash).into_iter().flat_map(|at| self.buckets.get(at)).flatten();
        slot.into_iter().find(|slot| is_of(slot, hash)).map(read)
    }

    /// Puts a repo in, or what is new of it; `is_settled` judges the epochs of others.
    pub(crate) fn put(&mut self, hash: u64, state: State, epoch: u16, is_settled: impl Fn(u16) -> bool) -> Put {
        let [first, second] = self.pair(hash);
        let slot = written(hash, state, epoch);
        for at in [first, second] {
            if let Some(found) = self.bucket(at).iter_mut().find(|slot| is_of(slot, hash)) {
                *found = slot;
                return Put::Stands;
            }
        }
        let free = |table: &Self, at: usize| {
            table.buckets.get(at).map_or(0, |bucket| bucket.iter().filter(|slot| is_free(slot)).count())
        };
        let roomier = if free(self, second) > free(self, first) { second } else { first };
        if let Some(found) = self.bucket(roomier).iter_mut().find(|slot| is_free(slot)) {
            *found = slot;
            self.repos += 1;
            return Put::Stands;
        }
        let quietest = |table: &mut Self, at: usize| {
            let settled = table.bucket(at).iter().filter(|slot| is_settled(epoch_of(slot)));
            settled.map(rev_of).min()
        };
        let (one, other) = (quietest(self, first), quietest(self, second));
        let (at, rev) = match (one, other) {
            (Some(one), Some(other)) if other < one => (second, other),
            (Some(one), _) => (first, one),
            (None, Some(other)) => (second, other),
            (None, None) => return Put::Full,
        };
        let of = |slot: &&mut Slot| is_settled(epoch_of(slot)) && rev_of(slot) == rev;
        match self.bucket(at).iter_mut().find(of) {
            Some(found) => {
                *found = slot;
                Put::Replaced
            }
            None => Put::Full,
        }
    }

    /// Changes every epoch.
    pub(crate) fn renumber(&mut self, new: impl Fn(u16) -> u16) {
        for slot in self.buckets.iter_mut().flatten().filter(|slot| !is_free(slot)) {
            let [head, ..] = slot;
            let epoch = new((*head >> EPOCH_SHIFT) as u16);
            *head = *head & !(u64::from(u16::MAX) << EPOCH_SHIFT) | u64::from(epoch) << EPOCH_SHIFT;
        }
    }

    /// Forgets every repo.
    pub(crate) fn clear(&mut self) {
        let buckets = self.buckets.len();
        // Given back first: there is no memory for two.
        self.buckets = Box::default();
        self.buckets = empty(buckets);
        self.repos = 0;
    }

    fn bucket(&mut self, at: usize) -> &mut [Slot] {
        self.buckets.get_mut(at).map(|bucket| &mut bucket[..]).unwrap_or_default()
    }

    /// Returns the two buckets in which a repo may stand.
    fn pair(&self, hash: u64) -> [usize; 2] {
        // The tag is of the lower bits; Fibonacci hashing mixes all of them once more.
        let mixed = (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let reduce = |bits: u64| ((u128::from(bits) * self.buckets.len() as u128) >> 64) as usize;
        [reduce(hash), reduce(mixed)]
    }
}

/// Makes empty buckets. Zeroed memory comes from the system page by page, as it is used: nothing here may write to all of it.
fn empty(buckets: usize) -> Box<[[Slot; BUCKET]]> {
    vec![[Slot::default(); BUCKET]; buckets].into_boxed_slice()
}

fn is_of(slot: &Slot, hash: u64) -> bool {
    let [head, ..] = slot;
    head & TAG == tag(hash)
}

/// Returns the bits that tell repos apart; never 0, which is a free slot.
fn tag(hash: u64) -> u64 {
    (hash & TAG).max(1)
}

fn is_free(slot: &Slot) -> bool {
    let [head, ..] = slot;
    *head == 0
}

fn epoch_of(slot: &Slot) -> u16 {
    let [head, ..] = slot;
    (head >> EPOCH_SHIFT) as u16
}

fn rev_of(slot: &Slot) -> u64 {
    let [_, rev, _] = slot;
    *rev & !IS_FLOOR
}

fn read(slot: &Slot) -> (State, u16) {
    let [head, rev, root] = *slot;
    let root = (head & HAS_ROOT != 0).then_some(root);
    let (why, is_partial) = (Why::from_bits((head & WHY) >> WHY_SHIFT), head & IS_PARTIAL != 0);
    let (rev, is_floor) = (rev & !IS_FLOOR, rev & IS_FLOOR != 0);
    (State { rev, root, why, is_partial, is_floor }, epoch_of(slot))
}

fn written(hash: u64, state: State, epoch: u16) -> Slot {
    let why = state.why.map_or(0, Why::bits) << WHY_SHIFT;
    let root = if state.root.is_some() { HAS_ROOT } else { 0 };
    let partial = if state.is_partial { IS_PARTIAL } else { 0 };
    let rev = state.rev & !IS_FLOOR | if state.is_floor { IS_FLOOR } else { 0 };
    [tag(hash) | why | root | partial | u64::from(epoch) << EPOCH_SHIFT, rev, state.root.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn state(rev: u64) -> State {
        State { rev, root: Some(rev ^ 7), ..State::NOTHING }
    }

    #[test]
    fn a_repo_is_read_as_it_was_put() {
        let mut table = Table::new(1 << 16);
        let states = [
            State::NOTHING,
            State { rev: u64::MAX >> 1, root: Some(u64::MAX), why: Some(Why::Sync), is_partial: true, is_floor: true },
            State { rev: 5, root: Some(0), why: Some(Why::Since), is_partial: false, is_floor: false },
        ];
        for (hash, state) in (1..).map(|n: u64| n * 0x1234_5678_9abc_def1).zip(states) {
            for epoch in [SETTLED, 1, u16::MAX] {
                assert_eq!(table.put(hash, state, epoch, |_| false), Put::Stands);
                assert_eq!(table.get(hash), Some((state, epoch)));
            }
        }
        for why in Why::ALL {
            assert_eq!(Why::from_bits(why.bits()), Some(why));
        }
        assert_eq!(table.len(), 3);
        table.renumber(|epoch| epoch / 5);
        assert_eq!(table.get(0x1234_5678_9abc_def1), Some((states[0], u16::MAX / 5)));
        table.clear();
        assert_eq!((table.get(0x1234_5678_9abc_def1), table.len()), (None, 0));
    }

    #[test]
    fn what_is_unsettled_is_never_replaced_and_of_the_rest_the_quietest_goes() {
        // One pair of buckets, of which both are the same.
        let mut table = Table::new(SLOT * BUCKET as u64);
        for hash in 1..=8 {
            assert_eq!(table.put(hash, state(100 - hash), hash as u16, |_| false), Put::Stands);
        }
        assert_eq!(table.put(9, state(1), 9, |epoch| epoch == 0), Put::Full);
        assert_eq!((table.get(9), table.len()), (None, 8));
        assert_eq!(table.put(9, state(1), 9, |epoch| epoch <= 3), Put::Replaced);
        assert_eq!((table.get(3), table.get(9)), (None, Some((state(1), 9))));
        assert_eq!(table.put(8, state(200), 10, |_| false), Put::Stands, "what stands there needs no room");
    }

    #[test]
    fn two_million_repos_stand_in_the_default_memory() {
        let mut table = Table::new(67_108_864);
        let hasher = RandomState::new();
        let mut lost = 0;
        for repo in 0..2_000_000_u64 {
            let hash = hasher.hash_one(repo);
            lost += usize::from(table.put(hash, state(repo), SETTLED, |_| true) != Put::Stands);
        }
        assert!(lost <= 20 && table.len() + lost == 2_000_000, "{lost} {}", table.len());
        let found = (0..2_000_000).filter(|repo| table.get(hasher.hash_one(repo)) == Some((state(*repo), SETTLED)));
        assert!(found.count() >= 2_000_000 - 20);
        assert!(size_of_val(&*table.buckets) <= 67_108_864);
    }
}

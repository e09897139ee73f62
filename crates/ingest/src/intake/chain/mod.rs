//! The chain of each repo: the rev and the tree that its next commit must follow.
//!
//! In: commits and `#sync`s in the order of the host, what was written, and up to where the workers have settled it.
//! Out: whether each follows the last one of its repo. `intake` asks; nothing here does I/O.
//!
//! What PostgreSQL says of a repo is right once everything of it in the stream is settled, and until then the stream is. So memory is
//! a cache with one invariant:
//!
//! > **Of each repo with an entry that is in the stream and not settled, the newest state is in memory.**
//!
//! Hence a repo that is not in memory has nothing unsettled, and PostgreSQL can be asked for it. The invariant holds because
//!
//! - after a start, and whenever it is in doubt what was written, what is unsettled is read from the stream before anything is judged;
//! - only what is settled makes room in the table, and where everything that could make room is unsettled a repo is *spilled* into a
//!   second table until it is settled: no larger than the stream has entries;
//! - what is in flight, sent to Redis and not answered, lies above both tables. An answer moves it down; a failure drops it;
//! - what PostgreSQL answers counts only if nothing was settled since it was asked. Otherwise a repo could have been written, settled
//!   and forgotten meanwhile.
//!
//! A commit of which a filter leaves nothing makes no entry, and so PostgreSQL never hears of it. In memory it is a link like any other.
//! But what PostgreSQL or the stream says of a repo is then only a *floor*: a commit that follows one behind it proves nothing.
//!
//! A commit that breaks the chain carries the mark in its entry, and so do all commits after it until its entry is settled: so
//! whatever rev of the repo PostgreSQL has, it has the mark too. That matters when Redis loses its data and entries come again, of which
//! workers may have written the later ones first. What makes no entry is marked in Redis, by the script that moves the cursor.

pub(crate) mod epochs;
pub(crate) mod link;
pub(crate) mod state;
pub(crate) mod table;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use penstock_core::stream::StreamId;

use crate::hashed::HashedMap;
use crate::intake::chain::epochs::Epochs;
use crate::intake::chain::state::{Gap, Link, State, Verdict, Why};
use crate::intake::chain::table::{Put, SETTLED, Table};

/// The states of repos.
#[derive(Debug)]
pub(crate) struct Chain {
    hasher: RandomState,
    table: Table,
    /// Unsettled repos that found no room in the table, each with its epoch.
    spilled: HashedMap<(State, u16)>,
    /// The newest states that are not certainly written, each with the number of its batch.
    in_flight: HashedMap<(State, u64)>,
    /// The states of each batch that was sent, oldest first.
    sent: VecDeque<Sent>,
    /// The states of the batch that is being filled, and its number.
    filling: Vec<Filled>,
    number: u64,
    /// What PostgreSQL said of the repos of the chunk at hand, and what the table held of them.
    told: HashedMap<State>,
    epochs: Epochs,
    /// Counts up when something was settled.
    generation: u64,
    /// How many marks were left in Redis, how many of them are certainly written, and how many in PostgreSQL.
    marks: u64,
    marks_written: u64,
    marks_moved: u64,
    /// Whether there is a PostgreSQL to ask.
    has_database: bool,
    /// Whether a filter leaves commits out of repos that are carried: what PostgreSQL and the stream say of a repo is then a floor.
    leaves_out: bool,
    /// Repos found desynchronized late, which the next batch is to mark.
    late: Vec<Late>,
    /// Commits that could not be judged because PostgreSQL did not answer.
    deferred: VecDeque<Deferred>,
    /// The last entry that was certainly written or read.
    last: Option<StreamId>,
    /// Whether what is unsettled has to be read first.
    is_in_doubt: bool,
}

/// The state that a commit or `#sync` of a batch leaves.
#[derive(Clone, Copy, Debug)]
struct Filled {
    hash: u64,
    state: State,
    /// Whether an entry brings it to PostgreSQL.
    has_entry: bool,
}

/// A batch that was sent.
#[derive(Debug)]
struct Sent {
    states: Vec<Filled>,
    /// How many marks were left by then.
    marks: u64,
    /// The repos found desynchronized late that it marks.
    late: Vec<Late>,
}

/// A commit or `#sync` to be judged once PostgreSQL answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Deferred {
    did: Box<str>,
    what: What,
    /// What was known of the repo before.
    before: State,
    /// The batch that writes it.
    number: u64,
}

/// A repo that is found desynchronized by something that was deferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) did: Box<str>,
    pub(crate) why: Why,
    /// The batch that writes what was deferred: if it is not written, that comes again.
    number: u64,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Commit(Link),
    Sync { rev: u64, root: Option<u64> },
}

/// How many commits are judged later at most; they take some 150 bytes each.
const DEFERRED: usize = 10_000;

/// What a commit or `#sync` is to its repo, and what its entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// Why the repo is desynchronized, if that may not be in PostgreSQL yet.
    pub(crate) why: Option<Why>,
}

// === impl Chain ===

impl Chain {
    /// Makes a table of so many bytes; what is unsettled is to be read first.
    pub(crate) fn new(bytes: u64, has_database: bool) -> Self {
        Self {
            hasher: RandomState::new(),
            table: Table::new(bytes),
            spilled: HashedMap::default(),
            in_flight: HashedMap::default(),
            sent: VecDeque::new(),
            filling: Vec::new(),
            number: 0,
            told: HashedMap::default(),
            epochs: Epochs::new(),
            generation: 0,
            marks: 0,
            marks_written: 0,
            marks_moved: 0,
            has_database,
            leaves_out: false,
            late: Vec::new(),
            deferred: VecDeque::new(),
            last: None,
            is_in_doubt: true,
        }
    }

    /// Returns how many repos are in memory.
    pub(crate) fn repos(&self) -> usize {
        self.table.len() + self.spilled.len()
    }

    /// Sets whether a filter leaves commits out of repos that are carried.
    pub(crate) fn set_leaves_out(&mut self, leaves_out: bool) {
        self.leaves_out = leaves_out;
    }

    /// Returns what PostgreSQL or the stream says of a repo, as far as it can be relied on.
    fn relied_on(&self, told: State) -> State {
        State { is_floor: self.leaves_out && told.rev > 0, ..told }
    }

    /// Judges a commit of which the filter leaves nothing, and takes it as passed with the batch that is being filled. No entry tells
    /// of it: where it breaks the chain its repo is to be marked in Redis.
    pub(crate) fn commit_left_out(&mut self, did: &str, link: Link) -> Judged {
        let judged = self.commit(did, link);
        if let Some(filled) = self.filling.last_mut() {
            filled.has_entry = false;
        }
        if matches!(judged.verdict, Verdict::Breaks(_)) {
            self.left_mark();
        }
        judged
    }

    /// Judges a commit, and takes it as written with the batch that is being filled.
    pub(crate) fn commit(&mut self, did: &str, link: Link) -> Judged {
        let hash = self.hasher.hash_one(did);
        let (known, carried) = self.carried(hash);
        let before = known.unwrap_or(State { is_partial: true, ..State::NOTHING });
        let verdict = match before.judge(link) {
            // Only what is whole proves anything.
            Verdict::First | Verdict::Breaks(_) if before.is_partial => {
                self.defer(did, What::Commit(link), before);
                Verdict::Unknown(Gap::NoState)
            }
            verdict => verdict,
        };
        let found = match verdict {
            Verdict::Breaks(why) => Some(why),
            _ => None,
        };
        let why = carried.or(found);
        let mut after = State { why: None, ..before }.after(link.rev, link.root, why);
        // Without a database nothing better will be known. What comes again comes in a row, up to the last one.
        after.is_partial &= self.has_database || verdict != Verdict::Follows;
        self.fill(hash, after);
        Judged { verdict, why }
    }

    fn defer(&mut self, did: &str, what: What, before: State) {
        if self.has_database && self.deferred.len() < DEFERRED {
            self.deferred.push_back(Deferred { did: did.into(), what, before, number: self.number });
        }
    }

    /// Returns some of the repos whose commits are judged once PostgreSQL has told of them.
    pub(crate) fn deferred(&self, count: usize) -> Vec<Box<str>> {
        self.deferred.iter().take(count).map(|deferred| deferred.did.clone()).collect()
    }

    /// Judges the oldest one that was deferred, by what PostgreSQL says of its repo.
    pub(crate) fn judge_deferred(&mut self, told: State) -> Option<Verdict> {
        let Deferred { did, what, before, number } = self.deferred.pop_front()?;
        let state = before.with(self.relied_on(told));
        // Where workers have written it by now, nothing tells what was before.
        let verdict = match what {
            What::Commit(link) => state.judge(link),
            What::Sync { rev, root } if state.covers(rev, root) || state.has_tree(root) => Verdict::NotNewer,
            What::Sync { .. } => Verdict::Breaks(Why::Sync),
        };
        if let Verdict::Breaks(why) = verdict {
            self.left_mark();
            self.late.push(Late { did, why, number });
        }
        Some(verdict)
    }

    /// Returns the repos that the batch at hand is to mark because they were found late.
    pub(crate) fn late(&self) -> &[Late] {
        &self.late
    }

    /// Judges a `#sync`, and takes its state as written with the batch that is being filled; none where it says nothing new.
    pub(crate) fn sync(&mut self, did: &str, rev: u64, root: Option<u64>) -> Option<Verdict> {
        let hash = self.hasher.hash_one(did);
        let (known, carried) = self.carried(hash);
        let before = known.unwrap_or(State { is_partial: true, ..State::NOTHING });
        if before.covers(rev, root) {
            return None;
        }
        let bare = State { why: None, ..before };
        if before.has_tree(root) {
            self.fill(hash, bare.after(rev, root, carried));
            return None;
        }
        if before.is_partial {
            self.defer(did, What::Sync { rev, root }, before);
            self.fill(hash, bare.after(rev, root, carried));
            return Some(Verdict::Unknown(Gap::NoState));
        }
        self.left_mark();
        self.fill(hash, bare.after(rev, root, carried.or(Some(Why::Sync))));
        Some(Verdict::Breaks(Why::Sync))
    }

    /// Records that a commit of a repo was refused, so that the repo is marked.
    pub(crate) fn refused(&mut self, did: &str) {
        let hash = self.hasher.hash_one(did);
        self.left_mark();
        if let (Some(state), carried) = self.carried(hash) {
            self.fill(hash, State { why: carried.or(Some(Why::Refused)), ..state });
        }
    }

    /// Returns what is known of a repo, and the mark that its next commit is to carry.
    fn carried(&self, hash: u64) -> (Option<State>, Option<Why>) {
        let Some((state, is_settled)) = self.get(hash) else { return (None, None) };
        let is_kept =
            |why: &Why| !is_settled || matches!(why, Why::Sync | Why::Refused) && self.marks_moved < self.marks;
        (Some(state), state.why.filter(is_kept))
    }

    fn left_mark(&mut self) {
        self.marks += 1;
    }

    fn fill(&mut self, hash: u64, state: State) {
        self.filling.push(Filled { hash, state, has_entry: true });
        self.in_flight.insert(hash, (state, self.number));
    }

    /// Returns what is known of a repo, and whether that is settled.
    fn get(&self, hash: u64) -> Option<(State, bool)> {
        if let Some((state, _)) = self.in_flight.get(&hash) {
            return Some((*state, false));
        }
        let held = self.table.get(hash).or_else(|| self.spilled.get(&hash).copied());
        let held = held.map(|(state, epoch)| (state, self.epochs.is_settled(epoch)));
        held.or_else(|| self.told.get(&hash).map(|state| (*state, true)))
    }

    /// Returns whether PostgreSQL is to be asked for a repo before its next commit is judged.
    pub(crate) fn is_missing(&self, did: &str) -> bool {
        self.get(self.hasher.hash_one(did)).is_none()
    }

    /// Returns whether PostgreSQL is to be asked for a repo before it is marked: it is settled, and somebody may have repaired it.
    pub(crate) fn is_doubtful(&self, did: &str, link: Link) -> bool {
        match self.get(self.hasher.hash_one(did)) {
            None => true,
            Some((state, is_settled)) => {
                (is_settled || state.is_partial)
                    && matches!(state.judge(link), Verdict::Breaks(_) | Verdict::First)
                    && (state.is_partial || state.rev > 0)
            }
        }
    }

    /// The same for a `#sync`.
    pub(crate) fn is_sync_doubtful(&self, did: &str, rev: u64, root: Option<u64>) -> bool {
        match self.get(self.hasher.hash_one(did)) {
            None => true,
            Some((state, is_settled)) => (is_settled || state.is_partial) && !state.covers(rev, root),
        }
    }

    /// Returns what an answer of PostgreSQL must be asked in to count.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes what PostgreSQL said of a repo when it was asked in that generation; [`State::NOTHING`] where it does not know it.
    pub(crate) fn learn(&mut self, did: &str, told: State, generation: u64) {
        if generation != self.generation {
            return;
        }
        let hash = self.hasher.hash_one(did);
        let told = self.relied_on(told);
        let epochs = &self.epochs;
        if let Some((state, _)) = self.in_flight.get_mut(&hash) {
            // The batch that carries it is not answered: it is told once that is in the table.
            *state = if state.is_partial { state.with(told) } else { *state };
            return;
        }
        let held = self.table.get(hash).or_else(|| self.spilled.get(&hash).copied());
        match held {
            Some((state, epoch)) if !epochs.is_settled(epoch) => {
                if state.is_partial {
                    self.put_at(hash, state.with(told), epoch);
                }
            }
            held => {
                let why = held.and_then(|(state, _)| state.why);
                self.table.put(hash, State { why, ..told }, SETTLED, |epoch| epochs.is_settled(epoch));
            }
        }
    }

    /// The same for a repo of the chunk at hand: this is remembered until [`Chain::chunk_is_judged`], full as the table may be.
    pub(crate) fn learn_now(&mut self, did: &str, told: State, generation: u64) {
        if generation == self.generation {
            self.told.insert(self.hasher.hash_one(did), self.relied_on(told));
        }
        self.learn(did, told, generation);
    }

    /// Remembers what is known of a repo of the chunk at hand, which may have to make room before it is judged.
    pub(crate) fn pin(&mut self, did: &str) {
        let hash = self.hasher.hash_one(did);
        if let Some((state, true)) = self.get(hash) {
            self.told.insert(hash, state);
        }
    }

    /// Forgets what was remembered for the chunk.
    pub(crate) fn chunk_is_judged(&mut self) {
        self.told.clear();
    }

    /// Records that the batch is being sent.
    pub(crate) fn send(&mut self) {
        self.sent.push_back(Sent {
            states: std::mem::take(&mut self.filling),
            marks: self.marks,
            late: std::mem::take(&mut self.late),
        });
        self.number += 1;
    }

    /// Records that the oldest batch sent is written; `last` is its last entry.
    pub(crate) fn written(&mut self, last: Option<StreamId>) {
        let number = self.number - self.sent.len() as u64;
        let Some(Sent { states, marks, .. }) = self.sent.pop_front() else { return };
        self.marks_written = self.marks_written.max(marks);
        if let Some(last) = last {
            self.epochs.written(last);
            self.last = self.last.max(Some(last));
        }
        for Filled { hash, state, has_entry } in states {
            if has_entry {
                self.put(hash, state);
            } else {
                self.put_left_out(hash, state);
            }
            if self.in_flight.get(&hash).is_some_and(|(_, of)| *of == number) {
                self.in_flight.remove(&hash);
            }
        }
    }

    /// Puts an unsettled state into memory.
    fn put(&mut self, hash: u64, state: State) {
        self.put_at(hash, state, self.epochs.open());
    }

    /// Puts a state into memory that no entry brings to PostgreSQL: it is as settled as what was known before.
    fn put_left_out(&mut self, hash: u64, state: State) {
        let held = self.table.get(hash).or_else(|| self.spilled.get(&hash).copied());
        let epoch = held.map_or(SETTLED, |(_, epoch)| epoch);
        if self.epochs.is_settled(epoch) {
            let epochs = &self.epochs;
            self.table.put(hash, state, SETTLED, |epoch| epochs.is_settled(epoch));
        } else {
            self.put_at(hash, state, epoch);
        }
    }

    fn put_at(&mut self, hash: u64, state: State, epoch: u16) {
        let epochs = &self.epochs;
        let put = self.table.put(hash, state, epoch, |epoch| epochs.is_settled(epoch));
        if put == Put::Full {
            self.spilled.insert(hash, (state, epoch));
        } else if !self.spilled.is_empty() {
            self.spilled.remove(&hash);
        }
    }

    /// Returns how many marks are certainly in Redis, or were moved from there.
    pub(crate) fn marks_written(&self) -> u64 {
        self.marks_written
    }

    /// Records up to which entry everything is settled, and if Redis held no marks, how many it had been given before.
    pub(crate) fn settle(&mut self, through: StreamId, moved: Option<u64>) {
        self.marks_moved = self.marks_moved.max(moved.unwrap_or_default());
        if self.epochs.settle(through) {
            self.generation += 1;
            let epochs = &self.epochs;
            self.spilled.retain(|_, (_, epoch)| !epochs.is_settled(*epoch));
        }
        if let Some(excess) = self.epochs.excess() {
            self.epochs.renumber(excess);
            self.table.renumber(|epoch| epoch.saturating_sub(excess));
            for (_, epoch) in self.spilled.values_mut() {
                *epoch -= excess;
            }
        }
    }

    /// Drops what is not certainly written: the connection ended.
    pub(crate) fn drop_in_flight(&mut self) {
        self.in_flight.clear();
        // What was not written comes again.
        let oldest = self.number - self.sent.len() as u64;
        self.deferred.retain(|deferred| deferred.number < oldest);
        // Unlike events, these do not come again.
        for mut sent in self.sent.drain(..) {
            self.late.append(&mut sent.late);
        }
        self.late.retain(|late| late.number < oldest);
        self.filling.clear();
        self.told.clear();
        self.is_in_doubt = true;
    }

    /// Forgets everything: Redis lost its data, and with it what was unsettled.
    pub(crate) fn clear(&mut self) {
        self.drop_in_flight();
        self.deferred.clear();
        self.table.clear();
        self.spilled.clear();
        self.epochs = Epochs::new();
        self.generation += 1;
        self.last = None;
    }

    /// Returns from which entry on the stream has to be read before anything is judged; the inner is none where that is the first
    /// unsettled one, the outer where nothing has to be read.
    pub(crate) fn to_read(&self) -> Option<Option<StreamId>> {
        self.is_in_doubt.then_some(self.last)
    }

    /// Takes an entry of the stream that was read; a commit without a rev, as another program writes, leaves nothing to compare.
    pub(crate) fn read(&mut self, did: &str, rev: Option<u64>, root: Option<u64>, why: Option<Why>) {
        let hash = self.hasher.hash_one(did);
        // An entry may have come again, or have been put back: PostgreSQL may know a newer one.
        let before = self.get(hash).map_or(State { is_partial: true, ..State::NOTHING }, |(state, _)| state);
        let state = match rev {
            Some(rev) => {
                let after = before.after(rev, root, why);
                State { is_floor: after.is_floor || self.leaves_out && after.rev == rev, ..after }
            }
            None => State { why: before.why, ..State::NOTHING },
        };
        self.put(hash, state);
    }

    /// Records that everything up to an entry was read.
    pub(crate) fn read_through(&mut self, last: Option<StreamId>) {
        if let Some(last) = last {
            self.epochs.written(last);
        }
        self.last = self.last.max(last);
        self.is_in_doubt = false;
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

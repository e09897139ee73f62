//! Histories of repos, losses, crashes and late workers against the chain, held against what really happened.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// For how many steps something happens.
const STEPS: usize = 3_000;

/// An event of a host.
#[derive(Clone, Copy, Debug)]
enum Said {
    Commit { repo: usize, link: Link },
    Sync { repo: usize, rev: u64, root: u64 },
}

/// An entry of the stream.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    repo: usize,
    rev: u64,
    root: Option<u64>,
    why: Option<Why>,
}

/// What a host has of a repo.
#[derive(Clone, Copy, Debug, Default)]
struct Repo {
    rev: u64,
    root: u64,
}

/// A batch on its way: its entries, its marks, and the place in the host's events after it.
#[derive(Clone, Debug)]
struct Batch {
    entries: Vec<Entry>,
    marks: Vec<usize>,
    after: usize,
}

/// Everything that outlives ingest.
#[derive(Debug, Default)]
struct World {
    /// The host's events so far; ingest reads them from its cursor on.
    events: Vec<Said>,
    repos: Vec<Repo>,
    clock: u64,
    cursor: usize,
    /// Entries that are not settled, in order.
    stream: Vec<Entry>,
    /// Marks in Redis, and in PostgreSQL.
    marks: BTreeSet<usize>,
    marked: BTreeSet<usize>,
    /// Rows in PostgreSQL, and entries that are written there but not acknowledged.
    rows: BTreeMap<usize, (u64, Option<u64>)>,
    written: HashSet<u64>,
    next_id: u64,
    last: u64,
    /// The place up to which all is settled, as workers keep it in case Redis is lost.
    checkpoint: usize,
    places: Vec<(u64, usize, BTreeSet<usize>)>,
    /// The revs of each repo that ever were in the stream: what was not missed.
    arrived: BTreeMap<usize, BTreeSet<u64>>,
    /// Repos that missed something, as far as ingest could know.
    missed: BTreeSet<usize>,
    is_away: bool,
}

/// What goes wrong besides what the host never sends.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// PostgreSQL does not answer at times.
    database: bool,
    /// Ingest is killed, connections end, Redis loses its data.
    rest: bool,
}

/// What a run turned out to be.
#[derive(Debug, Default)]
struct Seen {
    marked: usize,
    spilled: usize,
    unknown: usize,
    lost: usize,
}

fn did(repo: usize) -> String {
    format!("did:plc:{repo}")
}

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

// === impl World ===

impl World {
    /// The host goes on: a commit, or several, of which some never arrive, or a `#sync`.
    fn happen(&mut self, random: &mut StdRng, losses: bool) {
        let repo = random.random_range(0..self.repos.len());
        let again = self.events.len().checked_sub(1).map(|last| self.events[random.random_range(last / 2..=last)]);
        match random.random_range(0..40) {
            // The host sends a commit once more, as another host would.
            0 => self.events.extend(again),
            1 if losses => {
                let Repo { rev, root } = self.step(repo);
                self.events.push(Said::Sync { repo, rev, root });
            }
            2 => {
                let Repo { rev, root } = self.repos[repo];
                // What is known already.
                if rev > 0
                    && self
                        .events
                        .iter()
                        .any(|said| matches!(said, Said::Commit { repo: of, link } if *of == repo && link.rev == rev))
                {
                    self.events.push(Said::Sync { repo, rev, root });
                }
            }
            3 if losses => {
                self.step(repo);
            }
            // The host signs the same tree again, as after a change of key.
            4 => {
                let Repo { rev, root } = self.repos[repo];
                if rev > 0 {
                    self.clock += 1;
                    self.repos[repo].rev = self.clock;
                    self.events.push(Said::Sync { repo, rev: self.clock, root });
                }
            }
            _ => {
                let before = self.repos[repo];
                let after = self.step(repo);
                let first = before.rev == 0;
                let link = Link {
                    rev: after.rev,
                    since: (!first).then_some(before.rev),
                    root: Some(after.root),
                    before: (!first).then_some(before.root),
                };
                self.events.push(Said::Commit { repo, link });
            }
        }
    }

    fn step(&mut self, repo: usize) -> Repo {
        self.clock += 1;
        let after = Repo { rev: self.clock, root: self.clock * 7 };
        self.repos[repo] = after;
        after
    }

    /// A worker writes an entry, and perhaps another acknowledges what was written, whatever the order.
    fn work(&mut self, random: &mut StdRng) {
        if self.is_away || self.stream.is_empty() {
            return;
        }
        let at = random.random_range(0..self.stream.len().min(6));
        let entry = self.stream[at];
        let (rev, root) = self.rows.entry(entry.repo).or_default();
        if entry.rev >= *rev {
            (*rev, *root) = (entry.rev, entry.root);
        }
        if entry.why.is_some() {
            self.marked.insert(entry.repo);
        }
        self.written.insert(entry.id);
        // Acknowledged in any order, and some time later.
        let written = &self.written;
        let done = self.stream.iter().position(|entry| written.contains(&entry.id) && random.random_bool(0.7));
        if let Some(done) = done {
            self.stream.remove(done);
        }
        if random.random_bool(0.3) {
            // Marks first: what is before the checkpoint is not read again.
            self.marked.append(&mut self.marks);
            let settled = self.settled();
            let place = self.places.iter().take_while(|(last, ..)| *last <= settled).last();
            self.checkpoint = place.map_or(self.checkpoint, |(_, after, _)| *after);
        }
    }

    fn settled(&self) -> u64 {
        self.stream.first().map_or(self.last, |first| first.id - 1)
    }

    /// The script writes a batch.
    fn publish(&mut self, batch: &Batch) -> Option<u64> {
        for entry in &batch.entries {
            self.stream.push(*entry);
            self.last = entry.id;
        }
        self.marks.extend(batch.marks.iter().filter(|repo| !self.marked.contains(repo)));
        self.cursor = batch.after;
        self.places.push((self.last, batch.after, self.marks.clone()));
        batch.entries.last().map(|entry| entry.id)
    }

    fn told(&self, repo: usize) -> State {
        let (rev, root) = self.rows.get(&repo).copied().unwrap_or_default();
        State { rev, root, ..State::NOTHING }
    }

    fn is_marked(&self, repo: usize) -> bool {
        self.marked.contains(&repo)
            || self.marks.contains(&repo)
            || self.stream.iter().any(|entry| entry.repo == repo && entry.why.is_some())
    }
}

/// Reads what is unsettled, as after a start or a doubt.
fn recover(world: &World, chain: &mut Chain) {
    let Some(mut from) = chain.to_read() else { return };
    if from.is_some_and(|from| id(world.last) < from) {
        chain.clear();
        from = None;
    }
    for entry in world.stream.iter().filter(|entry| from.is_none_or(|from| id(entry.id) > from)) {
        chain.read(&did(entry.repo), Some(entry.rev), entry.root, entry.why);
    }
    // What was settled meanwhile is skipped by the stream, as it is by the workers' groups.
    chain.read_through(Some(id(world.last)));
}

/// Runs one history; panics where a repo is marked that missed nothing, or is not although it missed something.
fn run(seed: u64, memory: u64, repos: usize, trouble: Trouble) -> Seen {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut world = World { repos: vec![Repo::default(); repos], next_id: 1, ..World::default() };
    let mut chain = Chain::new(memory, true);
    let mut seen = Seen::default();
    recover(&world, &mut chain);
    let mut in_flight: VecDeque<Batch> = VecDeque::new();
    let mut read = 0;
    // What a state without crashes, evictions or settling would know, by repo, of what is certainly in the stream.
    let mut truth: Vec<State> = vec![State::NOTHING; repos];
    let mut step = 0;
    // In the end everything arrives: only then is it certain that what was missed was seen to be.
    while step < STEPS || read < world.events.len() || !in_flight.is_empty() {
        step += 1;
        let trouble = if step < STEPS { trouble } else { Trouble { database: false, rest: false } };
        world.is_away &= step < STEPS;
        if step < STEPS {
            world.happen(random, true);
        }
        for _ in 0..random.random_range(0..4) {
            world.work(random);
        }
        if random.random_bool(0.05) {
            let moved = world.marks.is_empty().then(|| chain.marks_written());
            chain.settle(id(world.settled()), moved);
        }
        if trouble.database && random.random_bool(0.01) {
            world.is_away = !world.is_away;
        }
        // Prefetches answer late.
        let generation = chain.generation();
        let early = random.random_range(0..repos);
        let early_told = world.told(early);
        // A chunk.
        if read < world.events.len() && in_flight.len() < 3 && random.random_bool(0.6) {
            let until = (read + random.random_range(1..4)).min(world.events.len());
            let mut batch = Batch { entries: Vec::new(), marks: Vec::new(), after: until };
            if !world.is_away {
                let asked = chain.generation();
                for said in &world.events[read..until] {
                    let (Said::Commit { repo, .. } | Said::Sync { repo, .. }) = said;
                    chain.pin(&did(*repo));
                }
                for said in &world.events[read..until] {
                    let (repo, is_doubtful) = match said {
                        Said::Commit { repo, link } => (*repo, chain.is_doubtful(&did(*repo), *link)),
                        Said::Sync { repo, rev, root } => {
                            (*repo, chain.is_sync_doubtful(&did(*repo), *rev, Some(*root)))
                        }
                    };
                    if is_doubtful {
                        chain.learn_now(&did(repo), world.told(repo), asked);
                    }
                }
                while let Some(first) = chain.deferred(1).pop() {
                    let repo: usize = first.rsplit(':').next().unwrap().parse().unwrap();
                    chain.judge_deferred(world.told(repo));
                }
            }
            let late: Vec<usize> =
                chain.late().iter().map(|late| late.did.rsplit(':').next().unwrap().parse().unwrap()).collect();
            batch.marks.extend(late);
            for said in &world.events[read..until] {
                match *said {
                    Said::Commit { repo, link } => {
                        let judged = chain.commit(&did(repo), link);
                        seen.unknown += usize::from(matches!(judged.verdict, Verdict::Unknown(_)));
                        let entry = Entry { id: world.next_id, repo, rev: link.rev, root: link.root, why: judged.why };
                        world.next_id += 1;
                        batch.entries.push(entry);
                    }
                    Said::Sync { repo, rev, root } => match chain.sync(&did(repo), rev, Some(root)) {
                        Some(Verdict::Breaks(_)) => batch.marks.push(repo),
                        Some(Verdict::Unknown(_)) => seen.unknown += 1,
                        _ => {}
                    },
                }
            }
            chain.chunk_is_judged();
            chain.send();
            read = until;
            in_flight.push_back(batch);
        }
        if random.random_bool(0.3) {
            chain.learn(&did(early), early_told, generation);
        }
        // Answers.
        if !in_flight.is_empty() && random.random_bool(0.5) {
            let batch = in_flight.pop_front().unwrap();
            settle_truth(&mut world, &mut truth, &batch);
            let last = world.publish(&batch);
            chain.written(last.map(id));
        }
        seen.spilled = seen.spilled.max(chain.spilled.len());
        let chance = if trouble.rest { 0.02 } else { 0.0 };
        if random.random_bool(chance) {
            match random.random_range(0..4) {
                // Ingest is killed; some of what it sent is written all the same.
                0 => {
                    for batch in in_flight.drain(..).take(random.random_range(0..3)) {
                        settle_truth(&mut world, &mut truth, &batch);
                        world.publish(&batch);
                    }
                    chain = Chain::new(memory, true);
                }
                // The connection ends, or Redis does not answer.
                1 => {
                    for batch in in_flight.drain(..).take(random.random_range(0..3)) {
                        settle_truth(&mut world, &mut truth, &batch);
                        world.publish(&batch);
                    }
                    chain.drop_in_flight();
                }
                // A replica is promoted that lacks the last batches.
                2 => {
                    in_flight.clear();
                    let lost = random.random_range(0..4).min(world.places.len().saturating_sub(1));
                    world.places.truncate(world.places.len() - lost);
                    if let Some((last, after, marks)) = world.places.last().cloned() {
                        world.stream.retain(|entry| entry.id <= last);
                        (world.last, world.cursor) = (last, after);
                        // What was moved to PostgreSQL meanwhile is moved again.
                        world.marks = marks;
                    }
                    chain.drop_in_flight();
                }
                // Redis loses its data; the host still has everything since the checkpoint.
                _ => {
                    seen.lost += 1;
                    in_flight.clear();
                    world.stream.clear();
                    world.marks.clear();
                    world.places.clear();
                    world.written.clear();
                    world.cursor = world.checkpoint;
                    chain.clear();
                }
            }
            in_flight.clear();
            recover(&world, &mut chain);
            read = world.cursor;
        }
        for repo in (0..repos).filter(|_| step % 20 == 0) {
            let is_marked = world.is_marked(repo);
            assert!(!is_marked || world.missed.contains(&repo), "seed {seed}: {repo} is marked and missed nothing");
        }
    }
    seen.marked = (0..repos).filter(|repo| world.is_marked(*repo)).count();
    if seen.unknown == 0 {
        for repo in &world.missed {
            assert!(world.is_marked(*repo), "seed {seed}: {repo} missed something and is not marked");
        }
    }
    seen
}

/// Judges a batch as somebody who forgets nothing would.
fn settle_truth(world: &mut World, truth: &mut [State], batch: &Batch) {
    let start = world.cursor;
    for said in &world.events[start..batch.after] {
        match *said {
            Said::Commit { repo, link } => {
                if matches!(truth[repo].judge(link), Verdict::Breaks(_)) {
                    world.missed.insert(repo);
                }
                truth[repo] = truth[repo].after(link.rev, link.root, None);
                world.arrived.entry(repo).or_default().insert(link.rev);
            }
            Said::Sync { repo, rev, root } => {
                if !truth[repo].covers(rev, Some(root)) {
                    if !truth[repo].has_tree(Some(root)) {
                        world.missed.insert(repo);
                    }
                    truth[repo] = truth[repo].after(rev, Some(root), None);
                }
            }
        }
    }
}

#[test]
fn with_nothing_but_losses_exactly_what_missed_something_is_marked() {
    for seed in 0..30 {
        let seen = run(seed, 1 << 16, 30, Trouble { database: false, rest: false });
        assert!(seen.marked > 0 && seen.unknown == 0 && seen.spilled == 0, "{seen:?}");
    }
}

/// Runs histories with less memory than there are repos: one pair of buckets at the least.
fn runs(trouble: Trouble) -> Seen {
    let mut all = Seen::default();
    for seed in 0..60 {
        let seen = run(seed, if seed % 2 == 0 { 24 * 8 } else { 24 * 32 }, 40, trouble);
        all.spilled = all.spilled.max(seen.spilled);
        all.marked += seen.marked;
        all.unknown += seen.unknown;
        all.lost += seen.lost;
    }
    all
}

#[test]
fn exactly_what_missed_something_is_marked_whatever_is_killed_or_lost_and_however_small_the_memory() {
    let all = runs(Trouble { database: false, rest: true });
    assert!(all.spilled > 0 && all.marked > 0 && all.unknown == 0 && all.lost > 0, "{all:?}");
}

#[test]
fn while_postgresql_is_away_nothing_is_marked_wrongly() {
    let all = runs(Trouble { database: true, rest: true });
    assert!(all.spilled > 0 && all.marked > 0 && all.unknown > 0 && all.lost > 0, "{all:?}");
}

//! Snapshots beside live events: whatever comes when, and whatever of the events before a snapshot never comes, the database ends as if
//! a commit had put each record of the snapshot once more and nothing had been missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use penstock_core::data::Action;
use penstock_core::stream::StreamId;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::Index;
use proptest::strategy::Just;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::cases;
use super::database::{Database, FIELDS, take};
use super::history::{Case, Delivery, Event, REPOS, Says, Step, crowds};
use super::model::{Tables, expected};
use super::records::Op;
use crate::store::{ApplyError, Finished, SnapshotRange, SnapshotRecord, Store};

/// A history with snapshots of some of its repos.
#[derive(Clone, Debug)]
struct Healed {
    /// The events, among which a commit that puts everything once more stands for each snapshot.
    case: Case,
    taken: Vec<Taken>,
    /// Which events never come, where a snapshot of their repo is later.
    lost: Vec<bool>,
}

/// A snapshot, and how it is written.
#[derive(Clone, Debug)]
struct Taken {
    /// The event that stands for it.
    event: usize,
    repo: usize,
    records: Vec<Op>,
    how: How,
}

#[derive(Clone, Debug)]
struct How {
    /// Before which step each range is written, by whom; the rest are written at the end.
    at: Vec<(Index, usize)>,
    /// Before which step all that is left of it is written, where that is not the last one: what comes later finds it whole.
    whole_at: Option<Index>,
    /// Where ranges end.
    cuts: Vec<Index>,
    /// After how many ranges a first attempt was given up.
    given_up: Option<Index>,
}

/// What of rows follows from how their records came: whether by a snapshot or by an event.
const ABOUT_COMING: [&str; 5] = ["commit_rev", "commit_seq", "entry_id", "commit_time", "sort_at"];

fn healed(cases: impl Strategy<Value = Case>) -> impl Strategy<Value = Healed> {
    let how = || {
        let at = vec((any::<Index>(), 0..4_usize), 0..6);
        let given_up = prop_oneof![2 => Just(None), 1 => any::<Index>().prop_map(Some)];
        let whole_at = prop_oneof![1 => Just(None), 2 => any::<Index>().prop_map(Some)];
        (at, whole_at, vec(any::<Index>(), 0..4), given_up).prop_map(|(at, whole_at, cuts, given_up)| How {
            at,
            whole_at,
            cuts,
            given_up,
        })
    };
    let snapshots = vec((any::<Index>(), 0..REPOS.len(), how()), 1..4);
    let lost = vec(prop_oneof![2 => Just(false), 1 => Just(true)], 64);
    (cases, snapshots, lost).prop_map(|(case, snapshots, lost)| Healed::of(case, snapshots, &lost))
}

// === impl Healed ===

impl Healed {
    fn of(mut case: Case, snapshots: Vec<(Index, usize, How)>, lost: &[bool]) -> Self {
        case.runs.clear();
        case.defers = false;
        for cut in &mut case.cuts {
            (cut.prune, cut.opt_out, cut.passes) = (None, None, false);
        }
        let mut events = Vec::new();
        for mut event in std::mem::take(&mut case.events) {
            event.says = match event.says {
                Says::Fill(ops) => Says::Commit(ops),
                Says::Account(..) => Says::Handle(None),
                says => says,
            };
            if let Says::Commit(ops) = &mut event.says {
                // When an event came is in no snapshot.
                ops.iter_mut().for_each(|op| op.dated = true);
            }
            events.push(event);
        }
        let mut places: Vec<(usize, usize, How)> =
            snapshots.into_iter().map(|(at, repo, how)| (at.index(events.len() + 1), repo, how)).collect();
        places.sort_by_key(|(at, repo, _)| (*at, *repo));
        let mut taken = Vec::new();
        let mut all: Vec<Event> = Vec::new();
        let mut places = places.into_iter().peekable();
        let mut lost_flags = Vec::new();
        let mut rest = events.into_iter();
        for at in 0.. {
            while let Some((_, repo, how)) = places.next_if(|(place, ..)| *place == at) {
                let records = standing(&all, repo);
                let delivered = [Delivery { late: 0, again: None, replayed: false }; 2];
                taken.push(Taken { event: all.len(), repo, records: records.clone(), how });
                all.push(Event { repo, says: Says::Commit(records), delivered });
                lost_flags.push(true);
            }
            let Some(event) = rest.next() else { break };
            lost_flags.push(lost.get(at).copied().unwrap_or_default());
            all.push(event);
        }
        let is_healed = |at: usize, event: &Event| {
            matches!(event.says, Says::Commit(_))
                && taken.iter().any(|taken| taken.repo == event.repo && taken.event >= at)
        };
        let lost = all.iter().enumerate().map(|(at, event)| lost_flags[at] && is_healed(at, event)).collect();
        Self { case: Case { events: all, ..case }, taken, lost }
    }

    /// Writes the snapshots among the steps of the workers, one after the other.
    fn run_in_turn(&self, database: &Database) -> Result<(), String> {
        let stream = self.case.stream();
        let all = self.case.steps(&stream);
        let steps = self.left_of(&all, &stream);
        let mut before: Vec<Vec<(usize, usize)>> = vec![Vec::new(); steps.len() + 1];
        for (number, taken) in self.taken.iter().enumerate() {
            for (at, worker) in &taken.how.at {
                before[at.index(steps.len() + 1)].push((number, *worker));
            }
        }
        let whole_at: Vec<Option<usize>> =
            self.taken.iter().map(|taken| Some(taken.how.whole_at?.index(steps.len() + 1))).collect();
        database.on(async |db, stores| {
            let mut writers: Vec<Writer<'_>> = self.taken.iter().map(|taken| Writer::of(taken, &stream)).collect();
            for (at, due) in before.iter().enumerate() {
                for (number, worker) in due {
                    writers[*number].write_next(&stores[*worker]).await?;
                }
                for (writer, _) in writers.iter_mut().zip(&whole_at).filter(|(_, whole_at)| **whole_at == Some(at)) {
                    writer.write_rest(&stores[1]).await?;
                }
                if let Some((worker, step)) = steps.get(at) {
                    take(&stores[*worker], *worker, step, &AtomicI64::new(0)).await?;
                }
            }
            // An earlier one that is not whole by now gives way to a later one of its repo.
            for writer in &mut writers {
                writer.write_rest(&stores[0]).await?;
            }
            db.sweep().await;
            Ok::<_, String>(())
        })?;
        self.compare(database, &expected(&self.case, &stream, &all))
    }

    /// Writes the snapshots while workers take their steps.
    fn run_at_once(&self, database: &Database) -> Result<(), String> {
        let stream = self.case.stream();
        let all = self.case.steps(&stream);
        let mut hands = vec![Vec::new(); 4];
        for (worker, step) in self.left_of(&all, &stream) {
            hands[worker].push(step);
        }
        database.on(async |db, stores| {
            let mut tasks = JoinSet::new();
            for (worker, steps) in hands.into_iter().enumerate() {
                let store = stores[worker].clone();
                tasks.spawn(async move {
                    for step in steps {
                        take(&store, worker, &step, &AtomicI64::new(0)).await?;
                    }
                    Ok::<_, String>(())
                });
            }
            // The snapshots of one repo follow each other, as one healer at a time has it.
            for repo in 0..REPOS.len() {
                let store = stores[repo % stores.len()].clone();
                let taken: Vec<Taken> = self.taken.iter().filter(|taken| taken.repo == repo).cloned().collect();
                let begins: BTreeMap<usize, StreamId> =
                    stream.iter().map(|written| (written.event, written.order)).collect();
                let revs: BTreeMap<usize, String> =
                    stream.iter().filter_map(|written| Some((written.event, written.rev.clone()?))).collect();
                tasks.spawn(async move {
                    for taken in &taken {
                        let mut writer = Writer::new(taken, revs[&taken.event].clone(), begins[&taken.event]);
                        writer.write_rest(&store).await?;
                    }
                    Ok(())
                });
            }
            tasks.join_all().await.into_iter().collect::<Result<(), String>>()?;
            db.sweep().await;
            Ok::<_, String>(())
        })?;
        self.compare(database, &expected(&self.case, &stream, &all))
    }

    /// Returns the steps without what is lost, and without what stands for snapshots.
    fn left_of(&self, steps: &[(usize, Step)], stream: &[super::history::Written]) -> Vec<(usize, Step)> {
        let lost: BTreeSet<StreamId> =
            stream.iter().filter(|written| self.lost[written.event]).map(|written| written.order).collect();
        let mut left = steps.to_vec();
        for (_, step) in &mut left {
            if let Step::Apply(entries) = step {
                entries.retain(|entry| !lost.contains(&entry.order));
            }
        }
        left
    }

    fn compare(&self, database: &Database, expected: &Tables) -> Result<(), String> {
        let (found, totals) = database.on(async |_, _| database.held().await);
        let mut faults = Vec::new();
        let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
        for name in names {
            if matches!(&**name, "penstock.stamps" | "penstock.tombstones" | "penstock.repos" | "cids") {
                continue;
            }
            let rows = |tables: &Tables| {
                let rows = tables.get(name).into_iter().flatten().filter(|row| !is_stub(name, row));
                let mut rows: Vec<String> = rows.map(|row| plain(row).to_string()).collect();
                rows.sort();
                rows
            };
            let (found, expected) = (rows(&found), rows(expected));
            faults.extend(found.iter().filter(|row| !expected.contains(row)).map(|row| format!("{name} has {row}")));
            faults.extend(expected.iter().filter(|row| !found.contains(row)).map(|row| format!("{name} lacks {row}")));
            if found.len() != expected.len() {
                faults.push(format!("{name} has {} rows, not {}", found.len(), expected.len()));
            }
        }
        for field in FIELDS {
            let rows = i64::try_from(found.get(field).map_or(0, Vec::len)).unwrap();
            let total = totals.get(field).copied().unwrap_or_default();
            if total != rows {
                faults.push(format!("{field} has {rows} rows and counts {total}"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }
}

impl fmt::Display for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in self.case.events.iter().enumerate() {
            let taken = self.taken.iter().find(|taken| taken.event == at);
            let what = if taken.is_some() {
                " SNAPSHOT"
            } else if self.lost[at] {
                " LOST"
            } else {
                ""
            };
            writeln!(f, "{at}{what} of {}: {:?}", REPOS[event.repo], event.says)?;
            if let Some(taken) = taken {
                writeln!(f, "   {:?}", taken.how)?;
            }
        }
        write!(f, "{}", self.case)
    }
}

/// Accounts that are only pointed at: a lost event may have done so.
fn is_stub(name: &str, row: &Value) -> bool {
    name == "users" && row["profile_record"].is_null() && row["handle"] == "handle.invalid"
}

fn plain(row: &Value) -> Value {
    let mut row = row.clone();
    let fields = row.as_object_mut().unwrap();
    for name in ABOUT_COMING {
        fields.remove(name);
    }
    if let Some(Value::Object(inner)) = fields.get_mut("row") {
        for name in ABOUT_COMING {
            inner.remove(name);
        }
    }
    row
}

/// Returns a put of every record that a repo has after some events, in the order of their paths.
fn standing(events: &[Event], repo: usize) -> Vec<Op> {
    let mut records: BTreeMap<String, Op> = BTreeMap::new();
    for event in events.iter().filter(|event| event.repo == repo) {
        let Says::Commit(ops) = &event.says else { continue };
        for op in ops {
            if op.action == Action::Delete || op.bare {
                records.remove(&op.path());
            } else {
                records.insert(op.path(), Op { action: Action::Create, ..op.clone() });
            }
        }
    }
    records.into_values().collect()
}

/// Who writes a snapshot, and how far.
struct Writer<'t> {
    taken: &'t Taken,
    rev: String,
    started: StreamId,
    records: Vec<SnapshotRecord>,
    /// After which record each range ends, the last one at the end.
    ends: Vec<usize>,
    next: usize,
    given_up: Option<usize>,
    is_finished: bool,
}

impl<'t> Writer<'t> {
    fn of(taken: &'t Taken, stream: &[super::history::Written]) -> Self {
        let written = stream.iter().find(|written| written.event == taken.event).unwrap();
        Self::new(taken, written.rev.clone().unwrap(), written.order)
    }

    fn new(taken: &'t Taken, rev: String, started: StreamId) -> Self {
        let did = REPOS[taken.repo];
        let record = |op: &Op| SnapshotRecord {
            path: op.path().into(),
            cid: op.cid().into(),
            record: RawValue::from_string(op.record(did).to_string()).unwrap(),
        };
        let records: Vec<SnapshotRecord> = taken.records.iter().map(record).collect();
        let mut ends: Vec<usize> = if records.is_empty() {
            Vec::new()
        } else {
            taken.how.cuts.iter().map(|cut| cut.index(records.len())).collect()
        };
        ends.sort_unstable();
        ends.dedup();
        let given_up = taken.how.given_up.map(|at| at.index(ends.len() + 1));
        Self { taken, rev, started, records, ends, next: 0, given_up, is_finished: false }
    }

    /// Writes the next range, or finishes, or begins again after the first attempt was given up.
    async fn write_next(&mut self, store: &Store) -> Result<(), String> {
        let did = REPOS[self.taken.repo];
        if self.is_finished {
            return Ok(());
        }
        if self.given_up == Some(self.next) {
            (self.given_up, self.next) = (None, 0);
            return Ok(());
        }
        if self.next > self.ends.len() {
            let finished = store.finish_snapshot(did, &self.rev, &[1; 32], self.started).await;
            match finished.map_err(|error| format!("fails: {error:?}"))? {
                Finished::Whole => self.is_finished = true,
                // A later one of its repo came between: where that is whole, this one is not needed.
                Finished::Incomplete => self.next = 0,
            }
            return Ok(());
        }
        let from = if self.next == 0 { 0 } else { self.ends[self.next - 1] + 1 };
        let to = self.ends.get(self.next).copied();
        let range = SnapshotRange {
            did,
            rev: &self.rev,
            started: self.started,
            after: if self.next == 0 { None } else { Some(&self.records[from - 1].path) },
            through: to.map(|to| &*self.records[to].path),
            records: &self.records[from..to.map_or(self.records.len(), |to| to + 1)],
        };
        loop {
            match store.write_snapshot("w9", &range).await {
                Ok(written) if written.rejected.is_empty() => break,
                Ok(written) => return Err(format!("refuses {:?}", written.rejected)),
                Err(ApplyError::Retry { reason: "deadlock" | "race", .. }) => {}
                Err(error) => return Err(format!("fails: {error:?}")),
            }
        }
        self.next += 1;
        Ok(())
    }

    async fn write_rest(&mut self, store: &Store) -> Result<(), String> {
        // One that a later one of its repo overtook never ends.
        for _ in 0..3 * (self.ends.len() + 3) {
            self.write_next(store).await?;
        }
        Ok(())
    }
}

fn hold(
    few: u32,
    strategy: impl Strategy<Value = Healed>,
    property: impl Fn(&Healed, &Database) -> Result<(), String>,
) {
    let asked = |name| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    if !asked("PROPTEST_CASES") {
        config.cases = few;
        if !asked("PROPTEST_RNG_SEED") {
            config.rng_seed = RngSeed::Fixed(1);
        }
    }
    let database = Database::new(Duration::ZERO);
    let outcome = TestRunner::new(config).run(&strategy, |healed| {
        database.empty();
        property(&healed, &database).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, healed)) => panic!("{reason}\nof {healed}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn snapshots_beside_any_deal_of_a_history_end_as_if_nothing_had_been_missed() {
    hold(80, healed(cases(30)), Healed::run_in_turn);
}

#[test]
fn snapshots_of_records_that_crowd_few_places_end_as_if_nothing_had_been_missed() {
    hold(60, healed(crowds(20)), Healed::run_in_turn);
}

#[test]
fn snapshots_beside_workers_at_once_end_as_if_nothing_had_been_missed() {
    hold(40, healed(cases(40)), Healed::run_at_once);
}

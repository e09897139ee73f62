//! What came of a run, held against what the relay said.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::history::{APART, Said};
use super::odd;
use super::stage::becomes_while_moving;
use crate::frames::Entry;
use crate::model::{self, Tables};
use crate::rig::Rig;

/// How long counts may be behind the rows.
const PUBLISHED: Duration = Duration::from_secs(60);

/// What happened to the stream in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// It was lost, and is another one: from this number on it must be whole.
    pub(crate) lost: Option<u64>,
    /// Whether all of it is still there.
    pub(crate) is_kept: bool,
    /// How many entries were delivered once more at most.
    pub(crate) redelivered: u64,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) events: usize,
    /// Entries that are not in the stream.
    pub(crate) lost: usize,
    /// Entries that are in the stream once more.
    pub(crate) doubled: usize,
    /// Rows held against the model.
    pub(crate) rows: usize,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

/// What must be there, computed once.
struct Expected {
    entries: Vec<Entry>,
    tables: Tables,
    records: BTreeMap<String, i64>,
    events: BTreeMap<String, i64>,
    /// The events of which a part cannot be carried.
    set_aside: BTreeSet<u64>,
    /// The repos whose events lacked something.
    lacking: BTreeSet<String>,
}

impl Verdict {
    /// Waits until everything is read and settled, and compares.
    pub(crate) async fn of(rig: &Rig, said: Said, fate: Fate) -> Self {
        let mut verdict = Self { events: said.events, ..Self::default() };
        if !verdict.settled(rig, said.last).await {
            return verdict;
        }
        let expected = spawn_blocking(move || Expected::of(said.entries)).await.unwrap();
        if fate.is_kept {
            let stream: Vec<Entry> = rig.stream().await.into_iter().map(|(_, entry)| entry).collect();
            verdict.compare_stream(&expected.entries, &stream, fate);
        }
        let tables = rig.tables().await;
        verdict.rows = tables.values().map(BTreeMap::len).sum();
        let differences = model::differences(&expected.tables, &tables);
        if !differences.is_empty() {
            verdict.wrong.push(format!("rows are not as the model says\n{differences}"));
        }
        verdict.compare_counts(rig, &expected, fate).await;
        verdict.compare_dead_letters(rig, &expected, fate).await;
        verdict
    }

    /// Waits until ingest has read everything and the workers have settled it; says whether they came so far.
    pub(crate) async fn settled(&mut self, rig: &Rig, last: u64) -> bool {
        let cursor = becomes_while_moving(async || {
            let cursor = rig.cursor().await;
            if cursor == Some(last) || rig.rests_at(last).await { Ok(()) } else { Err(cursor) }
        });
        if let Err(cursor) = cursor.await {
            self.wrong.push(format!("the cursor must come to {last}, is {cursor:?}"));
            return false;
        }
        let settled = becomes_while_moving(async || {
            let (left, unswept) = (rig.left().await, rig.unswept().await);
            if left == Some((0, 0)) && unswept == 0 { Ok(()) } else { Err((left, unswept)) }
        });
        let settled = settled.await;
        if let Err(seen) = &settled {
            let what = "what is left of either stream, and how many accounts wait to be swept";
            self.wrong.push(format!("not settled: {what} are {seen:?}"));
        }
        settled.is_ok()
    }

    fn compare_stream(&mut self, expected: &[Entry], found: &[Entry], fate: Fate) {
        let (mut expected, mut found) = (expected, found);
        if let Some(from) = fate.lost {
            // Ingest may write on for a moment before it is known that the stream is another one, and then goes back.
            let by_seq: HashMap<u64, &Entry> = expected.iter().map(|entry| (entry.seq, entry)).collect();
            let strange = found.iter().filter(|found| by_seq.get(&found.seq) != Some(found)).count();
            if strange > 0 {
                self.wrong.push(format!("{strange} entries of the stream are nothing that the relay said"));
            }
            expected = &expected[position(expected, from)..];
            found = &found[found.len().saturating_sub(expected.len())..];
        }
        let mut times = HashMap::<u64, i64>::new();
        found.iter().for_each(|entry| *times.entry(entry.seq).or_default() += 1);
        expected.iter().for_each(|entry| *times.entry(entry.seq).or_default() -= 1);
        self.lost = times.values().filter(|times| **times < 0).count();
        self.doubled = times.values().filter(|times| **times > 0).map(|times| *times as usize).sum();
        let (mut in_order, mut wanted): (Vec<_>, Vec<_>) = (found.iter().collect(), expected.iter().collect());
        if expected.iter().any(|entry| odd::base(entry.seq) / APART != odd::base(expected[0].seq) / APART) {
            // What shows that a host counts anew is written before what that host is then asked for.
            in_order.sort_by_key(|entry| entry.seq);
            wanted.sort_by_key(|entry| entry.seq);
        }
        let wrong: Vec<_> = in_order.iter().zip(wanted).filter(|(found, expected)| **found != *expected).collect();
        if let Some((found, expected)) = wrong.first() {
            let (seq, found) = (expected.seq, format!("{found:?}"));
            self.wrong.push(format!("{} entries of the stream differ, the first at {seq}: {found:.400}", wrong.len()));
        }
        if found.len() != expected.len() {
            let (found, expected) = (found.len(), expected.len());
            self.wrong.push(format!(
                "the stream must hold {expected} entries, holds {found}: {} lost, {} doubled",
                self.lost, self.doubled
            ));
        }
    }

    async fn compare_counts(&mut self, rig: &Rig, expected: &Expected, fate: Fate) {
        let deadline = Instant::now() + PUBLISHED;
        let mut found = rig.hash(&rig.keys.record_counts()).await;
        while found != expected.records && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
            found = rig.hash(&rig.keys.record_counts()).await;
        }
        if found != expected.records {
            self.wrong.push(format!("record counts must be {:?}, are {found:?}", expected.records));
        }
        if fate.lost.is_some() {
            // A new Redis counts from where it began, a new stream counts on.
            return;
        }
        let found = rig.hash(&rig.keys.cluster_metrics()).await;
        let more = fate.redelivered.cast_signed();
        let fields: BTreeSet<_> = expected.events.keys().chain(found.keys()).collect();
        for field in fields {
            let (found, least) = (found.get(field), expected.events.get(field));
            let (found, least) = (found.copied().unwrap_or_default(), least.copied().unwrap_or_default());
            if !(least..=least + more).contains(&found) {
                self.wrong.push(format!("{field} must be {least} to {}, is {found}", least + more));
            }
        }
    }

    /// Compares what was put aside, and what is known to be lacking.
    async fn compare_dead_letters(&mut self, rig: &Rig, expected: &Expected, fate: Fate) {
        let letters = rig.dead_letters().await;
        if !letters.is_empty() {
            self.wrong.push(format!("{} dead letters of workers, the first is {:?}", letters.len(), letters[0]));
        }
        let (mut aside, set) = (rig.set_aside().await, &expected.set_aside);
        aside.sort_unstable();
        let wanted: Vec<u64> = set.iter().copied().collect();
        if fate.lost.is_none() && aside != wanted || !aside.iter().all(|seq| set.contains(seq)) {
            self.wrong.push(format!("set aside in redis must be {set:?}, are {aside:?}"));
        }
        let copied = becomes_while_moving(async || {
            let kept = rig.kept_dead_letters().await;
            // What was not copied yet when Redis was lost went with it.
            if kept == *set || fate.lost.is_some() && kept.is_subset(set) { Ok(()) } else { Err(kept) }
        });
        if let Err(kept) = copied.await {
            self.wrong.push(format!("dead letters in postgresql must be {set:?}, are {kept:?}"));
        }
        // Those that missed something are to be repaired as well.
        let (lacking, marked) = (rig.lacking().await, rig.marked().await);
        let others: BTreeSet<_> = lacking.difference(&expected.lacking).filter(|did| !marked.contains(*did)).collect();
        if !others.is_empty() || !expected.lacking.is_subset(&lacking) {
            self.wrong.push(format!("repos to repair must be {:?}, are {lacking:?}", expected.lacking));
        }
    }
}

/// Where the entries with a number of at least this begin, in its sequence.
fn position(entries: &[Entry], from: u64) -> usize {
    let at = |entry: &Entry| odd::base(entry.seq);
    entries.iter().position(|entry| at(entry) / APART == from / APART && at(entry) >= from).unwrap_or_default()
}

/// Says whether an entry writes records of one of these collections.
fn has_op(entry: &Entry, collections: &[&str]) -> bool {
    let ops = entry.data["ops"].as_array().map_or(&[][..], Vec::as_slice);
    let collection = |op: &serde_json::Value| op["path"].as_str().unwrap().split('/').next().unwrap().to_owned();
    ops.iter().any(|op| collections.contains(&&*collection(op)))
}

fn lacks(entry: &Entry) -> bool {
    entry.data.get("missing").is_some()
}

// === impl Expected ===

impl Expected {
    fn of(entries: Vec<Entry>) -> Self {
        let tables = model::tables(&entries);
        Self {
            records: model::record_counts(&tables),
            events: model::event_counts(&entries, 1),
            set_aside: entries.iter().filter(|entry| has_op(entry, &odd::UNCARRIED)).map(|entry| entry.seq).collect(),
            lacking: entries.iter().filter(|entry| lacks(entry)).map(|entry| entry.did().to_owned()).collect(),
            tables,
            entries,
        }
    }
}

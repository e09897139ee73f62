//! An hour of life: full speed, a fault now and then, and what each process takes of memory meanwhile.
//!
//! The whole is too big for the model. But each loop of the recording has repos of its own, so that rows grow by the same
//! number with every loop, and the rows of any loop can be held against the model alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock_replay::BUNDLED;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::crew::Roster;
use super::history::History;
use super::plan::{Plan, Size};
use super::report::{from_env, words};
use super::run::run_for;
use super::verdict::Verdict;
use crate::frames::{Entry, Recording};
use crate::model::{self, TABLES};
use crate::rig::Rig;

/// How many loops are held against the model row by row.
const SAMPLES: u64 = 16;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What a process took, in KiB, since it was started: by name and process ID.
type Memory = BTreeMap<(String, u32), Vec<u64>>;

/// Runs as long, as fast and with as many faults as the environment says.
pub(crate) async fn soak(logs: &Path) {
    let (minutes, rate) = (from_env("MINUTES", 20_u64), from_env("RATE", 2_000_u32));
    let every = Duration::from_secs(from_env("EVERY", 20_u64));
    let length = loop_length();
    let loops = (minutes * 60 * u64::from(rate) / length).max(SAMPLES);
    let faults = (minutes * 60 / every.as_secs()).saturating_sub(1) as usize;
    // What the relay leaves out would have to be left out of the model too.
    let without = [words("WITHOUT"), vec!["relay-skip".to_owned(), "relay-restart".to_owned()]].concat();
    let workers = from_env("WORKERS", 3);
    let size = Size { events: loops * length, faults, workers, without, slot: 2 * every };
    let settings = vec![("PENSTOCK_WORKER_CLAIM_TIME", "5s".to_owned())];
    let plan = Plan { rate, keeps_stream: false, settings, ..Plan::of(from_env("SEED", 1), size) };
    let roster = Roster::default();
    let memory = Arc::new(Mutex::new(Memory::new()));
    let watching = tokio::spawn(watch(Arc::clone(&roster), Arc::clone(&memory)));
    let judge = async |rig: &Rig, history: History, _, _| judge(rig, &history, loops, length).await;
    let outcome = Box::pin(run_for(&plan, logs, &roster, judge)).await;
    watching.abort();
    tell(&memory.lock().unwrap());
    println!(
        "soak: {} events in {:.0} s, {} of {} faults, rows of {loops} loops counted, {} rows of {SAMPLES} loops compared",
        outcome.verdict.events,
        outcome.took.as_secs_f64(),
        outcome.struck,
        plan.size.faults,
        outcome.verdict.rows,
    );
    println!("faults: {:?}", plan.kinds());
    assert!(outcome.verdict.wrong.is_empty(), "{}, see {}", outcome.verdict.wrong.join("\n"), logs.display());
}

async fn judge(rig: &Rig, history: &History, loops: u64, length: u64) -> Verdict {
    let mut verdict = Verdict { events: (loops * length) as usize, ..Verdict::default() };
    let settings = history.settings();
    let start = settings.start_seq.unwrap();
    let samples: BTreeSet<u64> = (0..SAMPLES).map(|sample| sample * (loops - 1) / (SAMPLES - 1)).collect();
    let recording = spawn_blocking({
        let samples = samples.clone();
        move || Recording::of_some(&settings, |at| at < 3 * length || samples.contains(&(at / length)))
    });
    let Recording { entries, last, .. } = recording.await.unwrap();
    if !verdict.settled(rig, last).await {
        return verdict;
    }
    // Every loop has as many numbers.
    let span = (last + 1 - start) / loops;
    let of_loops = |loops: Range<u64>| -> Vec<Entry> {
        let seqs = start + loops.start * span..start + loops.end * span;
        entries.iter().filter(|entry| seqs.contains(&entry.seq)).cloned().collect()
    };
    let first = [1, 2, 3].map(|loops| model::tables(&of_loops(0..loops)));
    for (table, _) in TABLES {
        let [one, two, three] = [0, 1, 2].map(|loops: usize| first[loops][table].len() as i64);
        assert_eq!(two - one, three - two, "{table} must grow by as many rows with each loop");
        let (expected, found) = (one + (loops - 1).cast_signed() * (two - one), rig.count(table).await);
        if found != expected {
            verdict.wrong.push(format!("{table} must have {expected} rows, has {found}"));
        }
    }
    let kept = rig.kept_dead_letters().await.len();
    if kept != 0 {
        verdict.wrong.push(format!("{kept} dead letters are in postgresql, and nothing failed"));
    }
    for sample in samples {
        let entries = of_loops(sample..sample + 1);
        let dids: BTreeSet<&str> = entries.iter().map(Entry::did).collect();
        let mut expected = model::tables(&entries);
        // What is said of a post outside the recording, all loops say of it.
        let is_own = |key: &str| dids.contains(key.strip_prefix("at://").unwrap_or(key).split('/').next().unwrap());
        expected.values_mut().for_each(|rows| rows.retain(|key, _| is_own(key)));
        let dids: Vec<String> = dids.iter().map(|did| (*did).to_owned()).collect();
        let found = rig.tables_of(Some(&dids)).await;
        verdict.rows += found.values().map(BTreeMap::len).sum::<usize>();
        let differences = model::differences(&expected, &found);
        if !differences.is_empty() {
            verdict.wrong.push(format!("in loop {sample} rows are not as the model says\n{differences}"));
        }
    }
    verdict
}

/// Looks at the memory of everybody now and then.
async fn watch(roster: Roster, memory: Arc<Mutex<Memory>>) {
    loop {
        sleep(LOOK).await;
        let running = roster.lock().unwrap().clone();
        let mut memory = memory.lock().unwrap();
        for (name, pid) in running {
            if let Some(resident) = resident(pid) {
                memory.entry((name, pid)).or_default().push(resident);
            }
        }
    }
}

fn tell(memory: &Memory) {
    println!("MiB of memory, looked at every {LOOK:?} since the start of each process: first, median, last, most");
    for ((name, pid), looks) in memory {
        let mut sorted = looks.clone();
        sorted.sort_unstable();
        let [first, median, last, most] =
            [looks[0], sorted[sorted.len() / 2], looks[looks.len() - 1], sorted[sorted.len() - 1]]
                .map(|kib| kib as f64 / 1024.0);
        println!("  {name} ({pid}): {first:.1} {median:.1} {last:.1} {most:.1}, {} looks", looks.len());
    }
}

/// What a process has in memory, in KiB; none where it is gone.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}

/// How many frames the bundled recording has.
fn loop_length() -> u64 {
    let (mut rest, mut frames) = (BUNDLED, 0);
    while let Some((length, behind)) = rest.split_first_chunk() {
        rest = &behind[u32::from_le_bytes(*length) as usize..];
        frames += 1;
    }
    frames
}

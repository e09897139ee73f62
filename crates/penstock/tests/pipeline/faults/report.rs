//! Many seeds, a line for each, and how to see one again.

use std::env;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

use super::plan::{Plan, SLOT, Size};
use super::run::{Outcome, run};

/// What all runs came to.
#[derive(Default)]
struct Totals {
    passed: usize,
    failed: Vec<u64>,
    events: usize,
    struck: usize,
    lost: usize,
    doubled: usize,
    rows: usize,
}

/// Runs the seeds that the environment names, and fails if any of them does.
pub(crate) async fn suite(logs: &Path) {
    let size = Size {
        events: from_env("EVENTS", 20_000),
        faults: from_env("FAULTS", 50),
        workers: from_env("WORKERS", 3),
        without: words("WITHOUT"),
        slot: SLOT,
    };
    let mut seeds: Vec<u64> =
        [words("SEED"), words("SEEDS")].concat().iter().map(|seed| seed.parse().unwrap()).collect();
    if seeds.is_empty() {
        seeds = (1..=10).collect();
    }
    let turns = Arc::new(Semaphore::new(from_env("JOBS", 1)));
    let mut runs = JoinSet::new();
    for seed in seeds {
        let (plan, turns, logs) = (Plan::of(seed, size.clone()), Arc::clone(&turns), logs.join(format!("seed-{seed}")));
        runs.spawn(async move {
            let _turn = turns.acquire_owned().await;
            // A panic ends this seed, not the others.
            let outcome = spawn_blocking({
                let logs = logs.clone();
                move || (Handle::current().block_on(run(&plan, &logs)), plan)
            });
            (seed, outcome.await, logs)
        });
    }
    let mut totals = Totals::default();
    while let Some(done) = runs.join_next().await {
        let (seed, outcome, logs) = done.unwrap();
        match outcome {
            Ok((outcome, plan)) => {
                let passed = outcome.verdict.wrong.is_empty();
                println!("{}", line(seed, &plan, &outcome, passed));
                totals.add(seed, &outcome, passed);
                if passed {
                    let _ = std::fs::remove_dir_all(&logs);
                    continue;
                }
                outcome.verdict.wrong.iter().for_each(|wrong| println!("  {wrong}"));
            }
            Err(panic) => {
                println!("seed {seed}: FAIL: {panic}");
                totals.failed.push(seed);
            }
        }
        let Size { events, faults, workers, without, .. } = &size;
        let without = if without.is_empty() { String::new() } else { format!(" WITHOUT={}", without.join(",")) };
        println!("  again: make faults SEED={seed} FAULTS={faults} EVENTS={events} WORKERS={workers}{without}");
        println!("  logs:  {}", logs.display());
    }
    println!("{totals}");
    assert!(totals.failed.is_empty(), "seeds failed: {:?}", totals.failed);
}

fn line(seed: u64, plan: &Plan, Outcome { verdict, struck, took }: &Outcome, passed: bool) -> String {
    let kinds = plan.kinds().into_iter();
    let kinds: Vec<_> =
        kinds.map(|(kind, times)| if times == 1 { kind.to_owned() } else { format!("{kind} {times}") }).collect();
    format!(
        "seed {seed}: {} in {:.1} s, {} events, {struck} of {} faults, {} lost, {} doubled, {} rows compared ({})",
        if passed { "PASS" } else { "FAIL" },
        took.as_secs_f64(),
        verdict.events,
        plan.size.faults,
        verdict.lost,
        verdict.doubled,
        verdict.rows,
        kinds.join(", ")
    )
}

pub(crate) fn from_env<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
        _ => default,
    }
}

pub(crate) fn words(name: &str) -> Vec<String> {
    env::var(name).unwrap_or_default().split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

// === impl Totals ===

impl Totals {
    fn add(&mut self, seed: u64, Outcome { verdict, struck, .. }: &Outcome, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(seed);
        }
        self.events += verdict.events;
        self.struck += struck;
        self.lost += verdict.lost;
        self.doubled += verdict.doubled;
        self.rows += verdict.rows;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, events, struck, lost, doubled, rows } = self;
        write!(
            f,
            "{passed} of {} seeds passed: {events} events, {struck} faults, {lost} lost, {doubled} doubled, {rows} rows compared",
            passed + failed.len()
        )
    }
}

//! Seeds, a line for each, and how to see one again.

use std::path::Path;

use super::plan::Plan;
use super::run::run;
use crate::faults::{from_env, words};

/// Runs the seeds that the environment names, and fails if any of them does.
pub(crate) async fn suite(logs: &Path) {
    let rounds = from_env("ROUNDS", 200);
    let mut seeds: Vec<u64> = words("SEED").iter().map(|seed| seed.parse().unwrap()).collect();
    if seeds.is_empty() {
        seeds = vec![1];
    }
    let mut failed = Vec::new();
    for seed in seeds {
        let (plan, logs) = (Plan::of(seed, rounds), logs.join(format!("seed-{seed}")));
        let outcome = Box::pin(run(&plan, &logs)).await;
        println!("seed {seed}, {rounds} rounds in {:.0} s: {}", outcome.took.as_secs_f64(), outcome.verdict);
        if outcome.verdict.wrong.is_empty() {
            let _ = std::fs::remove_dir_all(&logs);
            continue;
        }
        println!("  again: make handover SEED={seed} ROUNDS={rounds}\n  logs:  {}", logs.display());
        failed.push(seed);
    }
    assert!(failed.is_empty(), "seeds failed: {failed:?}");
}

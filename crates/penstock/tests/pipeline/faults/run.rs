//! One run: the pipeline under a plan, from its start to the verdict.

use std::fs::{self, File};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use penstock_replay::Rate;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::crew::{Crew, Roster};
use super::downstream::Downstream;
use super::history::History;
use super::plan::{Fault, Link, Plan, Step};
use super::stage::{self, STEP};
use super::upstream::Upstream;
use super::verdict::{Fate, Verdict};
use crate::rig::Rig;

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// How many faults came to pass.
    pub(crate) struck: usize,
    pub(crate) took: Duration,
}

/// Half of the pipeline, and what befalls it.
pub(crate) trait Lane {
    /// Lets a fault happen, and returns once it is over; says whether it came to pass.
    ///
    /// # Errors
    /// The pipeline did not go on after it.
    async fn strike(&mut self, fault: &Fault) -> Result<bool, String>;
}

/// What happened when.
struct Journal {
    started: Instant,
    file: Mutex<File>,
}

/// What the relay skipped of its last sequence.
pub(crate) type Skipped = Vec<RangeInclusive<u64>>;

/// Runs a plan, and has it judged against all that the relay said.
pub(crate) async fn run(plan: &Plan, logs: &Path) -> Outcome {
    let judge = async |rig: &Rig, history: History, skipped, fate| {
        let said = history.said(skipped).await;
        Verdict::of(rig, said, fate).await
    };
    Box::pin(run_for(plan, logs, &Roster::default(), judge)).await
}

/// Runs a plan. What the processes say is kept in this folder, which is emptied first.
pub(crate) async fn run_for(
    plan: &Plan,
    logs: &Path,
    roster: &Roster,
    judge: impl AsyncFnOnce(&Rig, History, Skipped, Fate) -> Verdict,
) -> Outcome {
    let began = Instant::now();
    let _ = fs::remove_dir_all(logs);
    fs::create_dir_all(logs).unwrap();
    let (rig, links, redis, postgres) = stage::set(plan, logs).await;
    let rate = Rate::PerSecond(plan.rate.try_into().unwrap());
    let history = History::new(plan.size.events, rate, plan.is_odd);
    let mut relay = penstock_replay::bind(history.settings()).await.unwrap();
    relay.prepared().await.unwrap();
    let (handle, over) = (relay.handle(), CancellationToken::new());
    let urls = format!("relay.urls=ws://{}", relay.local_addr());
    let serving = tokio::spawn(relay.run(over.clone()));

    let ingest = ["ingest", "--set", &urls, "--set", &links.redis_setting(Link::IngestRedis)].map(str::to_owned);
    let worker = ["worker", "--set", &links.redis_setting(Link::WorkersRedis)].map(str::to_owned);
    let ingests = Crew::start(&rig, ingest.to_vec(), None, 2, roster);
    let workers = Crew::start(&rig, worker.to_vec(), Some("worker.consumerId"), plan.size.workers, roster);
    let mut upstream = Upstream {
        rig: &rig,
        links: &links,
        redis,
        relay: handle,
        history,
        ingests,
        keeps_stream: plan.keeps_stream,
        whole_from: None,
    };
    let mut downstream = Downstream { rig: &rig, links: &links, postgres, workers, redelivered: 0 };
    let journal = Journal::open(&logs.join("faults.log"));
    let (up, down) = tokio::join!(
        strike(&mut upstream, &plan.upstream, &journal),
        strike(&mut downstream, &plan.downstream, &journal)
    );
    links.heal();
    let mut wrong = [up.1, down.1].concat();

    upstream.ingests.look_at_all();
    downstream.workers.look_at_all();
    let fate = Fate { lost: upstream.whole_from, is_kept: plan.keeps_stream, redelivered: downstream.redelivered };
    let skipped = upstream.relay.skipped();
    let mut verdict = judge(&rig, upstream.history, skipped, fate).await;
    for crew in [upstream.ingests, downstream.workers] {
        wrong.extend(crew.end().await);
    }
    wrong.append(&mut verdict.wrong);
    verdict.wrong = wrong;
    over.cancel();
    let _ = serving.await;
    Outcome { verdict, struck: up.0 + down.0, took: began.elapsed() }
}

/// Lets faults happen, each at its time or when the one before is over.
async fn strike(lane: &mut impl Lane, steps: &[Step], journal: &Journal) -> (usize, Vec<String>) {
    let (mut struck, mut wrong) = (0, Vec::new());
    for Step { at, kind, fault } in steps {
        sleep_until(journal.started + *at).await;
        let began = journal.started.elapsed();
        let outcome = timeout(2 * STEP, lane.strike(fault)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("it does not end".to_owned()));
        journal.note(began, fault, &outcome);
        match outcome {
            Ok(happened) => struck += usize::from(happened),
            Err(error) => wrong.push(format!("{kind}, {began:.1?} after the start: {error}")),
        }
    }
    (struck, wrong)
}

// === impl Journal ===

impl Journal {
    fn open(path: &Path) -> Self {
        Self { started: Instant::now(), file: Mutex::new(File::create(path).unwrap()) }
    }

    fn note(&self, began: Duration, fault: &Fault, outcome: &Result<bool, String>) {
        let now = jiff::Timestamp::now();
        let took = self.started.elapsed() - began;
        let said = match outcome {
            Ok(true) => "",
            Ok(false) => ": did not come to pass",
            Err(error) => &format!(": {error}"),
        };
        writeln!(self.file.lock().unwrap(), "{now} {began:.1?} {fault:?} took {took:.1?}{said}").unwrap();
    }
}

//! One run: a relay, both systems in turn on both sides of the stream, and the verdict.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_local::testing::TestRedis;
use penstock_replay::Fault as Whim;
use tokio::time::sleep;

use super::plan::{Plan, Round};
use super::player::{Player, Theirs};
use super::processor::{self, Kind};
use super::side::{Bench, Side};
use super::stage::{self, Stage};
use super::verdict::{Verdict, judge};
use super::{python, typescript};
use crate::faults::becomes;
use crate::rig::Rig;
use crate::service::Service;

/// Events a second.
const RATE: u32 = 200;

/// Their MAXLEN: some seconds of events.
const MAX_LEN: u64 = 2_500;

/// What came of a plan.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

/// Starts ingests.
struct Ingests<'a> {
    rig: &'a Rig,
    theirs: Arc<Theirs>,
    stumbles: Duration,
}

/// Starts workers.
struct Workers<'a> {
    rig: &'a Rig,
    theirs: Arc<Theirs>,
    hired: usize,
}

/// Lets both systems alternate. What ours say is kept in this folder, which is emptied first.
pub(crate) async fn run(plan: &Plan, logs: &Path) -> Outcome {
    let began = Instant::now();
    let stage = Box::pin(stage::set(logs, RATE, MAX_LEN)).await;
    let Stage { rig, mut redis, settings, relay, theirs, reader, .. } = stage;
    rig.migrate().await;
    let mut journal = File::create(logs.join("handover.log")).unwrap();
    let ingests = Ingests { rig: &rig, theirs: Arc::clone(&theirs), stumbles: plan.stumbles };
    let workers = Workers { rig: &rig, theirs: Arc::clone(&theirs), hired: 0 };
    let mut ingest = Side::new(ingests, if plan.seed.is_multiple_of(2) { Kind::Python } else { Kind::TypeScript });
    let mut workers = Side::new(workers, Kind::Python);
    let mut wrong = Vec::new();
    for (n, round) in plan.rounds.iter().enumerate() {
        let said = format!("{} {:.1?} round {n}: {round:?}", jiff::Timestamp::now(), began.elapsed());
        let before = (reader.last(), reader.seen().len());
        if let Some(pause) = round.late {
            let _ = relay.inject(Whim::Refuse(pause)).await;
        }
        play(round, &mut ingest, &mut workers, &mut redis).await;
        let last = reader.last();
        let ours = ingest.is_ours();
        // Whoever has it now has really taken over: ours that ends before would leave theirs to theirs.
        let goes_on = becomes(async || {
            let seen = reader.seen();
            seen.last_key_value().is_some_and(|(id, seen)| Some(*id) > last && (seen.ours || !ours))
        });
        let goes_on = goes_on.await;
        let seqs: Vec<_> = reader.seen().range(before.0.unwrap_or_default()..).filter_map(|(_, s)| s.seq).collect();
        writeln!(
            journal,
            "{said}\n    ours {}, {} entries more, {:?} to {:?}",
            ingest.is_ours(),
            reader.seen().len() - before.1,
            seqs.first(),
            seqs.last()
        )
        .unwrap();
        if !goes_on {
            wrong.push(format!("after round {n}, {round:?}, nothing is written any more"));
            break;
        }
        sleep(round.lasts).await;
    }
    ingest.give_to_ours().await;
    workers.give_to_ours().await;
    let last = reader.last();
    if !becomes(async || reader.last() != last && reader.seen().last_key_value().is_some_and(|(_, seen)| seen.ours))
        .await
    {
        wrong.push("at last, ours does not go on".to_owned());
    }
    ingest.end(false).await;
    let cursor = rig.cursor().await.unwrap_or_default();
    let mut verdict = judge(&rig, &theirs, &reader, settings, cursor, async || workers.end(false).await).await;
    wrong.append(&mut ingest.wrong);
    wrong.append(&mut workers.wrong);
    wrong.append(&mut verdict.wrong);
    verdict.wrong = wrong;
    Outcome { verdict, took: began.elapsed() }
}

async fn play(round: &Round, ingest: &mut Side<Ingests<'_>>, workers: &mut Side<Workers<'_>>, redis: &mut TestRedis) {
    let up = async {
        if let Some(turn) = round.ingest {
            ingest.turn(turn).await;
        }
    };
    let down = async {
        if let Some(turn) = round.workers {
            workers.turn(turn).await;
        }
    };
    tokio::join!(up, down);
    if let Some(kill) = round.redis {
        if kill {
            redis.kill();
        } else {
            redis.stop().await.unwrap();
        }
        sleep(Duration::from_millis(150)).await;
        redis.restart().await.unwrap();
    }
}

// === impl Ingests ===

impl Bench for Ingests<'_> {
    fn ours(&mut self) -> Service {
        let relay = format!("relay.urls={}", self.theirs.relay);
        self.rig.start_as("ingest.log", &["ingest", "--set", &relay])
    }

    fn theirs(&mut self, kind: Kind) -> Player {
        match kind {
            Kind::Python => python::start(&self.theirs),
            Kind::TypeScript => typescript::start(&self.theirs, Some(self.stumbles)),
        }
    }
}

// === impl Workers ===

impl Bench for Workers<'_> {
    fn ours(&mut self) -> Service {
        self.hired += 1;
        let name = format!("worker.consumerId=ours-{}", self.hired);
        self.rig.start_as("worker.log", &["worker", "--set", &name])
    }

    fn theirs(&mut self, kind: Kind) -> Player {
        processor::start(&self.theirs, kind)
    }
}

//! One worker into PostgreSQL, beside plain statements that write the same rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::interfaces::StreamsInterface;
use fred::types::Value;
use penstock_core::keys::{KeyPrefix, Keys, Names};
use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::peer::{self, Tables};
use super::{Bench, LOOK, STUCK, Store, kilo};
use crate::entries::Entries;
use crate::error::Error;
use crate::figures::Runs;
use crate::process::{Service, Usage, quiet};
use crate::relay;
use crate::table::Line;

/// Entries of a run.
const EVENTS: u64 = 100_000;

/// Entries of a transaction, as `worker.batchSize` has it.
const BATCH: u64 = 1_000;

/// The least share of the plain statements' speed.
const SHARE: f64 = 0.5;

/// What one worker did.
struct Worked {
    took: Duration,
    usage: Usage,
    dead_letters: u64,
}

/// What the runs over one kind of entries gave.
#[derive(Debug, Default)]
struct Figures {
    entries: Runs,
    rows: Runs,
    plain: Runs,
    share: Runs,
    /// The share where the plain statements write the rows of Penstock's own tables too.
    share_of_all: Runs,
    /// The share where they write the likes alone, and none of the counts and stubs.
    share_of_likes: Runs,
    cpu: Runs,
    memory: Runs,
    dead_letters: u64,
    /// Changes of records in an entry, on average.
    ops: f64,
}

/// Measures row 5.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let events = bench.events.unwrap_or(EVENTS);
    let keys = Keys::new(KeyPrefix::default(), Names::default());
    let made = keys.clone();
    let likes = spawn_blocking(move || Entries::of_likes(events, &made)).await?;
    let replay = bench.replay(events);
    let mix = spawn_blocking(move || Entries::of_replay(&replay, &keys)).await??;
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await?;
    let likes = runs(bench, &postgres, "likes", Arc::new(likes)).await?;
    let mix = runs(bench, &postgres, "mix", Arc::new(mix)).await?;
    Ok(vec![
        likes.line("one worker into PostgreSQL, likes only"),
        mix.line("one worker into PostgreSQL, the recording's mix"),
    ])
}

async fn runs(bench: &Bench, postgres: &TestPostgres, kind: &str, entries: Arc<Entries>) -> Result<Figures, Error> {
    let mut figures = Figures { ops: entries.ops as f64 / entries.count as f64, ..Figures::default() };
    for run in 1..=bench.runs {
        let name = format!("{kind}_{run}");
        let database = postgres.create_database(&name).await?;
        migrate(bench, &database).await?;
        let worked = work(bench, postgres, &database, &entries).await?;
        let batches = entries.count.div_ceil(BATCH);
        let plain = peer::plain(postgres, &name, batches, Tables::AppView).await?;
        let all = peer::plain(postgres, &name, batches, Tables::All).await?;
        let likes = peer::plain(postgres, &name, batches, Tables::One("likes")).await?;
        peer::drop_database(postgres, &name).await?;
        let seconds = worked.took.as_secs_f64();
        figures.entries.push(entries.count as f64 / seconds);
        figures.rows.push(plain.rows as f64 / seconds);
        figures.plain.push(plain.rows as f64 / plain.took.as_secs_f64());
        figures.share.push(plain.took.as_secs_f64() / seconds);
        figures.share_of_all.push(all.took.as_secs_f64() / seconds);
        figures.share_of_likes.push(likes.took.as_secs_f64() / seconds);
        figures.cpu.push(worked.usage.cpu.as_secs_f64() * 1e6 / entries.count as f64);
        figures.memory.push(worked.usage.peak_memory as f64 / f64::from(1 << 20));
        figures.dead_letters = worked.dead_letters;
        eprintln!(
            "worker, {kind}: run {run}: {} entries, {} rows, plain {} rows, share {:.2}",
            kilo(figures.entries.median()),
            kilo(figures.rows.median()),
            kilo(figures.plain.median()),
            figures.share.median()
        );
    }
    Ok(figures)
}

/// Makes the tables, with the measured program.
pub(super) async fn migrate(bench: &Bench, database: &str) -> Result<(), Error> {
    let mut command = quiet(&bench.penstock);
    command.arg("migrate").env("DATABASE_URL", database).env("LOG_LEVEL", "warn");
    Service::start("migrate", bench.folder.path(), command)?.end().await
}

/// Lets one worker write a stream that is already there.
async fn work(bench: &Bench, postgres: &TestPostgres, database: &str, entries: &Arc<Entries>) -> Result<Worked, Error> {
    let store = bench.store().await?;
    let (written, keys, port) = (Arc::clone(entries), store.keys.clone(), store.server.port());
    spawn_blocking(move || written.write(port, &keys)).await??;
    peer::checkpoint(postgres).await?;
    let mut command = bench.service("worker", &store, relay::free_address()?);
    command.env("DATABASE_URL", database);
    let mut worker = Service::start("worker", bench.folder.path(), command)?;
    let took = until_acknowledged(&store, entries.count, &mut worker).await?;
    let usage = worker.usage()?;
    worker.stop().await?;
    let dead_letters: u64 = store.client.xlen(store.keys.dead_letters()).await?;
    Ok(Worked { took, usage, dead_letters })
}

/// Waits until everything is acknowledged; returns how long that took from the first read on.
async fn until_acknowledged(store: &Store, entries: u64, worker: &mut Service) -> Result<Duration, Error> {
    let (mut started, mut seen, mut since) = (None, (0, 0), Instant::now());
    loop {
        let now = progress(store).await?;
        if now.0 > 0 {
            started.get_or_insert_with(Instant::now);
        }
        if now == (entries, 0) {
            return Ok(started.map_or(Duration::ZERO, |started: Instant| started.elapsed()));
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STUCK {
            return Err(worker.stuck(STUCK));
        }
        worker.check()?;
        sleep(LOOK).await;
    }
}

/// Returns how many entries the group was given, and how many of them are not acknowledged.
async fn progress(store: &Store) -> Result<(u64, u64), Error> {
    let groups: Vec<HashMap<String, Value>> = store.client.xinfo_groups(store.keys.stream()).await?;
    let number = |name: &str| groups.first().and_then(|group| group.get(name)).and_then(Value::as_u64).unwrap_or(0);
    Ok((number("entries-read"), number("pending")))
}

// === impl Figures ===

impl Figures {
    fn line(&self, what: &'static str) -> Line {
        let Self { entries, rows, plain, share, share_of_all, share_of_likes, cpu, memory, dead_letters, ops } = self;
        let mut beside = format!(
            "plain INSERT … SELECT of the same final rows of the AppView's tables: {} rows; against the same of all tables, \
             Penstock's own too: {:.0} %; against `likes` alone: {:.0} %; the worker's CPU {:.0} µs an entry, memory {:.0} MiB",
            kilo(plain.median()),
            share_of_all.median() * 100.0,
            share_of_likes.median() * 100.0,
            cpu.median(),
            memory.median()
        );
        if *dead_letters > 0 {
            beside.push_str(&format!("; {dead_letters} entries were dead letters"));
        }
        Line {
            what,
            budget: "≥ 50 % of plain",
            measured: format!(
                "{:.0} % ({} entries, {} changes, {} final rows)",
                share.median() * 100.0,
                kilo(entries.median()),
                kilo(entries.median() * ops),
                kilo(rows.median())
            ),
            met: Some(share.median() >= SHARE),
            beside,
        }
    }
}

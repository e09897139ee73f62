//! What live events wait while a backfill runs: from a frame that the relay sends until its rows are committed.
//!
//! PostgreSQL itself says when each transaction was committed, so nothing asks meanwhile. Both times are of one machine's clock.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use sqlx::{Connection as _, PgConnection};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::backfill;
use super::latency::{Sample, joined, samples, through_relay};
use super::worker::migrate;
use super::{Bench, LOOK, STUCK, peer};
use crate::error::Error;
use crate::figures::{Runs, percentile};
use crate::pds::Pds;
use crate::process::Service;
use crate::relay;
use crate::table::Line;

/// Events a second, as the network sends about.
const RATE: f64 = 500.0;

/// Events of a run: 10 s.
const EVENTS: u64 = 5_000;

/// Records of each repo of the backfill.
const RECORDS: u64 = 250;

/// How much longer than without a backfill an event may take, in the middle.
const LONGER: f64 = 1.2;

/// When the last event of each account was committed, in seconds of the epoch.
const COMMITTED: &str = "\
SELECT did, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM penstock.repos WHERE did = ANY($1)";

/// What a run gave, in milliseconds.
struct Latency {
    p50: f64,
    p99: f64,
    events: usize,
}

/// Measures live events with and without a backfill beside them.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let samples = samples(&bench.replay(bench.events.unwrap_or(EVENTS)))?;
    eprintln!("beside: making {} repos of {RECORDS} records", bench.repos);
    let host = Pds::start(bench.folder.path(), bench.repos, RECORDS).await?;
    let settings = vec![("track_commit_timestamp".to_owned(), "on".to_owned())];
    let postgres = TestPostgres::start_with(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let (mut alone_p50, mut alone_p99, mut p50, mut p99, mut longer) = <(Runs, Runs, Runs, Runs, Runs)>::default();
    let mut events = 0;
    for run in 1..=bench.runs {
        let without = run_once(bench, &postgres, &format!("alone_{run}"), &samples, None).await?;
        let with = run_once(bench, &postgres, &format!("beside_{run}"), &samples, Some(&host)).await?;
        alone_p50.push(without.p50);
        alone_p99.push(without.p99);
        p50.push(with.p50);
        p99.push(with.p99);
        longer.push(with.p50 / without.p50);
        events = with.events;
        eprintln!(
            "beside: run {run}: p50 {:.1} ms, p99 {:.1} ms; alone {:.1} and {:.1}; {} events",
            with.p50, with.p99, without.p50, without.p99, with.events
        );
    }
    host.stop().await?;
    Ok(vec![Line {
        what: "frame sent → rows committed at 500/s, a backfill beside it",
        budget: "p50 ≤ 120 % of without",
        measured: format!("p50 {:.1} ms ({:.0} %), p99 {:.1} ms", p50.median(), longer.median() * 100.0, p99.median()),
        met: Some(longer.median() <= LONGER),
        beside: format!(
            "without it: p50 {:.1} ms, p99 {:.1} ms; {events} events while it ran",
            alone_p50.median(),
            alone_p99.median()
        ),
    }])
}

async fn run_once(
    bench: &Bench,
    postgres: &TestPostgres,
    name: &str,
    samples: &[Sample],
    host: Option<&Pds>,
) -> Result<Latency, Error> {
    let failed = || Error::database("read when rows were committed");
    let database = postgres.create_database(name).await?;
    migrate(bench, &database).await?;
    peer::checkpoint(postgres).await?;
    let store = bench.store().await?;
    let mut command = bench.service("worker", &store, relay::free_address()?);
    command.env("DATABASE_URL", &database);
    let mut worker = Service::start("worker", bench.folder.path(), command)?;
    let mut connection = PgConnection::connect(&database).await.map_err(failed())?;
    let backfill = match host {
        Some(host) => {
            let mut service =
                Service::start("backfill", bench.folder.path(), backfill::command(bench, host, &database))?;
            // It has to be at full speed.
            while backfill::done(&mut connection).await.map_err(failed())?.0 < 10 {
                service.check()?;
                sleep(LOOK).await;
            }
            Some((service, host.repos))
        }
        None => None,
    };
    let (address, sending) = through_relay(samples.to_vec(), RATE)?;
    let mut ingest = bench.ingest(&store, &format!("ws://{address}"), relay::free_address()?)?;
    let ended = ended(backfill, &mut connection).await?;
    let sent = spawn_blocking(move || joined(sending)).await??;
    let (here, now) = (Instant::now(), SystemTime::now());
    let latency = latency(samples, &sent, ended, (here, now), &mut connection, &mut worker, &mut ingest).await?;
    ingest.stop().await?;
    worker.stop().await?;
    drop(connection);
    peer::drop_database(postgres, name).await?;
    Ok(latency)
}

/// Waits for the end of the backfill where there is one, and returns when that was.
async fn ended(backfill: Option<(Service, u64)>, connection: &mut PgConnection) -> Result<Option<Instant>, Error> {
    let Some((mut service, repos)) = backfill else { return Ok(None) };
    loop {
        let now = backfill::done(connection).await.map_err(Error::database("look how far a backfill is"))?;
        if now.0 >= repos {
            service.end().await?;
            return Ok(Some(Instant::now()));
        }
        service.check()?;
        sleep(10 * LOOK).await;
    }
}

/// Waits until all events are written, and works out how long those took that were sent before `ended`.
async fn latency(
    samples: &[Sample],
    sent: &[Instant],
    ended: Option<Instant>,
    (here, now): (Instant, SystemTime),
    connection: &mut PgConnection,
    worker: &mut Service,
    ingest: &mut Service,
) -> Result<Latency, Error> {
    let epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The row of a repo has the transaction of its last event.
    let last: HashMap<&str, Instant> = samples.iter().map(|s| &*s.did).zip(sent.iter().copied()).collect();
    let dids: Vec<&str> = last.keys().copied().collect();
    let (mut seen, mut since) = (0, Instant::now());
    let committed = loop {
        let committed: Vec<(String, Option<f64>)> = sqlx::query_as(COMMITTED)
            .bind(&dids)
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("read when rows were committed"))?;
        if committed.len() >= last.len() {
            // What came last may have been written once more.
            sleep(Duration::from_secs(1)).await;
            break sqlx::query_as::<_, (String, Option<f64>)>(COMMITTED)
                .bind(&dids)
                .fetch_all(&mut *connection)
                .await
                .map_err(Error::database("read when rows were committed"))?;
        }
        if committed.len() != seen {
            (seen, since) = (committed.len(), Instant::now());
        } else if since.elapsed() > STUCK {
            return Err(worker.stuck(STUCK));
        }
        worker.check()?;
        ingest.check()?;
        sleep(10 * LOOK).await;
    };
    let mut millis: Vec<f64> = committed
        .iter()
        .filter_map(|(did, at)| {
            let sent = *last.get(did.as_str())?;
            let before = ended.is_none_or(|ended| sent < ended);
            let sent = epoch.as_secs_f64() - here.saturating_duration_since(sent).as_secs_f64();
            Some(((*at)? - sent) * 1e3).filter(|_| before)
        })
        .collect();
    millis.sort_by(f64::total_cmp);
    Ok(Latency { p50: percentile(&millis, 0.5), p99: percentile(&millis, 0.99), events: millis.len() })
}

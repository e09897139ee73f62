//! Repos read from their host into PostgreSQL, beside `tap`, which reads the same ones from the same host into the same server, and
//! beside plain statements that write the same rows.

use std::time::{Duration, Instant};

use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;
use tokio::time::sleep;

use super::peer::{self, Tables};
use super::tap;
use super::worker::migrate;
use super::{Bench, LOOK, kilo};
use crate::error::Error;
use crate::figures::Runs;
use crate::pds::Pds;
use crate::process::{Service, Usage, quiet};
use crate::table::Line;

/// Records of each repo.
const RECORDS: u64 = 250;

/// Records of a transaction of the plain statements: as many as of a range that is written at once.
const BATCH: u64 = 500;

/// How long no repo may be done: a large one takes minutes.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// How many times faster than `tap` it has to be, the least share of the plain statements' speed, and the most memory in MiB.
const TIMES: f64 = 3.0;
const SHARE: f64 = 0.6;
pub(super) const MEMORY_MIB: f64 = 128.0;

/// What one backfill did.
pub(super) struct Read {
    pub(super) took: Duration,
    pub(super) usage: Usage,
}

/// What the runs gave.
#[derive(Debug, Default)]
struct Figures {
    rate: Runs,
    cpu: Runs,
    memory: Runs,
    plain: Runs,
    share: Runs,
    /// The share where the plain statements write the rows of Penstock's own tables too.
    share_of_all: Runs,
    tap: Runs,
    tap_delivered: Runs,
    tap_cpu: Runs,
    tap_memory: Runs,
    times: Runs,
}

/// Measures backfills of many small repos.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let each = bench.events.unwrap_or(RECORDS);
    eprintln!("backfill: making {} repos of {each} records", bench.repos);
    let host = Pds::start(bench.folder.path(), bench.repos, each).await?;
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await?;
    let mut figures = Figures::default();
    for run in 1..=bench.runs {
        run_once(bench, &host, &postgres, run, &mut figures).await?;
        eprintln!(
            "backfill: run {run}: {} records ({:.0} µs of CPU), plain {} rows, share {:.2}, tap {}",
            kilo(figures.rate.median()),
            figures.cpu.median(),
            kilo(figures.plain.median()),
            figures.share.median(),
            kilo(figures.tap.median()),
        );
    }
    let records = host.records;
    host.stop().await?;
    Ok(figures.lines(bench, records))
}

async fn run_once(
    bench: &Bench,
    host: &Pds,
    postgres: &TestPostgres,
    run: u64,
    figures: &mut Figures,
) -> Result<(), Error> {
    let name = format!("backfill_{run}");
    let database = postgres.create_database(&name).await?;
    migrate(bench, &database).await?;
    peer::checkpoint(postgres).await?;
    let read = read(bench, host, &database).await?;
    let seconds = read.took.as_secs_f64();
    let records = host.records as f64;
    figures.rate.push(records / seconds);
    figures.cpu.push(read.usage.cpu.as_secs_f64() * 1e6 / records);
    figures.memory.push(read.usage.peak_memory as f64 / f64::from(1 << 20));
    let parts = host.records.div_ceil(BATCH);
    let plain = peer::plain(postgres, &name, parts, Tables::AppView).await?;
    let all = peer::plain(postgres, &name, parts, Tables::All).await?;
    figures.plain.push(plain.rows as f64 / plain.took.as_secs_f64());
    figures.share.push(plain.took.as_secs_f64() / seconds);
    figures.share_of_all.push(all.took.as_secs_f64() / seconds);
    peer::drop_database(postgres, &name).await?;
    if let Some(program) = &bench.tap {
        let name = format!("tap_{run}");
        let database = postgres.create_database(&name).await?;
        peer::checkpoint(postgres).await?;
        let done = tap::read(bench, program, host, &database).await?;
        peer::drop_database(postgres, &name).await?;
        figures.tap.push(records / done.written.as_secs_f64());
        figures.tap_delivered.push(records / done.delivered.as_secs_f64());
        figures.tap_cpu.push(done.usage.cpu.as_secs_f64() * 1e6 / records);
        figures.tap_memory.push(done.usage.peak_memory as f64 / f64::from(1 << 20));
        figures.times.push(done.written.as_secs_f64() / seconds);
    }
    Ok(())
}

/// Gives the command of a backfill of all repos of a host; what hosts of others are spared is not spared here.
pub(super) fn command(bench: &Bench, host: &Pds, database: &str) -> Command {
    let mut command = quiet(&bench.penstock);
    command.args(["backfill", "--all"]);
    for (name, value) in [
        ("DATABASE_URL", database),
        ("LOG_LEVEL", "warn"),
        ("RELAY_URL", &host.relay()),
        ("PENSTOCK_IDENTITY_ENABLED", "true"),
        ("PENSTOCK_IDENTITY_PLC_URL", &host.url()),
        ("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8"),
        ("PENSTOCK_IDENTITY_RATE", "10000"),
        ("PENSTOCK_HEAL_HOST_RATE", "10000"),
        ("PENSTOCK_HEAL_OF_HOST", "8"),
    ] {
        command.env(name, value);
    }
    command
}

/// Reads all repos of a host in the foreground, and checks that all their records are written.
pub(super) async fn read(bench: &Bench, host: &Pds, database: &str) -> Result<Read, Error> {
    let failed = || Error::database("look how far a backfill is");
    let began = Instant::now();
    let mut service = Service::start("backfill", bench.folder.path(), command(bench, host, database))?;
    let mut connection = PgConnection::connect(database).await.map_err(failed())?;
    let (mut seen, mut since, mut usage) = (0, Instant::now(), Usage::default());
    let took = loop {
        let now = done(&mut connection).await.map_err(failed())?;
        usage = service.usage().unwrap_or(usage);
        if now.0 >= host.repos {
            let took = began.elapsed();
            if now.1 != host.records {
                return Err(Error::Wrong { what: "records written", found: now.1, expected: host.records });
            }
            break took;
        }
        if now.0 != seen {
            (seen, since) = (now.0, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(service.stuck(PATIENCE));
        }
        service.check()?;
        sleep(LOOK).await;
    };
    service.end().await?;
    Ok(Read { took, usage })
}

/// Returns how many repos are done, and how many records they have.
pub(super) async fn done(connection: &mut PgConnection) -> sqlx::Result<(u64, u64)> {
    let done: Option<(i64, i64)> =
        sqlx::query_as("SELECT done, records FROM penstock.backfills").fetch_optional(connection).await?;
    Ok(done.map_or((0, 0), |(repos, records)| (repos.unsigned_abs(), records.unsigned_abs())))
}

// === impl Figures ===

impl Figures {
    fn lines(&self, bench: &Bench, records: u64) -> Vec<Line> {
        let Self { rate, cpu, memory, plain, share, share_of_all, tap, tap_delivered, tap_cpu, tap_memory, times } =
            self;
        let is_beside = bench.tap.is_some();
        let measured = format!(
            "{} records ({} to {}), {:.0} µs of CPU a record, at most {:.0} MiB",
            kilo(rate.median()),
            kilo(rate.least()),
            kilo(rate.greatest()),
            cpu.median(),
            memory.greatest()
        );
        let beside = if is_beside {
            format!(
                "tap, until its records are in PostgreSQL: {} ({:.0} µs of CPU, {:.0} MiB): {:.1} times as fast; until its client has \
                 them: {}",
                kilo(tap.median()),
                tap_cpu.median(),
                tap_memory.greatest(),
                times.median(),
                kilo(tap_delivered.median())
            )
        } else {
            "tap: not measured (--tap)".to_owned()
        };
        let share_of_plain = Line {
            what: "the same, beside plain statements",
            budget: "≥ 60 % of plain",
            measured: format!("{:.0} %", share.median() * 100.0),
            met: Some(share.median() >= SHARE),
            beside: format!(
                "plain INSERT … SELECT of the same final rows of the AppView's tables: {} rows; against the same of all tables, \
                 Penstock's own too: {:.0} %",
                kilo(plain.median()),
                share_of_all.median() * 100.0
            ),
        };
        vec![
            Line {
                what: "backfill, from a host into PostgreSQL",
                budget: "≥ 3 × tap, ≤ 128 MiB",
                measured: format!("{} repos, {records} records: {measured}", bench.repos),
                met: is_beside.then(|| times.median() >= TIMES && memory.greatest() <= MEMORY_MIB),
                beside,
            },
            share_of_plain,
        ]
    }
}

//! The memory that one large repo takes.

use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;

use super::backfill::{self, MEMORY_MIB};
use super::worker::migrate;
use super::{Bench, kilo, peer};
use crate::error::Error;
use crate::pds::Pds;
use crate::table::Line;

/// Records of the repo.
const RECORDS: u64 = 1_000_000;

/// Measures it once: it takes minutes, and memory does not vary.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let records = bench.events.unwrap_or(RECORDS);
    eprintln!("big: making a repo of {records} records");
    let host = Pds::start(bench.folder.path(), 1, records).await?;
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await?;
    let database = postgres.create_database("big").await?;
    migrate(bench, &database).await?;
    peer::checkpoint(&postgres).await?;
    let read = backfill::read(bench, &host, &database).await?;
    host.stop().await?;
    let memory = read.usage.peak_memory as f64 / f64::from(1 << 20);
    let rate = records as f64 / read.took.as_secs_f64();
    Ok(vec![Line {
        what: "backfill of one large repo, peak memory",
        budget: "≤ 128 MiB with 1,000,000 records",
        measured: format!("{memory:.0} MiB"),
        met: Some(memory <= MEMORY_MIB),
        beside: format!(
            "{records} records, {}, {:.0} µs of CPU a record",
            kilo(rate),
            read.usage.cpu.as_secs_f64() * 1e6 / records as f64
        ),
    }])
}

//! The import of the directory's export, beside the same rows by a plain COPY.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::spawn_blocking;

use super::worker::migrate;
use super::{Bench, kilo, peer};
use crate::error::Error;
use crate::figures::Runs;
use crate::process::{Service, quiet};
use crate::table::Line;

/// Operations of a run.
const OPERATIONS: u64 = 500_000;

/// How many a second there must be.
const LEAST: f64 = 50_000.0;

/// Keys that the accounts share: what one costs does not hang on whether it was seen.
const KEYS: [&str; 4] = [
    "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
    "zQ3shhCGUqDKjStzuDxPkTxN6ujddP4RkEKJJouJGRRkaLGbg",
    "zQ3shpKnbdPx3g3CmPf5cRVTPe1HtSwVn5ish3wSnDPQCbLJK",
    "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo",
];

/// Measures the import.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let operations = bench.events.unwrap_or(OPERATIONS);
    let path = bench.folder.path().join("export.jsonl");
    let made = path.clone();
    spawn_blocking(move || write_export(&made, operations)).await??;
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await?;
    let (mut rate, mut plain, mut share) = (Runs::default(), Runs::default(), Runs::default());
    for run in 1..=bench.runs {
        let name = format!("identity_{run}");
        let database = postgres.create_database(&name).await?;
        migrate(bench, &database).await?;
        let took = import(bench, &database, &path).await?;
        let copied = copy(&database).await?;
        peer::drop_database(&postgres, &name).await?;
        rate.push(operations as f64 / took.as_secs_f64());
        plain.push(operations as f64 / copied.as_secs_f64());
        share.push(copied.as_secs_f64() / took.as_secs_f64());
        eprintln!("identity: run {run}: {} operations, plain {}", kilo(rate.median()), kilo(plain.median()));
    }
    Ok(vec![Line {
        what: "import of the directory's export, into an empty table",
        budget: "≥ 50 k operations/s",
        measured: kilo(rate.median()),
        met: Some(rate.median() >= LEAST),
        beside: format!(
            "plain INSERT … SELECT of the same rows from another table: {} ({:.0} %)",
            kilo(plain.median()),
            share.median() * 100.0
        ),
    }])
}

async fn import(bench: &Bench, database: &str, export: &Path) -> Result<Duration, Error> {
    let mut command = quiet(&bench.penstock);
    command.args(["identity", "import"]).arg(export).env("DATABASE_URL", database).env("LOG_LEVEL", "warn");
    let began = Instant::now();
    Service::start("import", bench.folder.path(), command)?.end().await?;
    Ok(began.elapsed())
}

/// Writes the rows that are there into a table of the same shape, by one statement.
async fn copy(database: &str) -> Result<Duration, Error> {
    let failed = || Error::database("copy the identities");
    let mut connection = PgConnection::connect(database).await.map_err(failed())?;
    let table = "CREATE TABLE plain (LIKE penstock.identities INCLUDING ALL)";
    connection.execute(table).await.map_err(failed())?;
    let began = Instant::now();
    // In another order than the index has: so do operations come.
    let rows = "INSERT INTO plain SELECT * FROM penstock.identities ORDER BY fetched_at";
    connection.execute(rows).await.map_err(failed())?;
    Ok(began.elapsed())
}

/// Writes an export as the directory would give it: an operation an account, and a tenth of them a second one.
fn write_export(path: &PathBuf, operations: u64) -> Result<(), Error> {
    let mut text = String::new();
    for n in 0..operations {
        let account = if n % 10 == 9 { n - 5 } else { n };
        // Spread over the index, as hashes are.
        let (high, low) = (spread(account), spread(account ^ 0x5eed_0000_0000));
        let letter = |place: u32| {
            let bits = if place < 12 { high >> (5 * place) } else { low >> (5 * (place - 12)) };
            char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits & 31) as usize])
        };
        let did: String = (0..24).map(letter).collect();
        let key = KEYS[(n % 4) as usize];
        let (seconds, milli) = (n / 1000, n % 1000);
        let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let _ = writeln!(
            text,
            r#"{{"did":"did:plc:{did}","operation":{{"sig":"9NuYV7AqwHVTc0YuWzNV3CJafsSZWH7qCxHRUIP2xWlB-YexXC1OaYAnUayiCXLVzRQ8WBXIqF-SvZdNalwcjA","prev":null,"type":"plc_operation","services":{{"atproto_pds":{{"type":"AtprotoPersonalDataServer","endpoint":"https://morel.us-east.host.bsky.network"}}}},"alsoKnownAs":["at://user{account}.bsky.social"],"rotationKeys":["did:key:zQ3shhCGUqDKjStzuDxPkTxN6ujddP4RkEKJJouJGRRkaLGbg","did:key:zQ3shpKnbdPx3g3CmPf5cRVTPe1HtSwVn5ish3wSnDPQCbLJK"],"verificationMethods":{{"atproto":"did:key:{key}"}}}},"cid":"bafyreigp6shzy6dlcxuowwoxz7u5nemdrkad2my5zwzpwilcnhih7bw6zm","nullified":false,"createdAt":"2024-05-06T{hours:02}:{minutes:02}:{seconds:02}.{milli:03}Z"}}"#
        );
    }
    std::fs::write(path, text).map_err(Error::io("write the export"))
}

/// Mixes a number's bits.
fn spread(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

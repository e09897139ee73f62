//! Ingest that proves each commit and checks who signed it, end to end, with the accounts' keys in the table that services share.

use std::collections::BTreeSet;

use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use penstock_replay::account_key;
use penstock_wire::{Frame, Key, Limits};
use sqlx::{Connection as _, PgConnection};
use tokio::task::spawn_blocking;

use super::ingest::rate;
use super::worker::migrate;
use super::{Bench, kilo, peer};
use crate::cli::Curve;
use crate::entries::Entries;
use crate::error::Error;
use crate::figures::Runs;
use crate::process::Service;
use crate::relay::{self, Relay};
use crate::table::Line;

/// Events of a run. Nearly every one is of another account: each loop of the recording has its own.
const EVENTS: u64 = 100_000;

const THROUGHPUT: f64 = 15_000.0;
const MEMORY_MIB: f64 = 128.0;

/// Keys of accounts, as the table has them.
type Keys = Vec<(String, Vec<u8>)>;

/// What the runs with one kind of keys gave.
#[derive(Debug, Default)]
struct Figures {
    rate: Runs,
    cpu: Runs,
    memory: Runs,
}

/// Measures ingest with keys of either curve.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let events = bench.events.unwrap_or(EVENTS);
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await?;
    let p256 = runs(bench, &postgres, events, Curve::P256).await?;
    let k256 = runs(bench, &postgres, events, Curve::K256).await?;
    Ok(vec![
        p256.line("ingest, commits verified with signatures of P-256, keys in PostgreSQL"),
        k256.line("ingest, commits verified with signatures of K-256, keys in PostgreSQL"),
    ])
}

async fn runs(bench: &Bench, postgres: &TestPostgres, events: u64, curve: Curve) -> Result<Figures, Error> {
    eprintln!("signed: preparing {events} events");
    let (replay, redis_keys) = (bench.replay(events), super::default_keys());
    let entries = spawn_blocking(move || Entries::of_replay(&replay, &redis_keys)).await??;
    let replay = bench.replay(events);
    let keys = spawn_blocking(move || account_keys(&replay, curve)).await??;
    let relay = Relay::signing(bench.folder.path(), &bench.recording, events, curve).await?;
    let mut figures = Figures::default();
    for run in 1..=bench.runs {
        let name = format!("signed_{run}");
        let database = postgres.create_database(&name).await?;
        migrate(bench, &database).await?;
        fill(&database, &keys).await?;
        run_once(bench, &relay, &database, &entries, &mut figures).await?;
        peer::drop_database(postgres, &name).await?;
        eprintln!("signed: run {run}: {curve:?} {}", kilo(figures.rate.median()));
    }
    relay.stop().await?;
    Ok(figures)
}

async fn run_once(
    bench: &Bench,
    relay: &Relay,
    database: &str,
    entries: &Entries,
    figures: &mut Figures,
) -> Result<(), Error> {
    let store = bench.store().await?;
    let mut command = bench.ingest_command(&store, &relay.url(), relay::free_address()?);
    for (name, value) in [
        ("DATABASE_URL", database),
        ("PENSTOCK_VERIFY_MODE", "enforce"),
        ("PENSTOCK_VERIFY_SIGNATURES", "enforce"),
        ("PENSTOCK_IDENTITY_ENABLED", "true"),
        ("PENSTOCK_IDENTITY_PLC_URL", &relay.directory()),
        ("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8"),
        ("PENSTOCK_IDENTITY_RATE", "10000"),
    ] {
        command.env(name, value);
    }
    let mut ingest = Service::start("ingest", bench.folder.path(), command)?;
    store.until_cursor(entries.last_seq, &mut ingest).await?;
    let used = ingest.usage()?;
    ingest.stop().await?;
    // All of them: one that was refused would be a letter, and no entry.
    figures.rate.push(rate(&store, entries).await?);
    figures.cpu.push(used.cpu.as_secs_f64() * 1e6 / entries.count as f64);
    figures.memory.push(used.peak_memory as f64 / f64::from(1 << 20));
    Ok(())
}

/// Computes the keys of all accounts of a replay.
fn account_keys(replay: &penstock_replay::Settings, curve: Curve) -> Result<Keys, Error> {
    let mut dids = BTreeSet::new();
    for frame in penstock_replay::frames(replay)? {
        if let Frame::Event(event) = penstock_wire::decode(&frame, &Limits::default())? {
            dids.insert(String::from(event.did));
        }
    }
    let key_of = |did: String| {
        let key = Key::from_multikey(&account_key(&did, curve.signing())).map_err(|_| Error::Sign)?;
        Ok((did, key.to_bytes().to_vec()))
    };
    dids.into_iter().map(key_of).collect()
}

/// Writes them as services would that have resolved every account.
async fn fill(database: &str, keys: &Keys) -> Result<(), Error> {
    let failed = || Error::database("write the accounts' keys");
    let mut connection = PgConnection::connect(database).await.map_err(failed())?;
    let (dids, keys): (Vec<&str>, Vec<&[u8]>) = keys.iter().map(|(did, key)| (did.as_str(), key.as_slice())).unzip();
    let rows = "INSERT INTO penstock.identities (did, key, fetched_at)
        SELECT u.did, u.key, now() FROM unnest($1::text[], $2::bytea[]) AS u (did, key)";
    sqlx::query(rows).bind(dids).bind(keys).execute(&mut connection).await.map_err(failed())?;
    sqlx::query("ANALYZE penstock.identities").execute(&mut connection).await.map_err(failed())?;
    Ok(())
}

// === impl Figures ===

impl Figures {
    fn line(&self, what: &'static str) -> Line {
        let Self { rate, cpu, memory } = self;
        Line {
            what,
            budget: "≥ 15 k/s, ≤ 128 MiB",
            measured: format!("{} ({} to {})", kilo(rate.median()), kilo(rate.least()), kilo(rate.greatest())),
            met: Some(rate.median() >= THROUGHPUT && memory.greatest() <= MEMORY_MIB),
            beside: format!("{:.1} µs of CPU an event, memory at most {:.1} MiB", cpu.median(), memory.greatest()),
        }
    }
}

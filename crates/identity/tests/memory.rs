//! How much memory remembered identities take, in a process of their own.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use penstock_core::settings::{Layers, PostgresUrl, Settings, Value as _};
use penstock_identity::{Identities, KnownKey};
use penstock_local::testing::fresh_database;
use penstock_postgres::{Address, PasswordSource, Pool};
use penstock_telemetry::metrics::Metrics;
use penstock_wire::Key;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection};

const BOUND: u64 = 32 * 1024 * 1024;

/// More than fit.
const ACCOUNTS: u64 = 200_000;

/// What the process itself, its connections and one batch of rows may take beside that.
const SLACK: u64 = 12 * 1024 * 1024;

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn did(n: u64) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut did = format!("did:plc:{}", "a".repeat(12));
    for at in (0..12).rev() {
        let _ = write!(did, "{}", char::from(letters[usize::try_from((n >> (5 * at)) & 31).unwrap()]));
    }
    did
}

#[tokio::test]
async fn what_is_remembered_stays_within_its_bound() {
    let url = fresh_database().await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    for script in [
        "SET search_path = public",
        include_str!("../../worker/migrations/0001_appview.sql"),
        include_str!("../../worker/migrations/0002_penstock.sql"),
    ] {
        sqlx::raw_sql(script).execute(&mut conn).await.unwrap();
    }
    let key = Key::from_multikey("zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme").unwrap();
    let insert = "INSERT INTO penstock.identities (did, key, host, handle, fetched_at)
        SELECT did, $2, 'https://host' || n % 100 || '.example.com', 'somebody' || n || '.bsky.social', now()
        FROM unnest($1::text[]) WITH ORDINALITY AS t (did, n)";
    let dids: Vec<String> = (0..ACCOUNTS).map(did).collect();
    for some in dids.chunks(20_000) {
        sqlx::query(insert).bind(some).bind(&key.to_bytes()[..]).execute(&mut conn).await.unwrap();
    }
    let layers = Layers::default().flag("identity.enabled", "true").flag("identity.memory", BOUND.to_string());
    let settings = Settings::load(&layers).unwrap();
    let address = Address::new(PostgresUrl::parse(&url).unwrap(), PasswordSource::Address);
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(30));
    let pool = Pool::lazy(address, options, |_| true).unwrap();
    let identities = Identities::new(&settings, Some(pool), &Metrics::new()).unwrap();
    let before = resident();
    for some in dids.chunks(1_000) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        assert!(identities.resolve_many(&some).await.iter().all(Result::is_ok));
    }
    let grown = resident() - before;
    let is_known = |did: &&String| identities.known_key(did) == KnownKey::Key(key);
    let known = dids.iter().filter(is_known).count();
    println!(
        "{known} of {ACCOUNTS} identities in {BOUND} bytes, {} each; the process grew by {grown}",
        BOUND / known as u64
    );
    assert!(known > 100_000, "{known} are known");
    assert!(identities.known_key(&dids[dids.len() - 1]) == KnownKey::Key(key), "the last one is remembered");
    assert!(grown < BOUND + SLACK, "{grown} bytes for {known} identities");
}

//! Several services over one table, and a table that is away.

use futures_util::future::join_all;
use penstock_core::settings::{PostgresUrl, Value as _};
use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres, fresh_database};
use penstock_postgres::{Address, PasswordSource};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection};

use super::web::{Reply, Web};
use super::*;
use crate::cache::KnownKey;

const SCHEMA: &str = include_str!("../../../worker/migrations/0002_penstock.sql");

async fn migrate(url: &str) -> PgConnection {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("SET search_path = public").execute(&mut conn).await.unwrap();
    sqlx::raw_sql(include_str!("../../../worker/migrations/0001_appview.sql")).execute(&mut conn).await.unwrap();
    sqlx::raw_sql(SCHEMA).execute(&mut conn).await.unwrap();
    conn
}

fn pool(url: &str) -> Pool {
    let address = Address::new(PostgresUrl::parse(url).unwrap(), PasswordSource::Address);
    let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(20));
    Pool::lazy(address, options, |_| true).unwrap()
}

fn over(directory: &Web, url: &str, flags: &[(&str, &str)]) -> Identities {
    identities_with(directory, flags, Some(pool(url)), Options::default())
}

async fn text(conn: &mut PgConnection, query: &'static str) -> String {
    let found: Option<String> = sqlx::query_scalar(query).fetch_one(conn).await.unwrap();
    found.unwrap_or_default()
}

#[tokio::test]
async fn what_one_service_learns_the_others_know() {
    let url = fresh_database().await.unwrap();
    let mut conn = migrate(&url).await;
    let directory = full_directory().await;
    let (ingest, worker) = (over(&directory, &url, &[]), over(&directory, &url, &[]));
    let identity = ingest.resolve(DID).await.unwrap();
    assert_eq!(worker.resolve(DID).await.unwrap().key, identity.key);
    assert_eq!(directory.hits(), 1);
    // What failed, too.
    directory.answer(|_, _| Reply::text(410, ""));
    assert_eq!(ingest.resolve(&did(1)).await, Err(ResolveError::Tombstoned));
    assert_eq!(worker.resolve(&did(1)).await, Err(ResolveError::Tombstoned));
    directory.answer(|_, _| Reply::text(200, "{}"));
    let why = refused(ingest.resolve(&did(2)).await);
    assert_eq!(refused(worker.resolve(&did(2)).await), why);
    assert_eq!(directory.hits(), 3);
    let row = "SELECT host || ' ' || handle || ' ' || length(key) || ' ' || failures FROM penstock.identities WHERE handle IS NOT NULL";
    assert_eq!(text(&mut conn, row).await, "https://pds.example.com alice.example.com 34 0");
    // A change that one hears of is one for a service that starts later.
    worker.invalidate(DID).await;
    assert_eq!(text(&mut conn, "SELECT stale FROM penstock.identities WHERE handle IS NOT NULL").await, "identity");
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://new.example.com", "bob.example.com")));
    // What is asked for at the moment of the change may be from before it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = over(&directory, &url, &[]);
    assert_eq!(key_of(&later.resolve(DID).await.unwrap()), P256);
    assert_eq!(text(&mut conn, "SELECT stale FROM penstock.identities WHERE handle IS NOT NULL").await, "");
    // Who heard of it asks the table before the directory, and finds the new one there.
    assert_eq!(key_of(&worker.resolve(DID).await.unwrap()), P256);
    assert_eq!(directory.hits(), 4);
}

#[tokio::test]
async fn what_another_service_asked_for_before_a_change_is_not_taken_for_new() {
    let url = fresh_database().await.unwrap();
    let mut conn = migrate(&url).await;
    let directory = full_directory().await;
    let flags = [("identity.retryAfter", "50ms")];
    let (ingest, worker) = (over(&directory, &url, &flags), over(&directory, &url, &flags));
    ingest.resolve(DID).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.invalidate(DID).await;
    worker.resolve(DID).await.unwrap();
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "a.com")));
    ingest.invalidate(DID).await;
    // As if the worker had written it only now.
    sqlx::raw_sql("UPDATE penstock.identities SET stale = NULL, stale_at = NULL").execute(&mut conn).await.unwrap();
    assert_eq!(key_of(&ingest.resolve(DID).await.unwrap()), P256);
    sqlx::raw_sql("UPDATE penstock.identities SET stale = NULL, stale_at = NULL").execute(&mut conn).await.unwrap();
    directory.answer(|_, _| Reply::json(200, &document(DID, K256, "https://a.com", "a.com")));
    ingest.invalidate(DID).await;
    sqlx::raw_sql("UPDATE penstock.identities SET stale = NULL, stale_at = NULL").execute(&mut conn).await.unwrap();
    let refreshed = ingest.refresh_after_failure(DID).await.unwrap();
    assert_eq!(refreshed.as_ref().map(key_of).as_deref(), Some(K256));
}

#[tokio::test]
async fn a_wrong_signature_refreshes_once_in_a_while_for_all_services() {
    let url = fresh_database().await.unwrap();
    let _conn = migrate(&url).await;
    let directory = full_directory().await;
    let flags = [("identity.retryAfter", "3s")];
    let (one, other) = (over(&directory, &url, &flags), over(&directory, &url, &flags));
    one.resolve(DID).await.unwrap();
    other.resolve(DID).await.unwrap();
    assert_eq!(one.refresh_after_failure(DID).await, Ok(None));
    assert_eq!(directory.hits(), 1);
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "a.com")));
    eventually(async || one.refresh_after_failure(DID).await.unwrap().is_some()).await;
    // The other takes over what the first has found, without asking again.
    let refreshed = other.refresh_after_failure(DID).await.unwrap();
    assert_eq!(refreshed.as_ref().map(key_of).as_deref(), Some(P256));
    assert_eq!(directory.hits(), 2);
}

#[tokio::test]
async fn several_are_read_at_once_and_what_is_old_is_asked_for_beside() {
    let url = fresh_database().await.unwrap();
    let mut conn = migrate(&url).await;
    let directory = full_directory().await;
    let dids: Vec<String> = (0..50).map(did).collect();
    let dids: Vec<&str> = dids.iter().map(String::as_str).collect();
    let first = over(&directory, &url, &[]);
    assert!(first.resolve_many(&dids).await.iter().all(Result::is_ok));
    let age = "UPDATE penstock.identities SET fetched_at = fetched_at - interval '60 days' WHERE did < $1";
    sqlx::query(age).bind(did(40)).execute(&mut conn).await.unwrap();
    directory
        .answer(|_, path| Reply::json(200, &document(path.trim_start_matches('/'), P256, "https://a.com", "a.com")));
    let second = over(&directory, &url, &[("identity.maxAge", "30d")]);
    let resolved = second.resolve_many(&dids).await;
    assert!(resolved.iter().all(|resolved| resolved.as_ref().is_ok_and(|identity| key_of(identity) == K256)));
    eventually(async || {
        let _ = second.resolve_many(&dids).await;
        directory.hits() == 90
    })
    .await;
    assert!(matches!(second.known_key(dids[0]), KnownKey::Key(_)));
    eventually(async || key_of(&second.resolve(dids[0]).await.unwrap()) == P256).await;
    assert_eq!(key_of(&second.resolve(dids[45]).await.unwrap()), K256);
}

#[tokio::test]
async fn an_older_answer_does_not_replace_a_newer_one() {
    let url = fresh_database().await.unwrap();
    let mut conn = migrate(&url).await;
    let directory = full_directory().await;
    let identities = over(&directory, &url, &[("identity.retryAfter", "50ms")]);
    identities.resolve(DID).await.unwrap();
    // Word of a change that came after this answer was asked for stays, whoever writes the answer.
    let later = "UPDATE penstock.identities SET stale = 'identity', stale_at = clock_timestamp() + interval '1 hour'";
    sqlx::raw_sql(later).execute(&mut conn).await.unwrap();
    identities.resolve(&did(1)).await.unwrap();
    let other = over(&directory, &url, &[]);
    other.resolve(DID).await.unwrap();
    let row = "SELECT stale FROM penstock.identities WHERE did LIKE '%oiz'";
    assert_eq!(text(&mut conn, row).await, "identity");
    let newer = "UPDATE penstock.identities SET host = 'https://newer', fetched_at = clock_timestamp() + interval '1 hour', stale = NULL";
    sqlx::raw_sql(newer).execute(&mut conn).await.unwrap();
    identities.invalidate(DID).await;
    identities.resolve(DID).await.unwrap();
    assert_eq!(text(&mut conn, "SELECT host FROM penstock.identities WHERE did LIKE '%oiz'").await, "https://newer");
}

#[tokio::test]
async fn a_check_of_a_handle_is_shared_and_ends_with_the_handle() {
    let url = fresh_database().await.unwrap();
    let mut conn = migrate(&url).await;
    let directory = full_directory().await;
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "handle.invalid")));
    let identities = over(&directory, &url, &[("identity.retryAfter", "50ms")]);
    assert_eq!(identities.handle(DID).await, Ok(crate::Handle::Invalid));
    let row = "SELECT handle_valid::text FROM penstock.identities WHERE handle_checked_at IS NOT NULL";
    assert_eq!(text(&mut conn, row).await, "false");
    sqlx::raw_sql("UPDATE penstock.identities SET handle_valid = true").execute(&mut conn).await.unwrap();
    let other = over(&directory, &url, &[]);
    assert_eq!(other.handle(DID).await, Ok(crate::Handle::Valid("handle.invalid".into())));
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "alice.invalid")));
    identities.invalidate(DID).await;
    identities.resolve(DID).await.unwrap();
    assert_eq!(text(&mut conn, "SELECT handle_valid::text FROM penstock.identities").await, "");
}

#[tokio::test]
async fn without_its_table_it_resolves_over_the_network() {
    let mut postgres = TestPostgres::start().await.unwrap();
    let url = postgres.fresh_database().await.unwrap();
    let directory = full_directory().await;
    let identities = over(&directory, &url, &[]);
    // Not migrated yet: the network is asked.
    assert_eq!(key_of(&identities.resolve(&did(1)).await.unwrap()), K256);
    drop(migrate(&url).await);
    postgres.stop().await.unwrap();
    assert_eq!(key_of(&identities.resolve(&did(2)).await.unwrap()), K256);
    assert_eq!(identities.resolve_many(&[&did(3), &did(2)]).await.len(), 2);
    identities.invalidate(&did(2)).await;
    assert_eq!(identities.known_key(&did(2)), KnownKey::Unknown);
    postgres.restart().await.unwrap();
    let mut n = 10;
    eventually(async || {
        n += 1;
        identities.resolve(&did(n)).await.unwrap();
        let mut conn = PgConnection::connect(&url).await.unwrap();
        text(&mut conn, "SELECT count(*)::text FROM penstock.identities").await != "0"
    })
    .await;
}

#[tokio::test]
async fn through_any_pooler_of_transactions_it_is_the_same() {
    for options in [PgBouncerOptions::newest(), PgBouncerOptions::old()].into_iter().flatten() {
        let shared = TestPostgres::shared().await.unwrap();
        let pooler = TestPgBouncer::start(shared, &options).await.unwrap();
        let url = fresh_database().await.unwrap();
        let mut conn = migrate(&url).await;
        let through = pooler.through(&url);
        let directory = full_directory().await;
        let (one, other) = (over(&directory, &through, &[]), over(&directory, &through, &[]));
        let dids: Vec<String> = (0..40).map(did).collect();
        let dids: Vec<&str> = dids.iter().map(String::as_str).collect();
        assert!(one.resolve_many(&dids).await.iter().all(Result::is_ok));
        assert!(join_all(dids.iter().map(|did| other.resolve(did))).await.iter().all(Result::is_ok));
        join_all(dids.iter().map(|did| one.invalidate(did))).await;
        assert_eq!(directory.hits(), 40);
        assert_eq!(
            text(&mut conn, "SELECT count(*)::text FROM penstock.identities WHERE stale = 'identity'").await,
            "40"
        );
    }
}

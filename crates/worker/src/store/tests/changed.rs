//! A server that changes under its connections: plans that are gone, a failover, a restart.

use std::time::Duration;

use super::*;

/// Applies the same kinds of entries each time, so that every connection has its statements prepared.
fn entries(order: u64) -> Vec<Entry> {
    let repo = format!("did:plc:{order}");
    vec![
        identity(order, &repo, Some("a.test")),
        live(
            order + 1,
            &repo,
            vec![post("p", "text"), like("l", &post_uri(&repo, "p")), put("app.bsky.actor.profile/self", json!({}))],
        ),
        account(order + 2, &repo, false, Some("suspended")),
    ]
}

/// A database all of whose connections have applied something.
async fn warm() -> Db {
    let db = Db::new().await;
    for order in [10, 20, 30, 40, 50, 60] {
        let (a, b, c) = (entries(order * 10), entries(order * 10 + 1000), entries(order * 10 + 2000));
        let store = &db.store;
        let apply = |entries: Vec<Entry>| async move { store.apply("w1", &entries).await };
        let (a, b, c) = tokio::join!(apply(a), apply(b), apply(c));
        a.and(b).and(c).unwrap();
    }
    db
}

/// Runs a statement over every connection of the pool.
async fn everywhere(db: &Db, sql: &'static str) {
    let mut held = Vec::new();
    while held.len() < 3 {
        let mut conn = db.store.pool().acquire().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap();
        held.push(conn);
    }
}

/// Applies as many batches as there are connections, and more; none may fail.
async fn goes_on(db: &Db, change: &str) {
    for order in 0..5 {
        let entries = entries(100_000 + order * 10);
        if let Err(error) = db.store.apply("w1", &entries).await {
            panic!("after {change}: {error:?}");
        }
    }
    let rows = db.rows("SELECT uri FROM public.likes WHERE user_did LIKE 'did:plc:1000%'").await;
    assert_eq!(rows.len(), 5, "after {change}");
    db.store.counts().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_written_at_once_whatever_became_of_the_statements() {
    for change in [
        "DEALLOCATE ALL",
        "DISCARD ALL",
        // As a server that was primary and is not any more; who connects anew comes to the one that is.
        "SET default_transaction_read_only = on",
        // A search path that leads nowhere: as if the session began before the tables came.
        "SET search_path = pg_catalog",
    ] {
        let db = warm().await;
        everywhere(&db, change).await;
        goes_on(&db, change).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_written_at_once_after_the_tables_changed() {
    for change in [
        "ALTER TABLE penstock.repos ALTER COLUMN status TYPE varchar(64), ALTER COLUMN deleted_through TYPE varchar(64) COLLATE \"C\"",
        "ALTER TABLE likes ALTER COLUMN uri TYPE varchar(8192), ALTER COLUMN post_uri TYPE varchar(8192)",
        "ALTER TABLE penstock.counts ALTER COLUMN total TYPE numeric; ALTER TABLE penstock.counts ALTER COLUMN total TYPE bigint",
        "DROP INDEX unique_like_user_post; CREATE UNIQUE INDEX another_name ON likes (user_did, post_uri)",
    ] {
        let db = warm().await;
        db.execute(change).await;
        goes_on(&db, change).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_cut_off_by_the_server_is_written_over_another_connection() {
    let db = warm().await;
    let mut lock = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE penstock.repos").execute(&mut *lock).await.unwrap();
    let cut = async {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let mut cut = 0;
        while cut == 0 {
            // Within a transaction the view stays as it was.
            cut = sqlx::query(terminate).fetch_all(db.store.pool()).await.unwrap().len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lock.rollback().await.unwrap();
    };
    let entries = entries(100_000);
    let both = async { tokio::join!(db.store.apply("w1", &entries), cut) };
    let (applied, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    applied.unwrap();
    goes_on(&db, "a termination").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_says_nothing_of_the_connection_keeps_it() {
    let db = warm().await;
    let connections =
        async || db.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database() ORDER BY 1").await;
    let before = connections().await;
    assert_eq!(before.len(), 3);
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '22003'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON likes EXECUTE FUNCTION refuse()",
    )
    .await;
    for order in 0..5 {
        db.store.apply("w1", &entries(100_000 + order * 10)).await.unwrap_err();
    }
    assert_eq!(connections().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_has_an_id_above_what_is_reserved_for_a_redis_that_is_failed_over_to() {
    let db = Db::new().await;
    let reserved = async || {
        let found = db.rows("SELECT value::bigint AS ms FROM penstock.meta WHERE key = 'reserved'").await;
        found.first().map_or(0, |row| row["ms"].as_u64().unwrap())
    };
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let mut steps = 0;
    let mut before = 0;
    for (step, ms) in
        [now - 9_000_000, now - 20_000, now, now + 3_000, now + 6_000, now + 86_400_000].into_iter().enumerate()
    {
        db.apply(&entries(ms)).await;
        let stands = reserved().await;
        assert!(stands > ms + 2 && stands >= before, "step {step}: {stands} for {ms}");
        steps += u32::from(stands > before);
        before = stands;
    }
    assert_eq!(steps, 5, "not with each batch");
    // Another worker knows nothing of it, and leaves what stands higher.
    let other = Store::connect(&StoreSettings::new(&db.url)).await.unwrap();
    other.apply("w2", &entries(now + 9_000)).await.unwrap();
    assert_eq!(reserved().await, before);
    db.execute("UPDATE penstock.meta SET value = 'nonsense' WHERE key = 'reserved'").await;
    let third = Store::connect(&StoreSettings::new(&db.url)).await.unwrap();
    third.apply("w3", &entries(now + 12_000)).await.unwrap();
    assert_eq!(reserved().await, now + 12_002 + 10_000);
    // What the AppView's users forbid is marked by the last entry of the stream.
    db.execute(
        "CREATE TABLE user_settings (user_did varchar(255) PRIMARY KEY, data_collection_forbidden bool);
         INSERT INTO user_settings VALUES ('did:plc:z', true)",
    )
    .await;
    let last = id(now + 90_000);
    third.obey_opt_out("did:plc:z", async || Some(last)).await.unwrap();
    assert!(reserved().await > last.ms);
}

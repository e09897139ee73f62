//! The store behind a pooler: nothing that it sets or holds reaches another program's session, and rows are the same.

use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres};
use sqlx::{Connection, PgConnection};

use super::*;
use crate::store::ApplyError;
use crate::store::schema;

/// A database of a test's own, and a pooler before it.
struct Pooled {
    url: String,
    through: String,
    _pooler: TestPgBouncer,
}

impl Pooled {
    async fn new(options: &PgBouncerOptions) -> Self {
        let postgres = TestPostgres::shared().await.unwrap();
        let pooler = TestPgBouncer::start(postgres, options).await.unwrap();
        let url = postgres.fresh_database().await.unwrap();
        Self { through: pooler.through(&url), url, _pooler: pooler }
    }
}

/// Connects with nothing set.
async fn connect(url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap()
}

/// Returns the settings of the session that the next transaction gets, but for what a client names itself, and those that come
/// with a language that is used.
async fn settings(conn: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT string_agg(name || ' = ' || coalesce(setting, ''), E'\n' ORDER BY name) FROM pg_settings
      WHERE name NOT IN ('application_name', 'transaction_read_only', 'transaction_isolation') AND name NOT LIKE 'plpgsql.%'";
    // As a simple query, which needs no session twice.
    let row = sqlx::raw_sql(sql).fetch_one(conn).await.unwrap();
    sqlx::Row::get::<String, _>(&row, 0).lines().map(str::to_owned).collect()
}

/// Returns what differs.
fn differing(these: &[String], those: &[String]) -> Vec<String> {
    these.iter().filter(|this| !those.contains(this)).cloned().collect()
}

/// What a batch of this number leaves is the same in every database.
fn entries(number: u64) -> Vec<Entry> {
    let repo = format!("did:plc:{}", number % 7);
    let order = 100 + number * 10;
    vec![
        identity(order, &repo, Some(&format!("a{number}.test"))),
        live(
            order + 1,
            &repo,
            vec![
                post(&format!("p{number}"), "text"),
                like(&format!("l{number}"), &post_uri("did:plc:1", "p1")),
                repost(&format!("r{number}"), &post_uri("did:plc:1", "p8")),
            ],
        ),
        live(order + 2, &repo, vec![delete(&format!("app.bsky.feed.post/p{}", number.saturating_sub(14)))]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_same_through_a_pooler_and_no_setting_reaches_another_session() {
    let Some(options) = PgBouncerOptions::newest() else { return };
    let direct = Db::new().await;
    for number in 0..40 {
        direct.apply(&entries(number)).await;
    }
    direct.sweep().await;
    for mode in ["transaction", "session"] {
        let options = PgBouncerOptions { pool_size: if mode == "session" { 8 } else { 4 }, ..options.clone() };
        let pooled = Pooled::new(&options.mode(mode)).await;
        let mut untouched = settings(&mut connect(&pooled.url).await).await;
        schema::migrate(&pooled.through, true).await.unwrap();
        // It may give the role a search path of its own.
        let mut fresh = connect(&pooled.url).await;
        untouched.extend(settings(&mut fresh).await);

        let wanted = StoreSettings { pool_size: 3, messages: true, ..StoreSettings::new(&pooled.through) };
        let db = Db { store: Store::connect(&wanted).await.unwrap(), url: pooled.through.clone() };
        db.store.check_schema().await.unwrap();
        // A pooler of sessions lends each to the end.
        let more = if mode == "transaction" { 3 } else { 1 };
        let mut foreign = Vec::new();
        for _ in 0..more {
            foreign.push(connect(&pooled.through).await);
        }
        for number in (0..40).step_by(4) {
            let apply = |number| {
                let store = db.store.clone();
                async move {
                    // They want the same posts: one of several that wait for each other gives way, and comes again.
                    while let Err(error) = store.apply("w1", &entries(number)).await {
                        assert!(matches!(error, ApplyError::Retry { reason: "deadlock" | "race", .. }), "{error:?}");
                    }
                }
            };
            tokio::join!(apply(number), apply(number + 1), apply(number + 2), apply(number + 3));
            for conn in &mut foreign {
                let found = settings(conn).await;
                assert_eq!(differing(&found, &untouched), [""; 0], "{mode}, after batch {number}");
            }
        }
        db.sweep().await;
        db.store.counts().await.unwrap();
        db.store.table_sizes().await.unwrap();
        let mut turn = db.store.turn_to_count().await.unwrap().expect("nobody else counts");
        assert!(db.store.turn_to_count().await.unwrap().is_none(), "it is held");
        let counted = turn.count().await.unwrap();
        turn.end().await;
        assert!(counted.rows.iter().any(|(field, rows)| *field == "likes" && *rows > 0), "{counted:?}");
        db.store.turn_to_count().await.unwrap().expect("it was given up").end().await;
        assert_eq!(db.state().await, direct.state().await, "{mode}");
        // All at once, so that each gets another session.
        for conn in &mut foreign {
            sqlx::raw_sql("BEGIN").execute(&mut *conn).await.unwrap();
        }
        for conn in &mut foreign {
            let found = settings(conn).await;
            assert_eq!(differing(&found, &untouched), [""; 0], "{mode}, at the end");
        }
        let held = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
          WHERE l.locktype = 'advisory' AND d.datname = current_database()";
        let held: i64 = sqlx::query_scalar(held).fetch_one(&mut fresh).await.unwrap();
        assert_eq!(held, 0, "{mode}: no lock is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_confuses_statements_or_has_no_transactions_is_refused_before_anything_is_written() {
    let newest = PgBouncerOptions::newest().into_iter();
    let cases = newest.flat_map(|newest| {
        let forgetful = newest.clone().setting("max_prepared_statements", "0");
        [(forgetful, "max_prepared_statements"), (newest.mode("statement"), "statement mode")]
    });
    let cases = cases.chain(
        PgBouncerOptions::old()
            .into_iter()
            .flat_map(|old| [(old.clone(), "set pool_mode to session"), (old.mode("statement"), "statement mode")]),
    );
    for (options, advice) in cases {
        let pooled = Pooled::new(&options).await;
        schema::migrate(&pooled.url, false).await.unwrap();
        let error = Store::connect(&StoreSettings::new(&pooled.through)).await.unwrap_err();
        let said = penstock_core::causes::chain(&error);
        assert!(said.starts_with("could not connect to postgresql: ") && said.contains(advice), "{options:?}: {said}");
        let said = penstock_core::causes::chain(&schema::migrate(&pooled.through, false).await.unwrap_err());
        assert!(said.starts_with("could not connect to postgresql: ") && said.contains(advice), "{options:?}: {said}");
    }
    // By the session even the old one is as good as none.
    let Some(old) = PgBouncerOptions::old() else { return };
    let pooled = Pooled::new(&old.mode("session")).await;
    schema::migrate(&pooled.through, false).await.unwrap();
    let store = Store::connect(&StoreSettings { pool_size: 2, ..StoreSettings::new(&pooled.through) }).await.unwrap();
    store.apply("w1", &entries(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_through_a_pooler_leaves_no_lock_and_the_next_one_runs_however_it_ended() {
    let Some(options) = PgBouncerOptions::newest() else { return };
    let pooled = Pooled::new(&options).await;
    for _ in 0..3 {
        let (url, over) = (pooled.through.clone(), schema::migrate(&pooled.through, true));
        let other = tokio::spawn(async move { schema::migrate(&url, true).await });
        over.await.unwrap();
        other.await.unwrap().unwrap();
    }
    // As a process that is killed: its connections end, and with them what it holds.
    let url = pooled.through.clone();
    let killed = tokio::spawn(async move { schema::migrate(&url, true).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    killed.abort();
    let _ = killed.await;
    let next = schema::migrate(&pooled.through, true);
    tokio::time::timeout(std::time::Duration::from_secs(60), next).await.expect("nothing is left behind").unwrap();
    let mut direct = PgConnection::connect(&pooled.url).await.unwrap();
    schema::check(&mut direct, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_through_a_pooler_unless_the_role_has_limits_that_cannot_be_lifted_there() {
    let Some(options) = PgBouncerOptions::newest() else { return };
    let pooled = Pooled::new(&options).await;
    let mut direct = PgConnection::connect(&pooled.url).await.unwrap();
    let mut run = async |sql: &'static str| sqlx::raw_sql(sql).execute(&mut direct).await.map(drop).unwrap();
    schema::migrate(&pooled.through, true).await.unwrap();
    run("DROP INDEX idx_likes_post_uri").await;
    schema::migrate(&pooled.through, true).await.unwrap();
    run("DROP INDEX idx_likes_post_uri").await;
    run("DO $$ BEGIN
           EXECUTE format('ALTER ROLE penstock IN DATABASE %I SET statement_timeout = ''1h''', current_database());
         END $$")
    .await;
    // What a pooler has open already knows nothing of it.
    let pooler = TestPgBouncer::start(TestPostgres::shared().await.unwrap(), &options).await.unwrap();
    let through = pooler.through(&pooled.url);
    let said = penstock_core::causes::chain(&schema::migrate(&through, true).await.unwrap_err());
    assert!(said.contains("statement_timeout") && said.contains("postgres.directUrl"), "{said}");
    // Over a session of its own they are lifted.
    schema::migrate(&pooled.url, true).await.unwrap();
    run("DROP INDEX idx_likes_post_uri").await;
}

//! What a migration says before it starts, and while it goes on.

use std::sync::Mutex;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::net::TcpListener;

use super::relocate::old;
use super::*;
use crate::store::schema::{Database, Lock, News, Plan, SchemaError, Stage};

/// What was told, in short.
#[derive(Debug, Default)]
struct Told {
    planned: Option<Plan>,
    begun: Vec<Stage>,
    ended: Vec<Stage>,
    came: Vec<(Stage, String, u64, u64)>,
    changed: Option<bool>,
}

async fn migrate(url: &str, messages: bool) -> Told {
    let told = Mutex::new(Told::default());
    let tell = |news: News<'_>| {
        let mut told = told.lock().unwrap();
        match news {
            News::Planned(plan) => told.planned = Some(plan.clone()),
            News::Begins(stage) => told.begun.push(stage),
            News::Comes { stage, what, done, all, .. } => told.came.push((stage, what.to_owned(), done, all)),
            News::Ends { stage, .. } => told.ended.push(stage),
            News::Done { changed, .. } => told.changed = Some(changed),
        }
    };
    Database::new(url).telling(&tell).migrate(messages).await.unwrap();
    told.into_inner().unwrap()
}

async fn plan(url: &str) -> Plan {
    Database::new(url).plan(false, false, false).await.unwrap()
}

fn stages(plan: &Plan) -> Vec<Stage> {
    plan.steps.iter().map(|step| step.stage).collect()
}

/// Everything that there is, with what it looks like.
async fn catalog(url: &str) -> Vec<String> {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "SELECT format('%s %s %s', c.oid::regclass, c.relkind, array_agg(a.attname ORDER BY a.attnum)) FROM pg_class AS c
           LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          WHERE c.relnamespace::regnamespace::text IN ('public', 'penstock') GROUP BY c.oid ORDER BY 1",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_gets_all_tables_and_the_second_time_nothing() {
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let before = Database::new(&url).plan(true, false, false).await.unwrap();
    assert_eq!(stages(&before), [Stage::AppView, Stage::Own, Stage::Messages]);
    assert!(before.steps.iter().flat_map(|step| &step.changes).all(|change| change.lock == Lock::New), "{before}");
    for created in ["users", "likes", "penstock.repos", "penstock.repairs", "messages"] {
        assert!(
            before.to_string().replace(',', " ").split_whitespace().any(|word| word == created),
            "{created}: {before}"
        );
    }
    assert!(catalog(&url).await.is_empty(), "a plan changes nothing");
    let told = migrate(&url, true).await;
    assert_eq!(told.planned.as_ref(), Some(&before));
    assert_eq!((&told.begun, &told.ended), (&stages(&before), &stages(&before)));
    assert_eq!(told.changed, Some(true));
    let made = catalog(&url).await;
    assert_eq!(plan(&url).await, Plan::default());
    let told = migrate(&url, true).await;
    assert!(told.planned.is_none() && told.begun.is_empty() && told.ended.is_empty(), "{told:?}");
    assert_eq!(told.changed, Some(false));
    assert_eq!(catalog(&url).await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_planned_with_its_lock_and_then_there() {
    let db = Db::new().await;
    for (broken, stage, what, lock) in [
        ("DROP TABLE thread_gates", Stage::AppView, "create table thread_gates", Lock::New),
        ("DROP TABLE penstock.repairs", Stage::Own, "create table penstock.repairs", Lock::New),
        (
            "ALTER TABLE penstock.counts DROP COLUMN written_at",
            Stage::Own,
            "add column penstock.counts.written_at",
            Lock::Instant,
        ),
        (
            "DROP INDEX penstock.shadowed_repo",
            Stage::Own,
            "build index penstock.shadowed_repo on penstock.shadowed",
            Lock::Share,
        ),
        (
            "CREATE INDEX shadowed_pair ON penstock.shadowed (key_b, key_a, kind)",
            Stage::Own,
            "drop index penstock.shadowed_pair",
            Lock::Instant,
        ),
        ("DROP INDEX idx_likes_post_uri", Stage::Indexes, "build index on likes (post_uri)", Lock::Beside),
        (
            "INSERT INTO users (did, handle) VALUES ('did:plc:x', 'x.test'); DELETE FROM penstock.meta WHERE key = 'profiles'",
            Stage::Profiles,
            "copy handles and profiles of users, 2,000 accounts at a time",
            Lock::Rows,
        ),
    ] {
        db.execute(broken).await;
        let planned = plan(&db.url).await;
        let step =
            planned.steps.iter().find(|step| step.stage == stage).unwrap_or_else(|| panic!("{broken}: {planned}"));
        let change =
            step.changes.iter().find(|change| change.what == what).unwrap_or_else(|| panic!("{broken}: {planned}"));
        assert_eq!(change.lock, lock, "{broken}");
        let told = migrate(&db.url, false).await;
        assert!(told.ended.contains(&stage) && told.changed == Some(true), "{broken}: {told:?}");
        assert_eq!(plan(&db.url).await, Plan::default(), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_an_index_takes_follows_from_its_table() {
    let db = Db::new().await;
    db.execute(
        "INSERT INTO likes (uri, user_did, post_uri, created_at) SELECT 'at://did:plc:a/app.bsky.feed.like/' || n, 'did:plc:a' || n,
           'at://did:plc:b/app.bsky.feed.post/' || n, now() FROM generate_series(1, 20000) AS g (n);
         ANALYZE likes; DROP INDEX idx_likes_post_uri",
    )
    .await;
    let planned = plan(&db.url).await;
    let change = &planned.steps[0].changes[0];
    assert!((2_000_000..20_000_000).contains(&change.bytes), "{planned}");
    assert_eq!(change.time().as_millis(), u128::from(change.bytes / 40_000), "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_installation_is_told_what_moves_and_how_far_it_is() {
    let db = old(true).await;
    let before = catalog(&db.url).await;
    let planned = plan(&db.url).await;
    assert_eq!(catalog(&db.url).await, before, "a plan changes nothing");
    assert_eq!(stages(&planned)[0], Stage::MoveTables, "{planned}");
    assert!(planned.has(Stage::Own) && planned.has(Stage::MoveColumns), "{planned}");
    let text = planned.to_string();
    assert!(!text.contains("create table penstock.dead_letters") && text.contains("penstock.records"), "{text}");
    assert!(text.contains("drop column likes.entry_id") && text.contains("users.active"), "{text}");
    let told = migrate(&db.url, false).await;
    assert_eq!(told.ended, stages(&planned));
    assert!(told.came.iter().any(|(stage, table, ..)| *stage == Stage::MoveColumns && table == "likes"), "{told:?}");
    assert!(told.came.iter().all(|(_, _, done, all)| done <= all), "{told:?}");
    assert_eq!(plan(&db.url).await, Plan::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_and_a_rebuild_are_planned_as_what_holds_writers_up() {
    let db = Db::new().await;
    let planned = Database::new(&db.url).plan(false, true, true).await.unwrap();
    assert_eq!(stages(&planned), [Stage::Recount, Stage::Rebuild]);
    for step in &planned.steps {
        assert_eq!(step.locks(), "SHARE ROW EXCLUSIVE");
        assert!(step.changes[0].what.contains("likes") && step.changes[0].what.contains("posts"), "{planned}");
    }
    let told = Mutex::new(Vec::new());
    let tell = |news: News<'_>| {
        if let News::Comes { stage, done, all, .. } = news {
            told.lock().unwrap().push((stage, done, all));
        }
    };
    Database::new(&db.url).telling(&tell).recount().await.unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.windows(2).all(|two| two[0].1 < two[1].1), "{told:?}");
    assert!(told.last().is_some_and(|(_, done, all)| done == all), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_for_no_table() {
    let db = Db::new().await;
    db.execute("INSERT INTO users (did, handle) VALUES ('did:plc:x', 'x.test')").await;
    let mut conn = PgConnection::connect(&db.url).await.unwrap();
    let mut other = conn.begin().await.unwrap();
    other.execute("LOCK TABLE users, likes, penstock.repos IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let planned = tokio::time::timeout(Duration::from_secs(20), plan(&db.url)).await;
    assert_eq!(planned.expect("waits for a table"), Plan::default());
}

#[tokio::test]
async fn a_server_that_is_away_is_named_with_the_reason() {
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = refused.local_addr().unwrap();
    drop(refused);
    let url = format!("postgres://somebody:hunter2@{away}/d");
    let error = Database::new(&url).migrate(false).await.unwrap_err();
    let said = penstock_core::causes::chain(&error).to_string();
    assert!(
        said.contains(&away.to_string()) && said.contains("Connection refused") && !said.contains("hunter2"),
        "{said}"
    );
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("postgres://somebody:hunter2@{address}/d");
    let database = Database::new(&url).connect_timeout(Duration::from_millis(200));
    for error in [
        database.migrate(false).await.unwrap_err(),
        database.plan(false, false, false).await.unwrap_err(),
        database.recount().await.unwrap_err(),
    ] {
        assert!(matches!(error, SchemaError::Silent { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "postgresql at {address} does not answer within 200ms: check that the address is right and reachable from here"
            )
        );
    }
}

//! A worker whose role owns nothing, with the grants of docs/postgres.md.

use penstock_local::testing::TestPostgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::letters::letter;
use super::*;
use crate::schema::SchemaError;

const DOCS: &str = include_str!("../../../../../docs/postgres.md");

/// The statements of the manual: what an administrator runs, and what the owner of the tables runs.
fn documented() -> [String; 2] {
    let (_, roles) = DOCS.split_once("## Roles").unwrap();
    let blocks: Vec<String> = roles
        .split("```sql\n")
        .skip(1)
        .map(|block| block.split_once("```").map_or(block, |(block, _)| block).to_owned())
        .collect();
    blocks.try_into().unwrap()
}

async fn run(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_owns_nothing_works_with_the_documented_grants_and_names_those_it_lacks() {
    let postgres = TestPostgres::start().await.unwrap();
    let url = |login: &str| format!("postgres://{login}@127.0.0.1:{}/appview", postgres.port());
    run(&postgres.url(), "CREATE ROLE app LOGIN PASSWORD 'app'").await;
    run(&postgres.url(), "CREATE DATABASE appview OWNER app").await;
    let admin = postgres.url_for("appview");
    let owner = url("app:app");
    let [roles, grants] = documented();
    run(&admin, &roles).await;
    schema::migrate(&owner, true).await.unwrap();
    let settings =
        StoreSettings { messages: true, pool_size: 3, ..StoreSettings::new(url("penstock_worker:change%20me")) };
    let store = Store::connect(&settings).await.unwrap();
    let lacks = async || match store.check_schema().await {
        Err(SchemaError::Grants { role, grants }) => {
            assert_eq!(role, "penstock_worker");
            grants
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks().await[0], "GRANT USAGE ON SCHEMA penstock TO penstock_worker");
    run(&owner, &grants).await;
    store.check_schema().await.unwrap();

    let db = Db { store: store.clone(), url: settings.url.clone() };
    let uri = post_uri("did:plc:a", "p");
    db.apply(&[live(5, "did:plc:a", vec![post("p", "here")])]).await;
    db.apply(&[live(6, "did:plc:b", vec![like("l", &uri)])]).await;
    db.apply(&[live(7, "did:plc:a", vec![delete("app.bsky.feed.post/p")])]).await;
    db.store.dead_letter(&letter("3-0".to_owned(), b"{", "did:plc:a")).await.unwrap();
    assert_eq!(db.bound(penstock_core::dead_letter::Bounds { bytes: 1_000, count: 10 }).await, 0);
    db.store.prune_tombstones(StreamId { ms: u64::MAX / 4, seq: 0 }, 100).await.unwrap();
    db.store.incarnation().await.unwrap();
    let mut turn = db.store.turn_to_count().await.unwrap().unwrap();
    turn.count().await.unwrap();
    turn.end().await;

    // What a later version adds is theirs as well.
    run(&owner, "CREATE TABLE penstock.later (n int); CREATE TABLE public.later (id serial)").await;
    for (role, sql) in [
        ("penstock_worker", "INSERT INTO penstock.later VALUES (1); INSERT INTO later DEFAULT VALUES"),
        ("penstock_ingest", "SELECT * FROM penstock.later; SELECT * FROM penstock.checkpoint"),
        ("penstock_dashboard", "SELECT * FROM penstock.later; SELECT * FROM later; DELETE FROM penstock.dead_letters"),
        ("penstock_doctor", "SELECT * FROM penstock.later; SELECT * FROM later"),
    ] {
        run(&url(&format!("{role}:change%20me")), sql).await;
    }

    for (revoked, said) in [
        ("INSERT ON public.posts", "GRANT INSERT ON public.posts TO penstock_worker"),
        ("UPDATE, DELETE ON penstock.repos", "GRANT DELETE, UPDATE ON penstock.repos TO penstock_worker"),
        (
            "USAGE ON SEQUENCE public.messages_id_seq",
            "GRANT USAGE ON SEQUENCE public.messages_id_seq TO penstock_worker",
        ),
        ("USAGE ON SCHEMA penstock", "GRANT USAGE ON SCHEMA penstock TO penstock_worker"),
    ] {
        run(&owner, &format!("REVOKE {revoked} FROM penstock_worker")).await;
        assert_eq!(lacks().await, [said]);
        run(&owner, said).await;
        store.check_schema().await.unwrap();
    }
}

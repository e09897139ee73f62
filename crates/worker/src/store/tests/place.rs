//! Databases that cannot hold every letter, schemas other than `public`, and search paths that lead to several.

use penstock_local::testing::{TestPostgres, fresh_database};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::*;
use crate::schema::{Database, SchemaError};

/// How many of our tables each schema has.
const SPREAD: &str = "\
SELECT coalesce(string_agg(format('%s %s', schemaname, n), ', ' ORDER BY schemaname), '') FROM (
  SELECT schemaname, count(*) AS n FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'penstock')
   GROUP BY 1) AS t";

async fn run(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.close().await.unwrap();
}

async fn value(url: &str, sql: &str) -> String {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Sets the search path of everybody who connects.
async fn lead(url: &str, path: &str) {
    let set =
        format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = {path}', current_database()); END $$");
    run(url, &set).await;
}

fn worker(url: &str) -> StoreSettings {
    StoreSettings { pool_size: 2, messages: true, ..StoreSettings::new(url) }
}

/// Writes a post and a like, and returns which schema has how many rows of each.
async fn written(store: &Store, schemas: &[&str]) -> Vec<(i64, i64)> {
    let uri = post_uri("did:plc:a", "p");
    store.apply("w1", &[live(5, "did:plc:a", vec![post("p", "here"), like("l", &uri)])]).await.unwrap();
    let mut rows = Vec::new();
    for schema in schemas {
        let count = format!("SELECT (SELECT count(*) FROM {schema}.posts), (SELECT count(*) FROM {schema}.likes)");
        rows.push(sqlx::query_as(AssertSqlSafe(count)).fetch_one(store.pool()).await.unwrap());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_letter_is_refused() {
    let postgres = TestPostgres::shared().await.unwrap();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        let make =
            format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        run(&postgres.url(), &make).await;
        let url = postgres.url_for(&name);
        let refused = schema::migrate(&url, false).await.unwrap_err();
        assert!(matches!(&refused, SchemaError::Encoding(found) if found == encoding), "{refused}");
        assert!(refused.to_string().contains("--encoding=UTF8"), "{refused}");
        assert_eq!(value(&url, SPREAD).await, "", "nothing was made");
        assert!(matches!(Database::new(&url).plan(false, false, false).await, Err(SchemaError::Encoding(_))));
        let store = Store::connect(&worker(&url)).await.unwrap();
        assert!(matches!(store.check_schema().await, Err(SchemaError::Encoding(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_in_one_schema_and_every_role_finds_them_there() {
    for (schema, quoted) in [("tenant", "tenant"), ("Ten\"ant, 2", "\"Ten\"\"ant, 2\"")] {
        let url = fresh_database().await.unwrap();
        run(&url, &format!("CREATE SCHEMA {quoted}; CREATE TABLE public.likes (id int)")).await;
        lead(&url, &format!("{quoted}, public")).await;
        schema::migrate(&url, true).await.unwrap();
        let spread = value(&url, SPREAD).await;
        assert!(spread.contains(&format!("{schema} ")) && spread.contains("public 1"), "{spread}");
        let store = Store::connect(&worker(&url)).await.unwrap();
        store.check_schema().await.unwrap();
        let rows = written(&store, &[quoted]).await;
        assert_eq!(rows, [(1, 1)], "{schema}");

        // Whatever path another role has.
        for path in ["public", &format!("public, {quoted}"), "pg_catalog", "penstock, public"] {
            lead(&url, path).await;
            let store = Store::connect(&worker(&url)).await.unwrap();
            store.check_schema().await.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(written(&store, &[quoted]).await, [(1, 1)], "{path}");
            schema::migrate(&url, true).await.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(Database::new(&url).plan(true, false, false).await.unwrap().is_empty(), "{path}");
            assert_eq!(value(&url, SPREAD).await, spread, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_appviews_tables_are_found_wherever_they_are_in_the_path() {
    for first in [false, true] {
        let url = fresh_database().await.unwrap();
        schema::migrate(&url, true).await.unwrap();
        // As the AppView leaves them, without anything of ours.
        run(&url, "DROP SCHEMA penstock CASCADE; CREATE SCHEMA tenant").await;
        let spread = value(&url, SPREAD).await;
        lead(&url, if first { "public, tenant" } else { "tenant, public" }).await;
        schema::migrate(&url, true).await.unwrap();
        assert_eq!(value(&url, SPREAD).await, spread);
        let store = Store::connect(&worker(&url)).await.unwrap();
        store.check_schema().await.unwrap();
        assert_eq!(written(&store, &["public"]).await, [(1, 1)]);
    }
}

/// Somebody else's trigger calls a function by its bare name, which a third schema of the path has.
#[tokio::test(flavor = "multi_thread")]
async fn functions_of_a_further_schema_in_the_path_are_found() {
    let url = fresh_database().await.unwrap();
    run(&url, "CREATE SCHEMA tenant; CREATE SCHEMA tools; CREATE TABLE tools.unrelated (id int)").await;
    lead(&url, "tenant, public, tools").await;
    schema::migrate(&url, true).await.unwrap();
    let foreign = "\
CREATE TABLE tools.seen (uri text);
CREATE FUNCTION tools.remark(uri text) RETURNS void LANGUAGE sql AS 'INSERT INTO tools.seen VALUES ($1)';
CREATE FUNCTION tenant.on_post() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM remark(NEW.uri); RETURN NEW; END';
CREATE TRIGGER remark AFTER INSERT ON tenant.posts FOR EACH ROW EXECUTE FUNCTION tenant.on_post()";
    run(&url, foreign).await;
    let store = Store::connect(&worker(&url)).await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(written(&store, &["tenant"]).await, [(1, 1)]);
    assert_eq!(value(&url, "SELECT string_agg(uri, ',') FROM tools.seen").await, post_uri("did:plc:a", "p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_that_is_set_is_taken_and_another_one_refused() {
    let url = fresh_database().await.unwrap();
    let into = |schema: &'static str| Database::new(&url).schema(Some(schema)).migrate(true);
    assert!(matches!(into("tenant").await, Err(SchemaError::NoSchema(_))));
    run(&url, "CREATE SCHEMA tenant").await;
    into("tenant").await.unwrap();
    let spread = value(&url, SPREAD).await;
    assert!(spread.starts_with("tenant ") && !spread.contains("public"), "{spread}");
    into("tenant").await.unwrap();
    schema::migrate(&url, true).await.unwrap();
    assert_eq!(value(&url, SPREAD).await, spread);
    let other = into("public").await.unwrap_err();
    assert!(matches!(other, SchemaError::OtherSchema { .. }) && other.to_string().contains("tenant"), "{other}");
    let check = async |schema: Option<&str>| {
        let schema = schema.map(str::to_owned);
        let store = Store::connect(&StoreSettings { schema, ..worker(&url) }).await.unwrap();
        store.check_schema().await
    };
    check(None).await.unwrap();
    check(Some("tenant")).await.unwrap();
    assert!(matches!(check(Some("public")).await, Err(SchemaError::OtherSchema { .. })));
}

#[test]
fn the_search_path_knows_every_table_that_is_written() {
    for table in schema::tables().into_iter().filter(|table| !table.contains('.')).chain(["user_settings"]) {
        let known = |mark: char| schema::SEARCH_PATH.contains(&format!("{table}{mark}"));
        assert!(known(',') || known('}'), "{table}");
    }
}

//! What PostgreSQL shows: whose tables, which settings, and who else writes.

use penstock_doctor::Level;
use sqlx::{Connection, Executor, PgConnection};

use crate::clinic::Clinic;

async fn migrated() -> Clinic {
    let clinic = Clinic::new().await;
    penstock_worker::migrate(clinic.var("DATABASE_URL"), false).await.unwrap();
    clinic
}

#[tokio::test]
async fn an_empty_database_and_a_migrated_one_are_told_apart() {
    let clinic = Clinic::new().await;
    clinic.examine().await.says(Level::Note, "schema", "the database is empty");
    penstock_worker::migrate(clinic.var("DATABASE_URL"), false).await.unwrap();
    // The message system's table is no table of the AppView's.
    clinic.sql("DROP TABLE IF EXISTS messages").await;
    let report = clinic.examine().await;
    assert!(!report.has("schema.keys") && !report.has("schema.rights"), "{report:?}");
    report.says(Level::Ok, "schema", "all tables and columns");
    report.says(Level::Ok, "schema.public", "only known AppView tables");
    clinic.sql("INSERT INTO penstock.meta VALUES ('moving', '1')").await;
    clinic.examine().await.says(Level::Fail, "schema", "a migration that was interrupted");
    clinic.sql("DROP TABLE penstock.tombstones").await;
    clinic.sql("ALTER TABLE posts DROP COLUMN facets").await;
    clinic.examine().await.says(Level::Fail, "schema", "table penstock.tombstones, column posts.facets");
}

#[tokio::test]
async fn an_installation_of_0_1_is_told_from_a_stranger() {
    let clinic = Clinic::new().await;
    clinic.sql("CREATE TABLE sessions (id text); CREATE TABLE posts (uri text, entry_id text); CREATE TABLE penstock_repos ()").await;
    let report = clinic.examine().await;
    report.says(Level::Warn, "schema", "penstock_repos, posts.entry_id");
    assert_eq!(report.level("schema.public"), Level::Ok);
    clinic.sql("CREATE TABLE audit_log (id int); ALTER TABLE posts ADD COLUMN mood text").await;
    clinic.examine().await.says(Level::Warn, "schema.public", "audit_log, posts.mood");
}

#[tokio::test]
async fn what_statements_need_is_missed() {
    let clinic = migrated().await;
    clinic
        .sql(
            "DO $$ DECLARE index regclass; BEGIN
               FOR index IN SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'likes'::regclass AND indisunique AND NOT indisprimary
               LOOP EXECUTE 'DROP INDEX ' || index; END LOOP; END $$",
        )
        .await;
    clinic.examine().await.says(Level::Fail, "schema.keys", "likes (user_did, post_uri)");
}

#[tokio::test]
async fn a_role_without_rights_and_with_settings_of_its_own_is_told() {
    let clinic = migrated().await;
    let role = format!("little_{:x}", std::process::id());
    clinic
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'hunter2'; GRANT USAGE ON SCHEMA penstock TO {role};
             ALTER ROLE {role} SET statement_timeout = '900ms'; ALTER ROLE {role} SET default_transaction_read_only = on;
             ALTER ROLE {role} SET search_path = pg_temp, penstock, public; ALTER ROLE {role} CONNECTION LIMIT 3"
        ))
        .await;
    let url = clinic.var("DATABASE_URL");
    let (_, place) = url.rsplit_once('@').unwrap();
    let report = clinic.with("DATABASE_URL", &format!("postgres://{role}:hunter2@{place}")).examine().await;
    report.says(Level::Fail, "postgres.server", "default_transaction_read_only");
    report.says(Level::Warn, "postgres.timeouts", "statement_timeout is 900 ms");
    report.says(Level::Warn, "postgres.connections", "of 3 in use");
    report.says(Level::Fail, "schema.rights", "on penstock.");
    assert!(report.has("postgres.unseen"), "{report:?}");
    assert!(!report.0.to_text().contains("hunter2"), "{report:?}");
    clinic.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_second_writer_beside_our_worker_is_a_failure() {
    let clinic = migrated().await;
    clinic.python(1..9).await;
    clinic.group("firehose-processors").await;
    clinic.redis(&["SET", "firehose:consumer:ours:alive", "token", "PX", "60000"]).await;
    clinic.read("firehose-processors", "ours", 1).await;
    assert_eq!(clinic.examine().await.level("database.writers"), Level::Ok);
    let mut other = PgConnection::connect(clinic.var("DATABASE_URL")).await.unwrap();
    let like = "INSERT INTO likes (uri, user_did, post_uri, created_at) VALUES ('u', 'd', 'p', now())";
    sqlx::query(like).execute(&mut other).await.unwrap();
    clinic.examine().await.says(Level::Warn, "database.writers", "into likes");
    // As a pool of asyncpg leaves a session that was given back.
    let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    other.execute(reset).await.unwrap();
    clinic.examine().await.says(Level::Fail, "database.writers", "asyncpg");
    other.close().await.unwrap();
}

#[tokio::test]
async fn the_cursor_of_the_ingestion_is_told_and_seen_moving() {
    let clinic = migrated().await;
    clinic.typescript(1..1_102).await;
    clinic.sql("INSERT INTO firehose_cursor (service, cursor) VALUES ('firehose', '628')").await;
    clinic.examine().await.says(Level::Note, "cursor.appview", "473 behind the newest entry");
    let moved = async |at: u64| {
        clinic.sql(&format!("UPDATE firehose_cursor SET cursor = '{}', updated_at = now()", 629 + at)).await;
    };
    clinic.examine_while(moved).await.says(Level::Ok, "cursor.appview", "advancing");
    clinic.sql("INSERT INTO firehose_cursor (service, cursor) VALUES ('backfill', '5')").await;
    clinic.examine().await.says(Level::Warn, "cursor.second", "backfill");
}

#[tokio::test]
async fn a_redis_of_another_database_is_a_failure() {
    let clinic = migrated().await;
    clinic.redis(&["SET", "firehose:pipeline", r#"{"pipeline":"default","incarnation":"another"}"#]).await;
    clinic.redis(&["SET", "firehose:incarnation", "another"]).await;
    clinic.examine().await.says(Level::Fail, "claim.database", "another database");
}

#[tokio::test]
async fn a_checkpoint_is_told_with_its_age() {
    let clinic = migrated().await;
    clinic.examine().await.says(Level::Note, "checkpoint", "none yet");
    clinic
        .sql("INSERT INTO penstock.checkpoint VALUES ('h', 77, '1-0', (now() AT TIME ZONE 'UTC') - interval '15 minutes')")
        .await;
    clinic.examine().await.says(Level::Note, "checkpoint", "77 on h, updated 15 min ago");
}

#[tokio::test]
async fn a_table_that_is_locked_is_not_waited_for() {
    let clinic = migrated().await;
    let mut holder = PgConnection::connect(clinic.var("DATABASE_URL")).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE firehose_cursor, penstock.checkpoint").await.unwrap();
    let report = clinic.examine().await;
    report.says(Level::Note, "postgres.unseen", "firehose_cursor");
    assert!(report.has("schema"), "{report:?}");
    holder.execute("ROLLBACK").await.unwrap();
}

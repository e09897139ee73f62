//! What PostgreSQL tells: each question in a read-only transaction of its own, so that one that is refused spoils no other.

use std::time::Duration;

use penstock_core::settings::PostgresUrl;
use penstock_postgres::Address;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, FromRow, Row};
use tokio::time::{sleep, timeout};

use super::QUESTION;
use crate::appview::TABLES;
use crate::seen::{CheckpointRow, CursorRow, Facts, PostgresSeen, Sessions, Side};
use crate::text;

/// Nothing is written, nothing waits; `SET LOCAL` because a pooler may lend the session to others afterwards.
const BEGIN: &str = "\
BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '1s'; SET LOCAL client_min_messages = warning";

/// What the role and the database set for a session, before anything of ours.
const SETTINGS: &str = "\
SELECT name, coalesce(reset_val, '') FROM pg_settings WHERE name IN (
  'server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'statement_timeout', 'lock_timeout',
  'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout', 'default_transaction_read_only',
  'default_transaction_isolation', 'search_path', 'max_connections', 'session_replication_role')";

const FACTS: &str = "\
SELECT current_database()::text AS database, pg_encoding_to_char(d.encoding)::text AS encoding, current_user::text AS role,
  pg_is_in_recovery() AS recovery, current_schemas(false)::text[] AS search_path, inet_server_port() AS port,
  least(current_setting('max_connections')::bigint
      - CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::bigint END,
    CASE WHEN r.rolconnlimit < 0 THEN 1000000 ELSE r.rolconnlimit END,
    CASE WHEN d.datconnlimit < 0 OR r.rolsuper THEN 1000000 ELSE d.datconnlimit END)::bigint AS max_connections,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NULL OR backend_type = 'client backend') AS connections,
  coalesce((SELECT max(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()), 0)::bigint AS longest_transaction,
  (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') AS waiting,
  age(d.datfrozenxid)::bigint AS transaction_age, has_database_privilege(d.oid, 'CREATE') AS may_create_schema
  FROM pg_database AS d, pg_roles AS r WHERE d.datname = current_database() AND r.rolname = current_user";

const SIZE: &str = "SELECT pg_database_size(current_database())";

/// The last statement of each session tells what a program does; it is not shown, because it may hold anything.
const SESSIONS: &str = r#"
SELECT coalesce(application_name, ''), coalesce(host(client_addr), 'local'), count(*),
  coalesce(array_agg(DISTINCT lower(into_table)) FILTER (WHERE into_table IS NOT NULL), '{}')::text[],
  bool_or(query ~ 'pg_advisory_unlock_all' AND query ~ 'UNLISTEN'), bool_or(query = '<insufficient privilege>')
FROM (SELECT application_name, client_addr, coalesce(query, '') AS query,
        substring(query FROM '(?i)^\s*insert\s+into\s+(?:"?public"?\.)?"?([a-z_]+)') AS into_table
        FROM pg_stat_activity
       WHERE datname = current_database() AND application_name <> 'penstock-doctor' AND (backend_type IS NULL OR backend_type = 'client backend')) AS s
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 200"#;

const PUBLIC: &str = "\
SELECT c.relname::text, array_remove(array_agg(a.attname::text), NULL) FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = c.oid AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')
 GROUP BY 1";

const OURS: &str = "\
SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'penstock' AND c.relkind IN ('r', 'p')";

const DIRTY: &str = "SELECT version FROM penstock.migrations WHERE NOT success";

/// Statements name their conflicts by these columns: without the unique index they fail.
const KEYS: &str = "\
SELECT w.name || ' (' || w.key || ')' FROM unnest($1::text[], $2::text[]) AS w (name, key)
 WHERE to_regclass('public.' || w.name) IS NOT NULL AND NOT EXISTS (
   SELECT FROM pg_index AS i WHERE i.indrelid = to_regclass('public.' || w.name) AND i.indisunique AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute AS a
            WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
        = (SELECT array_agg(part ORDER BY part) FROM unnest(string_to_array(w.key, ', ')) AS part))";

const INVALID: &str = "\
SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND n.nspname IN ('public', 'penstock')";

const RIGHTS: &str = "\
SELECT privilege || ' on ' || name FROM (
  SELECT n.nspname || '.' || c.relname AS name, privilege, has_table_privilege(c.oid, privilege) AS has
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
   WHERE c.relkind IN ('r', 'p') AND (n.nspname = 'penstock' OR (n.nspname = 'public' AND c.relname = ANY ($1)))
  UNION ALL SELECT 'schema ' || n.nspname, 'USAGE', has_schema_privilege(n.oid, 'USAGE')
    FROM pg_namespace AS n WHERE n.nspname IN ('public', 'penstock')) AS r
 WHERE NOT has ORDER BY 1 LIMIT 50";

/// What a migration would change, and only its owner may.
const OWNED: &str = "\
SELECT DISTINCT n.nspname || '.' || c.relname || ' (' || pg_get_userbyid(c.relowner) || ')' FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT pg_has_role(current_user, c.relowner, 'USAGE') AND (n.nspname = 'penstock'
    OR (n.nspname = 'public' AND (c.relname LIKE 'penstock\\_%' OR EXISTS (SELECT FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attname = 'entry_id' AND NOT a.attisdropped)))) LIMIT 50";

const CURSORS: &str = "\
SELECT service::text, cursor, greatest(extract(epoch FROM (now() AT TIME ZONE 'UTC') - updated_at), 0)::float8
  FROM public.firehose_cursor ORDER BY service LIMIT 20";

const CHECKPOINTS: &str = "\
SELECT host, seq, stream_id, greatest(extract(epoch FROM (now() AT TIME ZONE 'UTC') - updated_at), 0)::float8
  FROM penstock.checkpoint ORDER BY updated_at DESC LIMIT 20";

const INCARNATION: &str = "SELECT value FROM penstock.meta WHERE key = 'incarnation'";

const DESYNCHRONIZED: &str = "SELECT count(*), min(did) FROM penstock.repos WHERE sync IS NOT NULL";

const SLOTS: &str = "\
SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, active
  FROM pg_replication_slots WHERE restart_lsn IS NOT NULL AND NOT pg_is_in_recovery()";

const ARCHIVE: &str = "\
SELECT current_setting('archive_mode') <> 'off' AND last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver";

/// Asks PostgreSQL.
struct Questions<'a> {
    conn: PgConnection,
    /// Whether workers write the message system's table too.
    messages: bool,
    unseen: &'a mut Vec<(String, String)>,
}

/// Returns the port of an address.
pub(super) fn port(url: &PostgresUrl) -> Option<u16> {
    url.parts().servers.first().map(|server| server.port)
}

/// Looks at PostgreSQL.
pub(super) async fn look(address: &Address, messages: bool, pause: Duration, side: &mut Side<PostgresSeen>) {
    // Statements without a name: a pooler may give each transaction another session.
    let address = address.clone().named("penstock-doctor").statements(0);
    let (conn, second) = match connect(&address).await {
        Ok(conn) => (conn, connect(&address).await.ok()),
        Err(error) => {
            side.error = Some(error);
            return;
        }
    };
    let mut questions = Questions { conn, messages, unseen: &mut side.unseen };
    if let Err(error) = questions.all(second, pause, &mut side.seen).await {
        side.error = Some(error);
    }
    let _ = timeout(QUESTION, questions.conn.close()).await;
}

async fn connect(address: &Address) -> Result<PgConnection, String> {
    match timeout(2 * QUESTION, address.connect()).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(text::error(&error)),
        Err(_) => Err(format!("no reply within {} s", 2 * QUESTION.as_secs())),
    }
}

// === impl Questions ===

impl Questions<'_> {
    async fn all(
        &mut self,
        second: Option<PgConnection>,
        pause: Duration,
        seen: &mut PostgresSeen,
    ) -> Result<(), String> {
        self.server(second, seen).await?;
        self.schema(seen).await?;
        seen.cursors = self.cursors(seen).await?;
        if seen.ours.contains("checkpoint") {
            let rows: Vec<(String, i64, String, f64)> = self.rows("penstock.checkpoint", CHECKPOINTS, &[]).await?;
            seen.checkpoints = rows
                .into_iter()
                .map(|(host, seq, stream_id, age)| CheckpointRow {
                    host,
                    seq: u64::try_from(seq).unwrap_or_default(),
                    stream_id: stream_id.parse().ok(),
                    age: seconds(age),
                })
                .collect();
        }
        if seen.ours.contains("repos") {
            let found: Vec<(i64, Option<String>)> = self.rows("penstock.repos", DESYNCHRONIZED, &[]).await?;
            seen.desynchronized = found.into_iter().next();
        }
        if seen.ours.contains("meta") {
            let found: Vec<(String,)> = self.rows("penstock.meta", INCARNATION, &[]).await?;
            seen.incarnation = found.into_iter().next().map(|(value,)| value);
        }
        if seen.ingestion_cursor().is_some() {
            sleep(pause).await;
            let before = seen.ingestion_cursor().and_then(|row| row.cursor.clone());
            let later = self.cursors(seen).await?;
            let later = later.into_iter().find(|row| row.service == "firehose").and_then(|row| row.cursor);
            seen.cursor_moved = later != before;
        }
        Ok(())
    }

    async fn server(&mut self, second: Option<PgConnection>, seen: &mut PostgresSeen) -> Result<(), String> {
        let version: Vec<(i32,)> =
            self.rows("server version", "SELECT current_setting('server_version_num')::int", &[]).await?;
        seen.version = version.first().map(|(version,)| *version).unwrap_or_default();
        let settings: Vec<(String, String)> = self.rows("server settings (pg_settings)", SETTINGS, &[]).await?;
        seen.settings = settings.into_iter().collect();
        let facts: Vec<Facts> = self.rows("server, database and role", FACTS, &[]).await?;
        seen.facts = facts.into_iter().next().unwrap_or_default();
        let size: Vec<(i64,)> = self.rows("database size", SIZE, &[]).await?;
        seen.facts.size = size.first().map(|(size,)| *size).unwrap_or_default();
        if let Some(mut second) = second {
            // Idle both of them: whoever lends sessions by the transaction gives the one that was given back last.
            let pid = "SELECT pg_backend_pid()";
            let one: Vec<(i32,)> = self.rows("backend pid", pid, &[]).await?;
            let other = timeout(QUESTION, async {
                let mut transaction = second.begin().await?;
                let pid = sqlx::query_as::<_, (i32,)>(pid).persistent(false).fetch_one(&mut *transaction).await?;
                transaction.rollback().await?;
                Ok::<_, sqlx::Error>(pid)
            });
            let other = other.await;
            seen.shared_session = matches!((one.first(), &other), (Some(one), Ok(Ok(other))) if one == other);
            if seen.shared_session {
                let checked = penstock_worker::check_statements(&mut self.conn, &mut second).await;
                seen.confused_statements = checked.err().map(|error| text::error(&error));
            }
            let _ = timeout(QUESTION, second.close()).await;
        }
        type Session = (String, String, i64, Vec<String>, Option<bool>, Option<bool>);
        let sessions: Vec<Session> = self.rows("sessions (pg_stat_activity)", SESSIONS, &[]).await?;
        seen.sessions = sessions
            .into_iter()
            .map(|(application, address, count, inserts, python, hidden)| Sessions {
                application,
                address,
                count,
                inserts,
                python: python.unwrap_or_default(),
                hidden: hidden.unwrap_or_default(),
            })
            .collect();
        seen.slots = self.rows("replication slots", SLOTS, &[]).await?;
        let archive: Vec<(Option<bool>,)> = self.rows("archiver", ARCHIVE, &[]).await?;
        seen.archive_failing = archive.first().and_then(|(failing,)| *failing);
        Ok(())
    }

    async fn schema(&mut self, seen: &mut PostgresSeen) -> Result<(), String> {
        let public: Vec<(String, Vec<String>)> = self.rows("tables in public", PUBLIC, &[]).await?;
        seen.public = public.into_iter().map(|(name, columns)| (name, columns.into_iter().collect())).collect();
        let ours: Vec<(String,)> = self.rows("tables in penstock", OURS, &[]).await?;
        seen.ours = ours.into_iter().map(|(name,)| name).collect();
        if seen.ours.contains("migrations") {
            let dirty: Vec<(i64,)> = self.rows("penstock.migrations", DIRTY, &[]).await?;
            seen.dirty = dirty.into_iter().map(|(version,)| version).collect();
        }
        let (names, keys): (Vec<_>, Vec<_>) = TABLES
            .iter()
            .flat_map(|table| table.keys.iter().map(move |key| (table.name.to_owned(), (*key).to_owned())))
            .unzip();
        let written: Vec<String> =
            TABLES.iter().filter(|table| table.name != "firehose_cursor").map(|table| table.name.to_owned()).collect();
        let one = |rows: Vec<(String,)>| rows.into_iter().map(|(text,)| text).collect();
        seen.missing_keys = one(self.rows("unique indexes", KEYS, &[&names, &keys]).await?);
        seen.invalid_indexes = one(self.rows("invalid indexes", INVALID, &[]).await?);
        seen.missing_rights = one(self.rows("privileges", RIGHTS, &[&written]).await?);
        seen.foreign_owned = one(self.rows("table owners", OWNED, &[]).await?);
        seen.lacks = self.lacks().await?;
        Ok(())
    }

    /// What a worker would miss, by its own measure.
    async fn lacks(&mut self) -> Result<Option<Vec<String>>, String> {
        self.begin().await?;
        let lacks = timeout(QUESTION, penstock_worker::schema::lacks(&mut self.conn, self.messages)).await;
        self.end().await?;
        match lacks {
            Ok(Ok(lacks)) => Ok(Some(lacks)),
            Ok(Err(error)) => {
                self.unseen.push(("missing tables and columns".to_owned(), text::error(&error)));
                Ok(None)
            }
            Err(_) => Err(late("missing tables and columns")),
        }
    }

    async fn cursors(&mut self, seen: &PostgresSeen) -> Result<Vec<CursorRow>, String> {
        if !seen.public.contains_key("firehose_cursor") {
            return Ok(Vec::new());
        }
        let rows: Vec<(String, Option<String>, f64)> = self.rows("firehose_cursor", CURSORS, &[]).await?;
        Ok(rows.into_iter().map(|(service, cursor, age)| CursorRow { service, cursor, age: seconds(age) }).collect())
    }

    /// Asks one question; empty where it was refused, an error where nobody answers any more.
    async fn rows<T>(&mut self, what: &str, sql: &'static str, lists: &[&Vec<String>]) -> Result<Vec<T>, String>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.begin().await?;
        let query =
            lists.iter().fold(sqlx::query_as::<_, T>(sql).persistent(false), |query, list| query.bind((*list).clone()));
        let answer = timeout(QUESTION, query.fetch_all(&mut self.conn)).await;
        match answer {
            Ok(Ok(rows)) => {
                self.end().await?;
                Ok(rows)
            }
            Ok(Err(error)) if error.as_database_error().is_some() => {
                let said = text::error(&error);
                if !self.unseen.iter().any(|(seen, _)| seen == what) {
                    self.unseen.push((what.to_owned(), said.clone()));
                }
                // A server that shuts down says so before it goes: then this fails, and ends the side.
                self.end().await.map_err(|_| format!("could not read {what}: {said}"))?;
                Ok(Vec::new())
            }
            Ok(Err(error)) => Err(format!("could not read {what}: {}", text::error(&error))),
            Err(_) => Err(late(what)),
        }
    }

    async fn begin(&mut self) -> Result<(), String> {
        self.say(BEGIN).await
    }

    async fn end(&mut self) -> Result<(), String> {
        self.say("ROLLBACK").await
    }

    async fn say(&mut self, sql: &'static str) -> Result<(), String> {
        match timeout(QUESTION, self.conn.execute(sql)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(text::error(&error)),
            Err(_) => Err(late("a transaction")),
        }
    }
}

// === impl Facts ===

impl FromRow<'_, PgRow> for Facts {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            database: row.try_get("database")?,
            encoding: row.try_get("encoding")?,
            size: 0,
            role: row.try_get("role")?,
            recovery: row.try_get("recovery")?,
            search_path: row.try_get("search_path")?,
            max_connections: row.try_get("max_connections")?,
            connections: row.try_get("connections")?,
            port: row.try_get("port")?,
            longest_transaction: row.try_get("longest_transaction")?,
            transaction_age: row.try_get("transaction_age")?,
            waiting: row.try_get("waiting")?,
            may_create_schema: row.try_get("may_create_schema")?,
        })
    }
}

fn late(what: &str) -> String {
    format!("no reply for {what} within {} s", QUESTION.as_secs())
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

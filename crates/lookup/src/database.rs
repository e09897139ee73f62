//! What PostgreSQL holds of a repo: one transaction of statements that each find their rows through an index.

use data_encoding::HEXLOWER;
use penstock_postgres::Pool;
use penstock_postgres::schema::qualifier;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::asked::RecordPath;
use crate::report::{
    ClaimRow, Collection, Held, IdentityRow, Letter, Place, RecordRows, RepairRow, RepoRow, Shadow, tid_time,
};
use crate::tables::{GENERIC, Owner, PROFILE, TABLES, Table};

/// Up to how many rows of a collection are counted.
const MOST_ROWS: i64 = 10_000;

/// How many letters are looked at.
pub(crate) const MOST_LETTERS: usize = 20;

/// The longest URI that columns take; a longer one has a digest for a key.
const LONGEST_URI: usize = 512;

/// An index is used however the planner estimates; what is slow all the same ends.
const SETTINGS: &str = "SELECT set_config('enable_seqscan', 'off', true), set_config('statement_timeout', '4s', true)";

const REPO: &str = "\
SELECT rev, encode(root, 'hex') AS root, active, status, handle, sync, ms(sync_at) AS sync_at, identity_entry, account_entry,
  deleted_through, swept_through, coalesce(forbidden, false) AS forbidden FROM penstock.repos WHERE did = $1";

const IDENTITY: &str = "\
SELECT host, handle, handle_valid, ms(handle_checked_at) AS checked_at, ms(fetched_at) AS fetched_at, stale, error
FROM penstock.identities WHERE did = $1";

const CLAIM: &str = "\
SELECT status, ms(since) AS since, ms(due) AS due, ms(confirmed_at) AS confirmed_at, error FROM penstock.account_claims WHERE did = $1";

const REPAIR: &str = "\
SELECT reason, priority, ms(due) AS due, attempts, coalesce(lease > now(), false) AS running, error, ms(created_at) AS since
FROM penstock.repairs WHERE did = $1";

const SINCE: &str = "SELECT value::bigint AS since FROM penstock.meta WHERE key = 'created_at'";

const LETTERS: &str = "\
SELECT orig_id, kind, left(error, 500) AS error, ms(created_at) AS at,
  $2 <> '' AND (position(convert_to($2 || '\"', 'UTF8') IN data) > 0 OR strpos(error, $2) > 0) AS names
FROM penstock.dead_letters WHERE left(repo, 512) = left($1, 512) AND repo = $1 AND settled_at IS NULL ORDER BY created_at DESC, orig_id DESC LIMIT 21";

const TOMBSTONE: &str = "SELECT commit_rev AS rev, entry_id AS entry FROM penstock.tombstones WHERE uri = $1";

const WIDE: &str = "\
SELECT cid, commit_rev AS rev, entry_id AS entry, ms(indexed_at) AS indexed_at FROM penstock.records WHERE key = $1 AND did = $2";

const SHADOW: &str = "SELECT kind, key_a, key_b, commit_rev AS rev FROM penstock.shadowed WHERE uri = $1";

/// Reads what is held of a repo, and of a record of it.
pub(crate) async fn held(pool: &Pool, did: &str, path: Option<&RecordPath>) -> sqlx::Result<Held> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let schema = begin(&mut tx).await?;
    let since = one(&mut tx, SINCE, &[]).await?;
    let mut held = Held {
        repo: one(&mut tx, REPO, &[did]).await?.as_ref().map(repo).transpose()?,
        identity: one(&mut tx, IDENTITY, &[did]).await?.as_ref().map(identity).transpose()?,
        claim: one(&mut tx, CLAIM, &[did]).await?.as_ref().map(claim).transpose()?,
        repair: one(&mut tx, REPAIR, &[did]).await?.as_ref().map(repair).transpose()?,
        since: since.map(|row| row.try_get("since")).transpose()?.flatten(),
        ..Held::default()
    };
    (held.collections, held.more_collections) = collections(&mut tx, &schema, did).await?;
    if let Some(path) = path {
        held.record = Some(record(&mut tx, &schema, did, path).await?);
    }
    tx.rollback().await?;
    Ok(held)
}

/// Reads the letters of a repo that nobody has settled, the newest first, one more than are told where there are more.
pub(crate) async fn letters(pool: &Pool, did: &str, path: Option<&RecordPath>) -> sqlx::Result<Vec<Letter>> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    begin(&mut tx).await?;
    let path = path.map(ToString::to_string).unwrap_or_default();
    let rows = query(LETTERS, &[did, &path]).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    rows.iter()
        .map(|row| {
            let id: String = row.try_get("orig_id")?;
            Ok(Letter {
                source: "postgres",
                orig_id: id.clone(),
                id,
                at: row.try_get("at")?,
                kind: row.try_get("kind")?,
                error: row.try_get("error")?,
                names_record: row.try_get("names")?,
            })
        })
        .collect()
}

/// Returns the account that a handle belongs to by the last event, or by its document.
pub(crate) async fn account_of(pool: &Pool, handle: &str) -> sqlx::Result<Option<String>> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let schema = begin(&mut tx).await?;
    let row = one(&mut tx, &account_statement(&schema), &[handle]).await?;
    tx.rollback().await?;
    row.map(|row| row.try_get("did")).transpose()
}

/// Begins: the schema of the AppView's tables, as it stands before their names.
async fn begin(conn: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::raw_sql(SETTINGS).execute(&mut *conn).await?;
    qualifier(conn).await
}

fn query<'q>(
    statement: &str,
    values: &'q [&'q str],
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    // Not kept prepared: a plan would outlive the tables that it was made for.
    let statement = AssertSqlSafe(in_ms(statement));
    values.iter().fold(sqlx::query(statement).persistent(false), |query, value| query.bind(*value))
}

/// Writes out `ms(time)`: epoch milliseconds.
fn in_ms(statement: &str) -> String {
    let mut written = String::with_capacity(statement.len() + 64);
    let mut rest = statement;
    while let Some((before, after)) = rest.split_once("ms(") {
        let end = match_end(after);
        written.push_str(before);
        written.push_str("(extract(epoch FROM ");
        written.push_str(after.get(..end).unwrap_or_default());
        written.push_str(") * 1000)::bigint");
        rest = after.get(end + 1..).unwrap_or_default();
    }
    written.push_str(rest);
    written
}

/// Where the parenthesis ends that has just begun.
fn match_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

async fn one(conn: &mut PgConnection, statement: &str, values: &[&str]) -> sqlx::Result<Option<PgRow>> {
    query(statement, values).fetch_optional(conn).await
}

fn repo(row: &PgRow) -> sqlx::Result<RepoRow> {
    let rev: Option<String> = row.try_get("rev")?;
    let (deleted, swept): (Option<String>, Option<String>) =
        (row.try_get("deleted_through")?, row.try_get("swept_through")?);
    Ok(RepoRow {
        rev_at: rev.as_deref().and_then(tid_time),
        rev,
        root: row.try_get::<Option<String>, _>("root")?.filter(|root| !root.is_empty()),
        active: row.try_get("active")?,
        status: row.try_get("status")?,
        handle: row.try_get("handle")?,
        sync: row.try_get("sync")?,
        sync_at: row.try_get("sync_at")?,
        identity_at: entry_time(row.try_get("identity_entry")?),
        account_at: entry_time(row.try_get("account_entry")?),
        sweeping: deleted.is_some() && swept < deleted,
        deleted_through: entry_time(deleted),
        opted_out: row.try_get("forbidden")?,
    })
}

fn identity(row: &PgRow) -> sqlx::Result<IdentityRow> {
    Ok(IdentityRow {
        host: row.try_get("host")?,
        handle: row.try_get("handle")?,
        handle_valid: row.try_get("handle_valid")?,
        handle_checked_at: row.try_get("checked_at")?,
        fetched_at: row.try_get("fetched_at")?,
        stale: row.try_get("stale")?,
        error: row.try_get("error")?,
    })
}

fn claim(row: &PgRow) -> sqlx::Result<ClaimRow> {
    Ok(ClaimRow {
        status: row.try_get("status")?,
        since: row.try_get("since")?,
        due: row.try_get("due")?,
        confirmed_at: row.try_get("confirmed_at")?,
        error: row.try_get("error")?,
    })
}

fn repair(row: &PgRow) -> sqlx::Result<RepairRow> {
    Ok(RepairRow {
        reason: row.try_get("reason")?,
        priority: row.try_get("priority")?,
        due: row.try_get("due")?,
        attempts: row.try_get("attempts")?,
        running: row.try_get("running")?,
        error: row.try_get("error")?,
        since: row.try_get("since")?,
    })
}

/// Counts the rows of an account by collection, each up to a bound; says whether there may be other collections.
async fn collections(conn: &mut PgConnection, schema: &str, did: &str) -> sqlx::Result<(Vec<Collection>, bool)> {
    let rows = query(&counting(schema), &[did]).fetch_all(&mut *conn).await?;
    let mut collections = Vec::new();
    for row in rows {
        let rows: i64 = row.try_get("rows")?;
        let counted = Collection {
            collection: row.try_get("collection")?,
            table: row.try_get("name")?,
            rows: rows.min(MOST_ROWS).unsigned_abs(),
            more: rows > MOST_ROWS,
        };
        if rows > 0 {
            collections.push(counted);
        }
    }
    // Of generic records so many are looked at, whatever their collections are.
    let grouped = |table: &str| -> u64 {
        let of_table = collections.iter().filter(|counted| counted.table == table);
        of_table.map(|counted| counted.rows).sum()
    };
    let full = MOST_ROWS.unsigned_abs();
    let more = [GENERIC, "penstock.records", "penstock.shadowed"].into_iter().any(|table| grouped(table) >= full);
    collections.sort_by(|one, other| (&one.collection, &one.table).cmp(&(&other.collection, &other.table)));
    Ok((collections, more))
}

/// Writes the statement that counts.
fn counting(schema: &str) -> String {
    let bound = MOST_ROWS + 1;
    let mut parts: Vec<String> = TABLES
        .iter()
        .map(|Table { collection, name, owner, .. }| {
            let found = match owner {
                Owner::Column(column) => format!("{schema}.{name} WHERE {column} = $1"),
                // A slash is followed by a nought.
                Owner::Guards => format!(
                    "penstock.stamps WHERE uri >= 'at://' || $1 || '/{collection}/' AND uri < 'at://' || $1 || '/{collection}0'"
                ),
            };
            format!(
                "SELECT '{collection}' AS collection, '{name}' AS name, (SELECT count(*) FROM (SELECT FROM {found} LIMIT {bound}) AS u) AS rows"
            )
        })
        .collect();
    parts.push(format!(
        "SELECT '{PROFILE}', 'users', (SELECT count(*) FROM {schema}.users WHERE did = $1 AND profile_record IS NOT NULL)"
    ));
    for (column, table, owner) in [
        ("record_type", &*format!("{schema}.{GENERIC}"), "author_did"),
        ("collection", "penstock.records", "did"),
        ("split_part(uri, '/', 4)", "penstock.shadowed", "repo"),
    ] {
        let name = if table.ends_with(GENERIC) { GENERIC } else { table };
        parts.push(format!(
            "SELECT * FROM (SELECT u.c, '{name}', count(*) FROM (SELECT {column} AS c FROM {table} WHERE {owner} = $1 \
             LIMIT {MOST_ROWS}) AS u GROUP BY 1 ORDER BY 3 DESC LIMIT 100) AS v"
        ));
    }
    parts.join(" UNION ALL ")
}

/// Reads where a record stands.
async fn record(conn: &mut PgConnection, schema: &str, did: &str, path: &RecordPath) -> sqlx::Result<RecordRows> {
    let uri = path.uri(did);
    let key = if uri.len() <= LONGEST_URI {
        uri.clone()
    } else {
        format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(uri.as_bytes())))
    };
    let mut rows = RecordRows::default();
    if let Some(table) = Table::of(&path.collection) {
        rows.row = row(conn, schema, table, &table.key_of(did, &path.rkey), &uri).await?;
    } else if path.collection == PROFILE {
        rows.row = profile(conn, schema, did, &path.rkey).await?;
    }
    if rows.row.is_none() {
        let generic = Table { collection: "", name: GENERIC, ..TABLES[6] };
        rows.row = row(conn, schema, &generic, &uri, &uri).await?;
    }
    rows.wide =
        one(conn, WIDE, &[&key, did]).await?.as_ref().map(|row| place(row, "penstock.records", true)).transpose()?;
    if let Some(waiting) = one(conn, SHADOW, &[&uri]).await? {
        rows.shadow = Some(shadow(conn, schema, &waiting).await?);
    }
    let tombstone = one(conn, TOMBSTONE, &[&key]).await?;
    rows.tombstone = tombstone.as_ref().map(|row| place(row, "penstock.tombstones", false)).transpose()?;
    Ok(rows)
}

/// Reads the row that was made of a record.
async fn row(
    conn: &mut PgConnection,
    schema: &str,
    table: &Table,
    key: &str,
    uri: &str,
) -> sqlx::Result<Option<Place>> {
    let statement = row_statement(schema, table);
    one(conn, &statement, &[key, uri]).await?.as_ref().map(|row| place(row, table.name, true)).transpose()
}

/// Writes the statement that finds a row.
fn row_statement(schema: &str, table: &Table) -> String {
    let Table { name, key: column, has_guard, .. } = table;
    // Not every table has every column.
    let guard = if *has_guard {
        "(SELECT row.json AS guard) AS s"
    } else {
        "(SELECT to_jsonb(s) AS guard FROM penstock.stamps AS s WHERE s.uri = $2) AS s"
    };
    let entry = if *has_guard { "commit_seq" } else { "entry_id" };
    format!(
        "SELECT json ->> 'cid' AS cid, guard ->> 'commit_rev' AS rev, guard ->> '{entry}' AS entry, \
           ms((coalesce(json ->> 'indexed_at', json ->> 'created_at'))::timestamp) AS indexed_at, $2 AS uri \
         FROM (SELECT to_jsonb(kept) AS json FROM {schema}.{name} AS kept WHERE kept.{column} = $1) AS row LEFT JOIN LATERAL {guard} ON true"
    )
}

/// Reads the row of an account, where its profile stands.
async fn profile(conn: &mut PgConnection, schema: &str, did: &str, rkey: &str) -> sqlx::Result<Option<Place>> {
    if rkey != "self" {
        return Ok(None);
    }
    let statement = profile_statement(schema);
    one(conn, &statement, &[did]).await?.as_ref().map(|row| place(row, "users", true)).transpose()
}

fn profile_statement(schema: &str) -> String {
    format!(
        "SELECT NULL AS cid, r.profile_rev AS rev, r.profile_entry AS entry, ms(u.indexed_at) AS indexed_at FROM {schema}.users AS u \
         LEFT JOIN penstock.repos AS r ON r.did = $1 WHERE u.did = $1 AND u.profile_record IS NOT NULL"
    )
}

fn account_statement(schema: &str) -> String {
    format!("SELECT did FROM {schema}.users WHERE handle = $1 ORDER BY indexed_at DESC, did LIMIT 1")
}

/// Reads which record holds the place that another one waits for.
async fn shadow(conn: &mut PgConnection, schema: &str, waiting: &PgRow) -> sqlx::Result<Shadow> {
    let kind: String = waiting.try_get("kind")?;
    let (a, b): (String, String) = (waiting.try_get("key_a")?, waiting.try_get("key_b")?);
    let mut shadow = Shadow { table: kind.clone(), rev: waiting.try_get("rev")?, ..Shadow::default() };
    let Some((table, (first, second))) = Table::named(&kind).and_then(|table| Some((table, table.pair?))) else {
        return Ok(shadow);
    };
    let found = holder_statement(schema, table, (first, second));
    if !first.is_empty() {
        shadow.place.push((first.to_owned(), a.clone()));
    }
    shadow.place.push((second.to_owned(), b.clone()));
    shadow.holder = one(conn, &found, &[&a, &b]).await?.map(|row| row.try_get("uri")).transpose()?;
    Ok(shadow)
}

/// Writes the statement that finds the row with these columns.
fn holder_statement(schema: &str, table: &Table, (first, second): (&str, &str)) -> String {
    let first = if first.is_empty() { "$1" } else { first };
    format!("SELECT uri FROM {schema}.{} WHERE {first} = $1 AND {second} = $2", table.name)
}

fn place(row: &PgRow, table: &str, is_row: bool) -> sqlx::Result<Place> {
    let rev: Option<String> = row.try_get("rev")?;
    Ok(Place {
        table: table.to_owned(),
        cid: if is_row { row.try_get("cid")? } else { None },
        rev_at: rev.as_deref().and_then(tid_time),
        rev,
        entry_at: entry_time(row.try_get("entry")?),
        indexed_at: if is_row { row.try_get("indexed_at")? } else { None },
    })
}

/// When an entry was put into the stream, by what is kept of its ID.
fn entry_time(entry: Option<String>) -> Option<i64> {
    let entry = entry?;
    let (ms, _) = entry.trim_start_matches('!').split_once('-')?;
    ms.parse().ok().filter(|ms| *ms > 0)
}

/// Every statement that finds something of one account, to look at their plans.
#[cfg(test)]
pub(crate) fn statements(schema: &str) -> Vec<String> {
    let mut statements: Vec<String> =
        [REPO, IDENTITY, CLAIM, REPAIR, LETTERS, TOMBSTONE, WIDE, SHADOW].into_iter().map(in_ms).collect();
    statements.push(counting(schema));
    let generic = Table { collection: "", name: GENERIC, ..TABLES[6] };
    statements.extend(TABLES.iter().chain([&generic]).map(|table| in_ms(&row_statement(schema, table))));
    statements.extend(TABLES.iter().filter_map(|table| Some(holder_statement(schema, table, table.pair?))));
    statements.push(in_ms(&profile_statement(schema)));
    statements.push(account_statement(schema));
    statements
}

/// What PostgreSQL refused, and what to do.
pub(crate) fn told(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("42P01" | "42703" | "3F000") => {
            format!("the database lacks a table or column of this version, run penstock migrate ({error})")
        }
        Some("57014") => "postgresql took too long".to_owned(),
        _ => format!("postgresql does not answer ({})", penstock_core::causes::said(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_out_with_their_parentheses() {
        assert_eq!(
            in_ms("SELECT ms(a), ms((b)::timestamp) AS c"),
            "SELECT (extract(epoch FROM a) * 1000)::bigint, (extract(epoch FROM (b)::timestamp) * 1000)::bigint AS c"
        );
    }

    #[test]
    fn the_time_of_an_entry_is_that_of_its_id_whoever_wrote_it() {
        for (entry, at) in [
            (Some("1782000000000-000003:26512345678"), Some(1_782_000_000_000)),
            (Some("!1782000000000-000003"), Some(1_782_000_000_000)),
            (Some("1782000000000-5"), Some(1_782_000_000_000)),
            (Some("26512345678"), None),
            (Some("~000000000000z-000001"), None),
            (None, None),
        ] {
            assert_eq!(entry_time(entry.map(str::to_owned)), at, "{entry:?}");
        }
    }
}

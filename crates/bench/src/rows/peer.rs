//! The peer of the worker: plain statements that write the same rows, and know of no order, repeat or repo.

use std::time::{Duration, Instant};

use penstock_local::testing::TestPostgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::error::Error;

/// How many rows were written in how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) rows: u64,
    pub(crate) took: Duration,
}

/// One table, its rows waiting in `staging`.
struct Staged {
    insert: String,
    rows: i64,
}

/// Which tables' rows are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tables {
    /// Those of the AppView: what a plain writer, who keeps no promise, would write.
    AppView,
    /// Penstock's own too: what it keeps to be able to keep its promises.
    All,
    /// This one alone.
    One(&'static str),
}

/// The AppView's tables and ours; one that refers to another comes after it.
const TABLES: &str = "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class AS t \
    WHERE relnamespace::regnamespace::text IN ('public', 'penstock') AND relkind = 'r' \
    ORDER BY EXISTS (SELECT FROM pg_constraint AS c WHERE c.conrelid = t.oid AND c.contype = 'f'), 1";

const COLUMNS: &str = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
    WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped";

/// Writes the rows that stand in a database anew: into empty tables of the same shape, from unlogged tables that hold them in
/// the order in which they lay, in so many transactions on one connection.
pub(crate) async fn plain(
    postgres: &TestPostgres,
    database: &str,
    transactions: u64,
    tables: Tables,
) -> Result<Rows, Error> {
    let copy = format!("{database}_plain");
    execute(&mut connect(&postgres.url()).await?, format!("CREATE DATABASE {copy} TEMPLATE {database}")).await?;
    let mut connection = connect(&postgres.url_for(&copy)).await?;
    let tables = stage(&mut connection, tables).await?;
    checkpoint(postgres).await?;
    let started = Instant::now();
    for transaction in 0..transactions {
        write(&mut connection, &tables, transaction, transactions).await.map_err(failed("write plain rows"))?;
    }
    let took = started.elapsed();
    connection.close().await.map_err(failed("leave the database"))?;
    drop_database(postgres, &copy).await?;
    Ok(Rows { rows: tables.iter().map(|table| table.rows.unsigned_abs()).sum(), took })
}

/// Writes everything out, so that no measurement pays for the one before.
pub(crate) async fn checkpoint(postgres: &TestPostgres) -> Result<(), Error> {
    execute(&mut connect(&postgres.url()).await?, "CHECKPOINT".to_owned()).await
}

pub(crate) async fn drop_database(postgres: &TestPostgres, database: &str) -> Result<(), Error> {
    execute(&mut connect(&postgres.url()).await?, format!("DROP DATABASE {database} WITH (FORCE)")).await
}

/// Moves the rows aside, and leaves empty tables.
async fn stage(connection: &mut PgConnection, wanted: Tables) -> Result<Vec<Staged>, Error> {
    execute(connection, "CREATE SCHEMA staging".to_owned()).await?;
    let tables: Vec<String> =
        sqlx::query_scalar(TABLES).fetch_all(&mut *connection).await.map_err(failed("list the tables"))?;
    let mut staged = Vec::new();
    let tables: Vec<_> = tables.into_iter().filter(|table| wanted.hold(table)).collect();
    for table in &tables {
        let staging = format!("staging.{}", table.replace('.', "_"));
        let rows = format!("SELECT row_number() OVER (ORDER BY ctid) AS staging_row, t.* FROM {table} t");
        execute(connection, format!("CREATE UNLOGGED TABLE {staging} AS {rows}")).await?;
        execute(connection, format!("ALTER TABLE {staging} ADD PRIMARY KEY (staging_row)")).await?;
        execute(connection, format!("ANALYZE {staging}")).await?;
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {staging}"));
        let rows: i64 =
            sqlx::query_scalar(count).fetch_one(&mut *connection).await.map_err(failed("count the rows"))?;
        let columns: String = sqlx::query_scalar(COLUMNS)
            .bind(table)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("list the columns"))?;
        if rows > 0 {
            let insert = format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} WHERE staging_row > $1 AND staging_row <= $2"
            );
            staged.push(Staged { insert, rows });
        }
    }
    execute(connection, format!("TRUNCATE {}", tables.join(", "))).await?;
    Ok(staged)
}

impl Tables {
    fn hold(self, table: &str) -> bool {
        let of_migrations = table == "penstock.migrations" || table == "penstock.meta";
        match self {
            Self::AppView => table.starts_with("public."),
            Self::All => !of_migrations,
            Self::One(one) => table.strip_prefix("public.") == Some(one),
        }
    }
}

/// Writes an even part of every table's rows.
async fn write(connection: &mut PgConnection, tables: &[Staged], part: u64, parts: u64) -> sqlx::Result<()> {
    let bound = |rows: i64, part: u64| i64::try_from(rows.unsigned_abs() * part / parts).unwrap_or(i64::MAX);
    let mut transaction = connection.begin().await?;
    for table in tables {
        let (from, to) = (bound(table.rows, part), bound(table.rows, part + 1));
        if from < to {
            let insert = sqlx::query(AssertSqlSafe(table.insert.clone()));
            insert.bind(from).bind(to).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}

async fn connect(url: &str) -> Result<PgConnection, Error> {
    PgConnection::connect(url).await.map_err(failed("connect to postgresql"))
}

async fn execute(connection: &mut PgConnection, sql: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map_err(failed("prepare the plain rows"))?;
    Ok(())
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    Error::database(what)
}

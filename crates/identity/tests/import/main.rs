//! Imports of made-up exports into a real PostgreSQL.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod made;
mod places;
mod rows;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::Compression;
use flate2::write::GzEncoder;
use penstock_identity::import::{ImportError, Source, Told, Totals, import};
use penstock_local::testing::{TempFolder, TestPostgres};
use penstock_postgres::{Address, Pool};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use made::Row;

/// A database with the tables, and a folder for exports.
struct Stage {
    pool: Pool,
    folder: TempFolder,
}

const MIGRATION: &str = include_str!("../../../worker/migrations/0002_penstock.sql");

/// The statement of the migration that makes a table.
fn creation(table: &str) -> &'static str {
    let start = MIGRATION.find(&format!("CREATE TABLE IF NOT EXISTS penstock.{table} (")).unwrap();
    MIGRATION[start..].split_once(';').unwrap().0
}

async fn create(pool: &Pool) {
    let statements = ["CREATE SCHEMA penstock", creation("meta"), creation("identities")].join(";");
    pool.inner().execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
}

fn pool(url: &str) -> Pool {
    let address: Address = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    Pool::lazy(address, PgPoolOptions::new().max_connections(2), |_| true).unwrap()
}

impl Stage {
    async fn new() -> Self {
        let url = TestPostgres::shared().await.unwrap().fresh_database().await.unwrap();
        let stage = Self { pool: pool(&url), folder: TempFolder::new().unwrap() };
        create(&stage.pool).await;
        stage
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn import(&self, path: &Path) -> Imported {
        self.import_as(path, false).await
    }

    async fn import_as(&self, path: &Path, from_start: bool) -> Imported {
        let told = Mutex::new(Vec::new());
        let tell = |news: Told<'_>| match news {
            Told::Resumed { bytes, .. } => told.lock().unwrap().push(format!("resumed at {bytes}")),
            Told::Bad(bad) => told.lock().unwrap().push(format!("line {}: {}", bad.line, bad.why)),
            Told::Came(_) => {}
        };
        let totals = import(&self.pool, Source::File(path.to_owned()), from_start, &tell).await;
        Imported { totals, told: told.into_inner().unwrap() }
    }

    async fn run(&self, sql: &str) {
        self.pool.inner().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    async fn rows(&self) -> BTreeMap<String, Row> {
        let rows = sqlx::query(
            "SELECT did, key, host, handle, (extract(epoch FROM coalesce(fetched_at, failed_at)) * 1000000)::bigint, failures > 0 \
             FROM penstock.identities",
        );
        let rows = rows.fetch_all(self.pool.inner()).await.unwrap();
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)))).collect()
    }
}

/// What came of an import.
struct Imported {
    totals: Result<Totals, ImportError>,
    told: Vec<String>,
}

impl Imported {
    fn totals(self) -> Totals {
        self.totals.unwrap()
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(content).unwrap();
    packer.finish().unwrap()
}

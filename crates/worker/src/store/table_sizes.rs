//! How large the tables are that workers write.

use super::connection::Store;
use super::error::StoreError;
use super::schema;

/// A table and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableSize {
    pub(crate) table: &'static str,
    /// As PostgreSQL estimates it.
    pub(crate) rows: u64,
    /// Its indexes and what it keeps out of line included.
    pub(crate) bytes: u64,
}

/// Reads no table: what is counted as rows come and go, and where that was lost what the last ANALYZE found.
const SIZES: &str = "\
SELECT u.at, greatest(coalesce(nullif(pg_stat_get_live_tuples(c.oid), 0), c.reltuples::bigint), 0),
    coalesce(pg_total_relation_size(c.oid), 0)
  FROM unnest($1::text[]) WITH ORDINALITY AS u (name, at) JOIN pg_class AS c ON c.oid = to_regclass(u.name)";

/// Counts the files of the database, whoever's tables they hold.
const DATABASE: &str = "SELECT pg_database_size(current_database())";

// === impl Store ===

impl Store {
    /// Reads the sizes of the existing tables that workers write.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub(crate) async fn table_sizes(&self) -> Result<Vec<TableSize>, StoreError> {
        let names = schema::tables();
        let query = sqlx::query_as(SIZES).bind(&names);
        let rows = self.in_transaction(async |tx| query.fetch_all(tx).await).await;
        let rows: Vec<(i64, i64, i64)> = rows.map_err(StoreError::Sizes)?;
        let size = |(at, rows, bytes): (i64, i64, i64)| {
            let table = *names.get(usize::try_from(at - 1).ok()?)?;
            Some(TableSize { table, rows: rows.cast_unsigned(), bytes: bytes.cast_unsigned() })
        };
        Ok(rows.into_iter().filter_map(size).collect())
    }

    /// Reads the size of the database in bytes.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub(crate) async fn database_size(&self) -> Result<u64, StoreError> {
        let bytes = self.in_transaction(async |tx| sqlx::query_scalar(DATABASE).fetch_one(tx).await).await;
        let bytes: i64 = bytes.map_err(StoreError::Sizes)?;
        Ok(bytes.cast_unsigned())
    }
}

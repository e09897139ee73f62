//! What a transaction wrote, counted by table, and added to its worker's totals.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::claim_rules::Claims;
use super::table::Table;

/// What a transaction wrote.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rows written by table: inserted, updated or removed.
    pub(crate) rows: BTreeMap<&'static str, u64>,
    /// Rows more or fewer, by table.
    pub(super) grown: BTreeMap<Table, i64>,
    pub(crate) users: i64,
    pub(crate) feed_items: i64,
    pub(crate) post_aggregations: i64,
    /// The accounts of the batch that opted out.
    pub(crate) opted_out: BTreeSet<String>,
    /// Notifications that have no place because their URI is too long.
    pub(crate) refused_notifications: u64,
    /// What became of claims on accounts.
    pub(crate) claims: Claims,
}

const TALLY: &str = "\
INSERT INTO penstock.counts AS c (worker, field, total)
SELECT $1, u.field, u.more FROM unnest($2::text[], $3::bigint[]) AS u (field, more)
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total, written_at = excluded.written_at";

// === impl Tally ===

impl Tally {
    pub(crate) fn inserted(&mut self, table: Table, rows: u64) {
        self.updated(table, rows);
        *self.grown.entry(table).or_default() += rows.cast_signed();
    }

    pub(crate) fn updated(&mut self, table: Table, rows: u64) {
        *self.rows.entry(table.spec().name).or_default() += rows;
    }

    pub(crate) fn removed(&mut self, table: Table, rows: u64) {
        self.updated(table, rows);
        *self.grown.entry(table).or_default() -= rows.cast_signed();
    }

    pub(crate) fn left_shadows(&mut self, rows: u64) {
        self.wrote("penstock.shadowed", rows);
    }

    /// Counts rows of a table that holds no records.
    pub(crate) fn wrote(&mut self, table: &'static str, rows: u64) {
        if rows > 0 {
            *self.rows.entry(table).or_default() += rows;
        }
    }

    /// Returns what is added to the fields of `db:record_counts`.
    fn fields(&self) -> BTreeMap<&'static str, i64> {
        let tables = self.grown.iter().filter_map(|(table, more)| Some((table.spec().field?, *more)));
        let others =
            [("users", self.users), ("feed_items", self.feed_items), ("post_aggregations", self.post_aggregations)];
        tables.chain(others).filter(|(_, more)| *more != 0).collect()
    }

    /// Adds to the worker's totals.
    pub(crate) async fn write(&self, conn: &mut PgConnection, worker: &str) -> sqlx::Result<()> {
        let fields = self.fields();
        if !fields.is_empty() {
            sqlx::query(TALLY)
                .bind(worker)
                .bind(fields.keys().bind_iter())
                .bind(fields.values().bind_iter())
                .execute(conn)
                .await?;
        }
        Ok(())
    }
}

//! Tables of somebody else's: of the same name as one of ours, and of another shape.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::{COLUMNS, SchemaError, wanted};

/// Refuses a database in which a table that workers write is there without the columns that they write. It only reads: where it
/// refuses, nothing was changed.
///
/// What is ours alone, in the schema `penstock`, may be of an earlier version, and is completed.
pub(super) async fn refuse(conn: &mut PgConnection, messages: bool) -> Result<(), SchemaError> {
    let wanted = wanted(messages).into_iter().filter(|(table, _)| !table.starts_with("penstock."));
    let wanted: BTreeMap<&str, Vec<&str>> = wanted.collect();
    let names: Vec<&str> = wanted.keys().copied().collect();
    let rows: Vec<(String, Vec<String>)> = sqlx::query_as(COLUMNS).bind(names).fetch_all(conn).await?;
    let foreign: Vec<String> = rows
        .into_iter()
        .filter_map(|(table, found)| {
            let found: BTreeSet<String> = found.into_iter().collect();
            let lacking: Vec<&str> =
                wanted.get(table.as_str())?.iter().copied().filter(|column| !found.contains(*column)).collect();
            (!lacking.is_empty()).then(|| format!("{table} (missing {})", lacking.join(", ")))
        })
        .collect();
    if foreign.is_empty() { Ok(()) } else { Err(SchemaError::Foreign(foreign)) }
}

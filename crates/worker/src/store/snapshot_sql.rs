//! The statements that hold a snapshot of a repo against what is stored, made from the columns of each table.

use std::sync::{Arc, OnceLock};

use sqlx::{AssertSqlSafe, PgConnection};

use super::kept;
use super::sql::{rows, value};
use super::table::{Kind, Spec, Table};

type Sql = AssertSqlSafe<Arc<str>>;

/// The statements for every record table.
#[derive(Debug)]
pub(crate) struct SnapshotStatements {
    differing: Vec<Arc<str>>,
    /// By whether the primary keys are in byte order.
    stored: [Stored; 2],
    is_bytewise: OnceLock<bool>,
}

/// What lists what is stored: of all tables, and of those of one collection.
#[derive(Debug)]
struct Stored {
    all: Arc<str>,
    alone: Vec<(&'static [Table], Arc<str>)>,
}

/// Whether the texts of primary keys sort as their bytes do, which is up to the database and the columns.
const BYTEWISE: &str = "\
SELECT NOT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS k (name, key)
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(k.name) AND a.attname = k.key
  JOIN pg_collation AS c ON c.oid = a.attcollation
  JOIN pg_database AS d ON d.datname = current_database()
 WHERE (CASE WHEN c.collprovider = 'd' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') || d.datcollate
   ELSE c.collprovider::text || c.collcollate END) NOT IN ('cC', 'cPOSIX'))";

// === impl SnapshotStatements ===

// The texts are made of the names in `Table::spec` alone: no input reaches them.
impl SnapshotStatements {
    pub(crate) fn new() -> Self {
        let homes: Vec<&'static [Table]> =
            Table::ALL.into_iter().map(Table::alone).chain([Table::homes("app.bsky.graph.listitem")]).collect();
        Self {
            differing: Table::ALL.map(|table| differing(table).into()).into(),
            stored: [false, true].map(|is_bytewise| Stored {
                all: stored(&Table::ALL, is_bytewise).into(),
                alone: homes.iter().map(|tables| (*tables, stored(tables, is_bytewise).into())).collect(),
            }),
            is_bytewise: OnceLock::new(),
        }
    }

    /// Names the columns in which rows differ from what they ought to be: parameters as for inserting them, with a time that the
    /// record does not say left out. Rows that are not there are not among them.
    pub(crate) fn differing(&self, table: Table) -> Sql {
        AssertSqlSafe(self.differing[table as usize].clone())
    }

    /// Lists the URIs of what is stored of a repo, in byte order: `$1` DID, `$2` and `$3` the range of its URIs in any order of texts, `$4`
    /// and `$5` those that are wanted in byte order, without the first, `$6` how many at most. Where all of them are of one
    /// collection, `homes` are its tables.
    pub(crate) fn stored(&self, homes: Option<&[Table]>, is_bytewise: bool) -> Sql {
        let Stored { all, alone } = &self.stored[usize::from(is_bytewise)];
        let alone = alone.iter().find(|(tables, _)| Some(*tables) == homes);
        AssertSqlSafe(alone.map_or(all, |(_, stored)| stored).clone())
    }

    /// Returns whether the primary keys of the tables are in byte order; asked once.
    pub(crate) async fn is_bytewise(&self, conn: &mut PgConnection) -> sqlx::Result<bool> {
        if let Some(known) = self.is_bytewise.get() {
            return Ok(*known);
        }
        let tables = Table::ALL.map(Table::spec);
        let is_bytewise = sqlx::query_scalar(BYTEWISE)
            .bind(tables.map(|spec| spec.name).to_vec())
            .bind(tables.map(|spec| spec.key).to_vec())
            .fetch_one(conn)
            .await?;
        Ok(*self.is_bytewise.get_or_init(|| is_bytewise))
    }
}

fn differing(table: Table) -> String {
    let spec = table.spec();
    let mut tests: Vec<String> = Vec::new();
    for (at, (name, kind)) in spec.columns.iter().enumerate().filter(|(_, (name, _))| *name != "commit_time") {
        let wanted = value(at, *kind);
        let wanted = if *kind == Kind::Time { format!("coalesce({wanted}, t.{name})") } else { wanted };
        tests.push(format!("CASE WHEN t.{name} IS DISTINCT FROM {wanted} THEN '{name}' END"));
    }
    if table == Table::Posts {
        for (name, gates) in [("has_thread_gate", "thread_gates"), ("has_post_gate", "post_gates")] {
            // With an offset it is never a hash of the whole table.
            let has = format!("EXISTS (SELECT FROM {gates} AS g WHERE g.post_uri = t.uri OFFSET 0)");
            tests.push(format!("CASE WHEN t.{name} <> {has} THEN '{name}' END"));
        }
    }
    format!(
        "SELECT u.k, array_remove(ARRAY[{}], NULL) FROM {} JOIN {} AS t ON t.{} = u.k",
        tests.join(", "),
        rows(spec),
        spec.name,
        spec.key
    )
}

/// As for what a deleted account left, most tables are searched by their primary key, in a range that is wide enough for any order of
/// texts; where it is in byte order, in no wider a range than is wanted.
fn stored(tables: &[Table], is_bytewise: bool) -> String {
    let is_wanted =
        |uri: &str| format!("starts_with({uri}, $2) AND {uri} COLLATE \"C\" > $4 AND {uri} COLLATE \"C\" <= $5");
    let selects = tables.iter().map(|table| {
        let Spec { name, key, owner, .. } = table.spec();
        let uri = table.uri_sql(&format!("t.{key}"));
        let mine = match owner {
            // The key of a gate is that of its post.
            _ if is_bytewise && uri == format!("t.{key}") => format!("t.{key} > $4 AND t.{key} <= $5"),
            Some(owner) => format!("t.{owner} = $1"),
            None => format!("t.{key} >= $2 AND t.{key} <= $3"),
        };
        format!("SELECT {uri} AS uri FROM {name} AS t WHERE {mine} AND {}", is_wanted(&uri))
    });
    let ours = [
        format!("SELECT s.uri FROM penstock.shadowed AS s WHERE s.repo = $1 AND {}", is_wanted("s.uri")),
        format!("SELECT r.uri FROM {} AS r WHERE r.did = $1 AND {}", kept::TABLE, is_wanted("r.uri")),
    ];
    let all: Vec<String> = selects.chain(ours).collect();
    format!(
        "SELECT uri COLLATE \"C\" AS uri FROM ({}) AS stored GROUP BY 1 ORDER BY 1 LIMIT $6",
        all.join(" UNION ALL ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_finds_its_own_statements() {
        let statements = SnapshotStatements::new();
        for table in Table::ALL {
            let name = table.spec().name;
            assert!(statements.differing[table as usize].contains(&format!("JOIN {name} AS t")), "{name}");
            for is_bytewise in [false, true] {
                let stored = statements.stored(Some(table.alone()), is_bytewise);
                assert!(stored.0.contains(&format!("FROM {name} AS t")), "{name}");
            }
        }
    }
}

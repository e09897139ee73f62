//! What stands in a database, as lines to be compared.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgPool};

/// Everything in the schemas of both sides that a schema tool could change, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalogue(pub(crate) BTreeSet<String>);

/// How many rows each table has.
pub(crate) type Sizes = BTreeMap<String, i64>;

const LINES: &str = "\
WITH ours AS (
  SELECT c.oid, c.relkind, c.relrowsecurity, c.reloptions, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
)
SELECT format('%s is a %s, row security %s, %s', name, relkind, relrowsecurity, reloptions) FROM ours
UNION ALL
SELECT format('%s.%I %s %s default %s collate %s identity %s', name, a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation,
    concat(a.attidentity, a.attgenerated))
  FROM ours JOIN pg_attribute AS a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT pg_get_indexdef(oid) FROM ours WHERE relkind = 'i'
UNION ALL
SELECT format('%s constraint %I %s', name, conname, pg_get_constraintdef(pg_constraint.oid))
  FROM ours JOIN pg_constraint ON conrelid = ours.oid
UNION ALL
SELECT format('%s trigger %s', name, pg_get_triggerdef(pg_trigger.oid))
  FROM ours JOIN pg_trigger ON tgrelid = ours.oid AND NOT tgisinternal
UNION ALL
SELECT format('schema %I', nspname) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'";

const TABLES: &str = "\
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'penstock')";

// === impl Catalogue ===

impl Catalogue {
    pub(crate) async fn of(pool: &PgPool) -> Self {
        let mut look = pool.begin().await.unwrap();
        // Whether a name is told with its schema depends on the path.
        sqlx::raw_sql("SET LOCAL search_path TO public").execute(&mut *look).await.unwrap();
        let lines: Vec<String> = sqlx::query_scalar(LINES).fetch_all(&mut *look).await.unwrap();
        Self(lines.into_iter().collect())
    }

    /// What stands in the AppView's schema.
    pub(crate) fn public(&self) -> Self {
        Self(self.0.iter().filter(|line| line.contains("public.")).cloned().collect())
    }

    /// What stands in neither schema but only in this one of the two.
    pub(crate) fn beyond(&self, other: &Self) -> Vec<String> {
        self.0.difference(&other.0).cloned().collect()
    }

    /// Asserts that another look shows the same.
    pub(crate) fn assert_is(&self, expected: &Self, when: &str) {
        let (more, less) = (self.beyond(expected), expected.beyond(self));
        assert!(
            more.is_empty() && less.is_empty(),
            "{when}: the database is not as it should be\nmore:\n{}\nless:\n{}",
            more.join("\n"),
            less.join("\n")
        );
    }
}

/// Counts the rows of every table of both sides.
pub(crate) async fn sizes(pool: &PgPool) -> Sizes {
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(pool).await.unwrap();
    let mut sizes = Sizes::new();
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        let count = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(pool).await.unwrap();
        sizes.insert(table, count);
    }
    sizes
}

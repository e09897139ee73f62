//! The statements of each record table, made from its columns.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::table::{Kind, Spec, Table};

/// The statements of every record table.
#[derive(Debug)]
pub(crate) struct Statements {
    tables: Vec<TableStatements>,
    left_behind: Arc<str>,
}

/// The statements of one record table. All take arrays, one element a row, sorted by key.
#[derive(Debug)]
pub(crate) struct TableStatements {
    by_key: Arc<str>,
    by_pair: Option<Arc<str>>,
    insert: Arc<str>,
    update: Arc<str>,
    again: Arc<str>,
    demote: Option<Arc<str>>,
    delete: Arc<str>,
}

type Sql = AssertSqlSafe<Arc<str>>;

/// How much of a text goes into its search vector, in characters: PostgreSQL refuses vectors above 1 MiB.
const SEARCHED: u32 = 100_000;

// === impl Statements ===

impl Statements {
    /// Makes the statements; with `search_vector`, posts are made searchable.
    pub(crate) fn new(search_vector: bool) -> Self {
        Self {
            tables: Table::ALL.map(|table| TableStatements::new(table, search_vector)).into(),
            left_behind: left_behind().into(),
        }
    }

    /// Finds what a deleted account left: `$1` DID, `$2` the last entry that it took, `$3` and `$4` the range of its
    /// URIs, `$5` rows at most.
    pub(crate) fn left_behind(&self) -> Sql {
        AssertSqlSafe(self.left_behind.clone())
    }

    /// Returns the statements of a table.
    pub(crate) fn of(&self, table: Table) -> &TableStatements {
        // `Table::ALL` has the tables in the order of their discriminants, which a test holds.
        &self.tables[table as usize]
    }
}

// === impl TableStatements ===

// The texts are made of the names in `Table::spec` alone: no input reaches them.
impl TableStatements {
    fn new(table: Table, search_vector: bool) -> Self {
        let spec = table.spec();
        Self {
            by_key: select(spec, &format!("FROM {} AS t WHERE t.{} = ANY($1)", spec.name, spec.key)).into(),
            by_pair: spec.pair.map(|pair| select_by_pair(spec, pair).into()),
            insert: insert(table, spec, search_vector).into(),
            update: update(table, spec, search_vector).into(),
            again: format!(
                "UPDATE {} AS t SET entry_id = u.e{} FROM unnest($1::text[], $2::text[], $3::text[]) AS u (k, e, s) \
                 WHERE t.{} = u.k",
                spec.name,
                if spec.commit { ", commit_seq = u.s" } else { "" },
                spec.key
            )
            .into(),
            demote: spec.pair.map(|pair| demote(table, spec, pair).into()),
            delete: format!("DELETE FROM {} WHERE {} = ANY($1)", spec.name, spec.key).into(),
        }
    }

    /// Reads and locks rows: `$1` keys.
    pub(crate) fn by_key(&self) -> Sql {
        AssertSqlSafe(self.by_key.clone())
    }

    /// Reads and locks the rows that hold pairs: `$1`, `$2` their columns.
    pub(crate) fn by_pair(&self) -> Option<Sql> {
        self.by_pair.clone().map(AssertSqlSafe)
    }

    /// Inserts rows: `$1` keys, `$2` revs, `$3` entries, then the columns.
    pub(crate) fn insert(&self) -> Sql {
        AssertSqlSafe(self.insert.clone())
    }

    /// Rewrites rows that stand: parameters as [`TableStatements::insert`].
    pub(crate) fn update(&self) -> Sql {
        AssertSqlSafe(self.update.clone())
    }

    /// Moves stamps and numbers: `$1` keys, `$2` entries, `$3` numbers.
    pub(crate) fn again(&self) -> Sql {
        AssertSqlSafe(self.again.clone())
    }

    /// Copies rows to the shadows: `$1` keys.
    pub(crate) fn demote(&self) -> Option<Sql> {
        self.demote.clone().map(AssertSqlSafe)
    }

    /// Deletes rows: `$1` keys.
    pub(crate) fn delete(&self) -> Sql {
        AssertSqlSafe(self.delete.clone())
    }
}

fn name(spec: &Spec, column: usize) -> &'static str {
    spec.columns[column].0
}

fn select(spec: &Spec, from: &str) -> String {
    let column = |column: Option<usize>| column.map_or("NULL".to_owned(), |column| format!("t.{}", name(spec, column)));
    let (a, b) = match (spec.pair, spec.counted) {
        (Some((a, b)), _) => (a, Some(b)),
        (None, counted) => (None, counted.map(|(column, _)| column)),
    };
    format!(
        "SELECT t.{}, t.commit_rev, t.entry_id, {}, {} {from} FOR NO KEY UPDATE OF t",
        spec.key,
        column(a),
        column(b)
    )
}

fn select_by_pair(spec: &Spec, (a, b): (Option<usize>, usize)) -> String {
    let mut on = format!("t.{} = k.b", name(spec, b));
    if let Some(a) = a {
        on = format!("t.{} = k.a AND {on}", name(spec, a));
    }
    select(spec, &format!("FROM unnest($1::text[], $2::text[]) AS k (a, b) JOIN {} AS t ON {on}", spec.name))
}

/// Writes `unnest(…) AS u (k, r, e, c0, …)` over the parameters of a row.
fn rows(spec: &Spec) -> String {
    let mut from = "unnest($1::text[], $2::text[], $3::text[]".to_owned();
    let mut names = "k, r, e".to_owned();
    for (at, (_, kind)) in spec.columns.iter().enumerate() {
        let array = match kind {
            Kind::Text | Kind::Json => "text",
            Kind::Time => "timestamp",
            Kind::Bool => "bool",
        };
        // Writing to a string cannot fail.
        let _ = write!(from, ", ${}::{array}[]", at + 4);
        let _ = write!(names, ", c{at}");
    }
    format!("{from}) AS u ({names})")
}

fn value(at: usize, kind: Kind) -> String {
    if kind == Kind::Json { format!("u.c{at}::jsonb") } else { format!("u.c{at}") }
}

/// Returns the columns that PostgreSQL works out itself.
fn computed(table: Table, spec: &Spec, new: bool, search_vector: bool) -> Vec<(&'static str, String)> {
    let mut columns = Vec::new();
    match table {
        Table::Posts => {
            if new {
                // A gate may have come before its post.
                for (column, gates) in [("has_thread_gate", "thread_gates"), ("has_post_gate", "post_gates")] {
                    columns.push((column, format!("EXISTS (SELECT FROM {gates} AS g WHERE g.post_uri = u.k)")));
                }
            }
            let text = spec.columns.iter().position(|(name, _)| *name == "text");
            if let (true, Some(text)) = (search_vector, text) {
                columns.push(("search_vector", format!("to_tsvector('english', left(u.c{text}, {SEARCHED}))")));
            }
        }
        Table::ThreadGates if !new => columns.push(("updated_at", "now()".to_owned())),
        _ => {}
    }
    columns
}

fn insert(table: Table, spec: &Spec, search_vector: bool) -> String {
    let mut names = format!("{}, commit_rev, entry_id", spec.key);
    let mut values = "u.k, u.r, u.e".to_owned();
    for (at, (name, kind)) in spec.columns.iter().enumerate() {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {}", value(at, *kind));
    }
    for (name, expression) in computed(table, spec, true, search_vector) {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {expression}");
    }
    format!("INSERT INTO {} ({names}) SELECT {values} FROM {}", spec.name, rows(spec))
}

fn update(table: Table, spec: &Spec, search_vector: bool) -> String {
    let mut set = "commit_rev = u.r, entry_id = u.e".to_owned();
    for (at, (name, kind)) in spec.columns.iter().enumerate() {
        let _ = write!(set, ", {name} = {}", value(at, *kind));
    }
    for (name, expression) in computed(table, spec, false, search_vector) {
        let _ = write!(set, ", {name} = {expression}");
    }
    format!("UPDATE {} AS t SET {set} FROM {} WHERE t.{} = u.k", spec.name, rows(spec), spec.key)
}

fn demote(table: Table, spec: &Spec, (a, b): (Option<usize>, usize)) -> String {
    let a = a.map_or("''".to_owned(), |a| format!("t.{}", name(spec, a)));
    let row = match table {
        // Its item in the feeds goes meanwhile, and with it the CID.
        Table::Reposts => {
            "to_jsonb(t) || jsonb_build_object('cid', (SELECT f.cid FROM feed_items AS f WHERE f.uri = t.uri))"
        }
        _ => "to_jsonb(t)",
    };
    format!(
        "INSERT INTO penstock.shadowed (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row) \
         SELECT t.uri, split_part(t.uri, '/', 3), '{}', {a}, t.{}, t.commit_rev, t.entry_id, {row} FROM {} AS t WHERE t.uri = ANY($1)",
        spec.name,
        name(spec, b),
        spec.name
    )
}

/// Most tables are searched by their primary key, which any database has. Its collation is the database's own, where a
/// prefix is no range: the range is wide enough for any (collections here begin with `a` or `c`), and then checked.
fn left_behind() -> String {
    let selects = Table::ALL.map(|table| {
        let Spec { name, key, owner, .. } = table.spec();
        let mine = owner.map_or_else(
            || format!("{key} >= $3 AND {key} <= $4 AND starts_with({key}, $3)"),
            |owner| format!("{owner} = $1"),
        );
        format!(
            "(SELECT '{name}' AS kind, {key} AS key FROM {name} \
             WHERE {mine} AND (entry_id IS NULL OR ltrim(entry_id, '!') <= $2) LIMIT $5)"
        )
    });
    format!(
        "SELECT kind, key FROM ({} UNION ALL (SELECT kind, uri FROM penstock.shadowed WHERE repo = $1 \
         AND (entry_id IS NULL OR ltrim(entry_id, '!') <= $2) LIMIT $5)) AS found LIMIT $5",
        selects.join(" UNION ALL ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_finds_its_own_statements() {
        let statements = Statements::new(false);
        for table in Table::ALL {
            let name = table.spec().name;
            assert!(statements.of(table).delete.starts_with(&format!("DELETE FROM {name} WHERE")), "{name}");
        }
    }

    #[test]
    fn statements_read_as_meant() {
        let all = Statements::new(true);
        let follows = all.of(Table::Follows);
        assert_eq!(
            &*follows.insert,
            "INSERT INTO follows (uri, commit_rev, entry_id, follower_did, following_did, created_at, commit_time, \
             commit_seq) SELECT u.k, u.r, u.e, u.c0, u.c1, u.c2, u.c3, u.c4 FROM unnest($1::text[], $2::text[], \
             $3::text[], $4::text[], $5::text[], $6::timestamp[], $7::timestamp[], $8::text[]) AS u (k, r, e, c0, c1, \
             c2, c3, c4)"
        );
        assert_eq!(
            follows.by_pair.as_deref(),
            Some(
                "SELECT t.uri, t.commit_rev, t.entry_id, t.follower_did, t.following_did FROM unnest($1::text[], \
                 $2::text[]) AS k (a, b) JOIN follows AS t ON t.follower_did = k.a AND t.following_did = k.b FOR NO \
                 KEY UPDATE OF t"
            )
        );
        let gates = all.of(Table::PostGates);
        assert_eq!(
            &*gates.update,
            "UPDATE post_gates AS t SET commit_rev = u.r, entry_id = u.e, embedding_rules = u.c0::jsonb, created_at = \
             u.c1 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamp[]) AS u (k, r, e, c0, c1) \
             WHERE t.post_uri = u.k"
        );
        assert!(all.of(Table::Posts).insert.contains("to_tsvector('english', left(u.c2, 100000))"));
    }
}

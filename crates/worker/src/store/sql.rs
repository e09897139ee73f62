//! The statements of each record table, made from its columns.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::kept;
use super::table::{Kind, Spec, Table};

/// The statements of every record table.
#[derive(Debug)]
pub(crate) struct Statements {
    tables: Vec<TableStatements>,
    left_behind: Arc<str>,
    waiting: Arc<str>,
    waiting_verifications: Arc<str>,
}

/// The statements of one record table. All take arrays, one element a row, sorted by key.
#[derive(Debug)]
pub(crate) struct TableStatements {
    by_key: Arc<str>,
    by_key_unlocked: Arc<str>,
    by_pair: Option<Arc<str>>,
    by_pair_unlocked: Option<Arc<str>>,
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
            waiting: waiting(
                "s.kind = k.kind AND s.key_a = k.a AND s.key_b = k.b",
                "penstock.place(s.commit_rev, s.entry_id) DESC, s.uri DESC",
            )
            .into(),
            waiting_verifications: waiting("s.kind = 'verifications' AND s.key_b = k.b", "s.uri").into(),
        }
    }

    /// Reads who is best placed of those that wait for each pair: `$1` tables, `$2`, `$3` the pairs' columns, `$4` URIs
    /// that are read by themselves, `$5`, `$6` repos that were deleted and the last entry that each deletion took.
    pub(crate) fn waiting(&self) -> Sql {
        AssertSqlSafe(self.waiting.clone())
    }

    /// The same of verifications.
    pub(crate) fn waiting_verifications(&self) -> Sql {
        AssertSqlSafe(self.waiting_verifications.clone())
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
        let by_key = select(table, &format!("{} AS t", spec.name), &format!("WHERE t.{} = ANY($1) ", spec.key));
        let by_pair = spec.pair.map(|pair| select_by_pair(table, pair));
        Self {
            by_key: format!("{by_key}{LOCKED}").into(),
            by_key_unlocked: by_key.into(),
            by_pair: by_pair.as_ref().map(|by_pair| format!("{by_pair}{LOCKED}").into()),
            by_pair_unlocked: by_pair.map(Into::into),
            insert: insert(table, spec, search_vector).into(),
            update: update(table, spec, search_vector).into(),
            again: again(table).into(),
            demote: spec.pair.map(|pair| demote(table, spec, pair).into()),
            delete: delete(table).into(),
        }
    }

    /// Reads and locks rows: `$1` keys.
    pub(crate) fn by_key(&self) -> Sql {
        AssertSqlSafe(self.by_key.clone())
    }

    /// The same without locking them.
    pub(crate) fn by_key_unlocked(&self) -> Sql {
        AssertSqlSafe(self.by_key_unlocked.clone())
    }

    /// The same as [`Self::by_pair`] without locking the rows.
    pub(crate) fn by_pair_unlocked(&self) -> Option<Sql> {
        self.by_pair_unlocked.clone().map(AssertSqlSafe)
    }

    /// Reads and locks the rows that hold pairs: `$1`, `$2` their columns.
    pub(crate) fn by_pair(&self) -> Option<Sql> {
        self.by_pair.clone().map(AssertSqlSafe)
    }

    /// Inserts rows: `$1` keys, `$2` revs, `$3` stamps, then the columns.
    pub(crate) fn insert(&self) -> Sql {
        AssertSqlSafe(self.insert.clone())
    }

    /// Rewrites rows that stand: parameters as [`TableStatements::insert`].
    pub(crate) fn update(&self) -> Sql {
        AssertSqlSafe(self.update.clone())
    }

    /// Moves stamps: `$1` keys, `$2` stamps.
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

/// Locks the rows that a statement reads.
const LOCKED: &str = "FOR NO KEY UPDATE OF t";

/// The columns with rev and stamp of a row `t`, and the join that they need: a table of the AppView's either has both, or its
/// rows are stamped in a table of ours.
fn guard(table: Table) -> (&'static str, &'static str, String) {
    let spec = table.spec();
    if spec.commit {
        ("t.commit_rev", "t.commit_seq", String::new())
    } else {
        let uri = table.uri_sql(&format!("t.{}", spec.key));
        let join = format!(" LEFT JOIN penstock.stamps AS s ON s.uri = {uri} COLLATE \"C\"");
        ("s.commit_rev", "s.entry_id", join)
    }
}

fn select(table: Table, from: &str, rest: &str) -> String {
    let spec = table.spec();
    let column = |column: Option<usize>| column.map_or("NULL".to_owned(), |column| format!("t.{}", name(spec, column)));
    let (a, b) = match (spec.pair, spec.counted) {
        (Some((a, b)), _) => (a, Some(b)),
        (None, counted) => (None, counted.map(|(column, _)| column)),
    };
    let (rev, stamp, join) = guard(table);
    format!("SELECT t.{}, {rev}, {stamp}, {}, {} FROM {from}{join} {rest}", spec.key, column(a), column(b))
}

fn select_by_pair(table: Table, (a, b): (Option<usize>, usize)) -> String {
    let spec = table.spec();
    let mut on = format!("t.{} = k.b", name(spec, b));
    if let Some(a) = a {
        on = format!("t.{} = k.a AND {on}", name(spec, a));
    }
    select(table, &format!("unnest($1::text[], $2::text[]) AS k (a, b) JOIN {} AS t ON {on}", spec.name), "")
}

fn again(table: Table) -> String {
    let Spec { name, key, commit, .. } = table.spec();
    let (target, set, on) = if *commit {
        (*name, "commit_seq", format!("t.{key} = u.k"))
    } else {
        ("penstock.stamps", "entry_id", format!("t.uri = {} COLLATE \"C\"", table.uri_sql("u.k")))
    };
    format!("UPDATE {target} AS t SET {set} = u.e FROM unnest($1::text[], $2::text[]) AS u (k, e) WHERE {on}")
}

fn delete(table: Table) -> String {
    let Spec { name, key, commit, .. } = table.spec();
    let delete = format!("DELETE FROM {name} WHERE {key} = ANY($1)");
    if *commit {
        return delete;
    }
    let uri = table.uri_sql("u.k");
    format!(
        "WITH stamps AS (DELETE FROM penstock.stamps AS s USING unnest($1::text[]) AS u (k) \
         WHERE s.uri = {uri} COLLATE \"C\") {delete}"
    )
}

/// Puts the stamps of the rows `u` beside a statement, where their table has no columns for them.
fn stamped(table: Table, statement: &str) -> String {
    let uri = table.uri_sql("k");
    format!(
        "WITH u AS (SELECT * FROM {}), stamps AS (INSERT INTO penstock.stamps (uri, commit_rev, entry_id) \
         SELECT {uri}, r, e FROM u ON CONFLICT (uri) DO UPDATE SET commit_rev = excluded.commit_rev, \
         entry_id = excluded.entry_id) {statement}",
        rows(table.spec())
    )
}

/// Writes `unnest(…) AS u (k, r, e, c0, …)` over the parameters of a row.
pub(super) fn rows(spec: &Spec) -> String {
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

pub(super) fn value(at: usize, kind: Kind) -> String {
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
                    columns.push((
                        column, // With an offset it is never a hash of the whole table, which is what a plan for an empty one has.
                        format!("EXISTS (SELECT FROM {gates} AS g WHERE g.post_uri = u.k OFFSET 0)"),
                    ));
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
    let (mut names, mut values) = (spec.key.to_owned(), "u.k".to_owned());
    if spec.commit {
        names.push_str(", commit_rev, commit_seq");
        values.push_str(", u.r, u.e");
    }
    for (at, (name, kind)) in spec.columns.iter().enumerate() {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {}", value(at, *kind));
    }
    for (name, expression) in computed(table, spec, true, search_vector) {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {expression}");
    }
    let insert = |from: &str| format!("INSERT INTO {} ({names}) SELECT {values} FROM {from}", spec.name);
    if spec.commit { insert(&rows(spec)) } else { stamped(table, &insert("u")) }
}

fn update(table: Table, spec: &Spec, search_vector: bool) -> String {
    let mut set = if spec.commit { "commit_rev = u.r, commit_seq = u.e".to_owned() } else { String::new() };
    let columns = spec.columns.iter().enumerate().map(|(at, (name, kind))| (*name, value(at, *kind)));
    for (name, value) in columns.chain(computed(table, spec, false, search_vector)) {
        let comma = if set.is_empty() { "" } else { ", " };
        let _ = write!(set, "{comma}{name} = {value}");
    }
    let update = |from: &str| format!("UPDATE {} AS t SET {set} FROM {from} WHERE t.{} = u.k", spec.name, spec.key);
    if spec.commit { update(&rows(spec)) } else { stamped(table, &update("u")) }
}

fn demote(table: Table, spec: &Spec, (a, b): (Option<usize>, usize)) -> String {
    let a = a.map_or("''".to_owned(), |a| format!("t.{}", name(spec, a)));
    let row = match table {
        // Its item in the feeds goes meanwhile, and with it the CID and its place there.
        Table::Reposts => {
            "to_jsonb(t) || coalesce((SELECT jsonb_build_object('cid', f.cid, 'sort_at', f.sort_at) \
             FROM feed_items AS f WHERE f.uri = t.uri), '{}')"
        }
        _ => "to_jsonb(t)",
    };
    let (rev, stamp, join) = guard(table);
    format!(
        "INSERT INTO penstock.shadowed (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row) \
         SELECT t.uri, split_part(t.uri, '/', 3), '{}', {a}, t.{}, {rev}, {stamp}, {row} FROM {} AS t{join} WHERE t.uri = ANY($1) \
         ON CONFLICT (uri) DO UPDATE SET kind = excluded.kind, key_a = excluded.key_a, key_b = excluded.key_b, \
         commit_rev = excluded.commit_rev, entry_id = excluded.entry_id, row = excluded.row",
        spec.name,
        name(spec, b),
        spec.name
    )
}

/// Writes whether an entry lies at or before the last one that a deletion took.
fn is_gone(stamp: &str, through: &str) -> String {
    // A number alone is not of ours, and a stamp of the last entry itself may end with its number.
    format!("({stamp} IS NULL OR strpos({stamp}, '-') = 0 OR ltrim({stamp}, '!') COLLATE \"C\" <= {through} || '~')")
}

/// One row a pair, however many wait: an index has them in order. What a deletion took is passed over, which is little: a
/// sweep takes those that wait before it takes the row that they wait for.
fn waiting(pair: &str, order: &str) -> String {
    format!(
        "SELECT s.uri, s.commit_rev, s.entry_id, s.kind, s.key_a, s.key_b, s.row \
         FROM unnest($1::text[], $2::text[], $3::text[]) AS k (kind, a, b) CROSS JOIN LATERAL (\
         SELECT s.* FROM penstock.shadowed AS s WHERE {pair} AND s.uri <> ALL($4::text[]) \
         AND NOT EXISTS (SELECT FROM unnest($5::text[], $6::text[]) AS d (did, through) \
         WHERE d.did = s.repo AND {}) ORDER BY {order} LIMIT 1) AS s",
        is_gone("s.entry_id", "d.through")
    )
}

/// What waits comes first: no pair is settled for it, and no row that goes later leaves its place to what goes, too.
///
/// Most tables are searched by their primary key, which any database has. Its collation is the database's own, where a
/// prefix is no range: the range is wide enough for any (collections here begin with `a` or `c`), and then checked.
fn left_behind() -> String {
    let is_gone = |stamp: &str| is_gone(stamp, "$2");
    let selects = Table::ALL.map(|table| {
        let Spec { name, key, owner, .. } = table.spec();
        let mine = owner.map_or_else(
            || format!("t.{key} >= $3 AND t.{key} <= $4 AND starts_with(t.{key}, $3)"),
            |owner| format!("t.{owner} = $1"),
        );
        let (_, stamp, join) = guard(table);
        format!(
            "(SELECT '{name}' AS kind, t.{key} AS key FROM {name} AS t{join} WHERE {mine} AND {} LIMIT $5)",
            is_gone(stamp)
        )
    });
    format!(
        "SELECT kind, key FROM ((SELECT kind, uri AS key FROM penstock.shadowed WHERE repo = $1 AND {gone} LIMIT $5) \
         UNION ALL {} UNION ALL (SELECT '{}', key FROM penstock.records WHERE did = $1 AND {gone} LIMIT $5)) \
         AS found LIMIT $5",
        selects.join(" UNION ALL "),
        kept::TABLE,
        gone = is_gone("entry_id")
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
            assert!(statements.of(table).delete.contains(&format!("DELETE FROM {name} WHERE")), "{name}");
        }
    }

    #[test]
    fn statements_read_as_meant() {
        let all = Statements::new(true);
        let follows = all.of(Table::Follows);
        assert_eq!(
            &*follows.insert,
            "INSERT INTO follows (uri, commit_rev, commit_seq, follower_did, following_did, created_at, commit_time) \
             SELECT u.k, u.r, u.e, u.c0, u.c1, u.c2, u.c3 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], \
             $5::text[], $6::timestamp[], $7::timestamp[]) AS u (k, r, e, c0, c1, c2, c3)"
        );
        assert_eq!(
            follows.by_pair.as_deref(),
            Some(
                "SELECT t.uri, t.commit_rev, t.commit_seq, t.follower_did, t.following_did FROM unnest($1::text[], \
                 $2::text[]) AS k (a, b) JOIN follows AS t ON t.follower_did = k.a AND t.following_did = k.b FOR NO \
                 KEY UPDATE OF t"
            )
        );
        let gates = all.of(Table::PostGates);
        assert_eq!(
            &*gates.update,
            "WITH u AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamp[]) AS u (k, \
             r, e, c0, c1)), stamps AS (INSERT INTO penstock.stamps (uri, commit_rev, entry_id) SELECT replace(k, \
             '/app.bsky.feed.post/', '/app.bsky.feed.postgate/'), r, e FROM u ON CONFLICT (uri) DO UPDATE SET \
             commit_rev = excluded.commit_rev, entry_id = excluded.entry_id) UPDATE post_gates AS t SET \
             embedding_rules = u.c0::jsonb, created_at = u.c1 FROM u WHERE t.post_uri = u.k"
        );
        assert_eq!(
            &*gates.by_key,
            "SELECT t.post_uri, s.commit_rev, s.entry_id, NULL, NULL FROM post_gates AS t LEFT JOIN penstock.stamps AS \
             s ON s.uri = replace(t.post_uri, '/app.bsky.feed.post/', '/app.bsky.feed.postgate/') COLLATE \"C\" WHERE \
             t.post_uri = ANY($1) FOR NO KEY UPDATE OF t"
        );
        assert!(all.of(Table::Posts).insert.contains("to_tsvector('english', left(u.c2, 100000))"));
    }
}

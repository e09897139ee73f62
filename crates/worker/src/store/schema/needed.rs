//! The indexes without which a statement of the worker fails or reads a whole table, told by what they are on: their names
//! are the AppView's or somebody else's.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::PgConnection;

use crate::store::table::Table;

/// An index that statements need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) table: &'static str,
    /// Where it is unique, exactly these in any order; else at least these, in this order, at its beginning.
    pub(super) columns: Vec<&'static str>,
    pub(super) is_unique: bool,
    /// What it is called where it is made.
    pub(super) name: String,
}

/// An index that is there.
#[derive(Clone, Debug)]
struct Found {
    columns: Vec<String>,
    is_unique: bool,
}

/// What is unique in tables that hold no records, and what rows are looked up by there.
const OTHERS: [(&str, &[&str], bool, &str); 48] = [
    ("users", &["did"], true, "users_pkey"),
    ("post_aggregations", &["post_uri"], true, "post_aggregations_pkey"),
    ("feed_items", &["uri"], true, "feed_items_pkey"),
    ("quotes", &["uri"], true, "quotes_pkey"),
    ("quotes", &["post_uri"], false, "idx_quotes_post"),
    ("quotes", &["quoted_uri"], false, "idx_quotes_quoted"),
    ("posts", &["parent_uri"], false, "idx_posts_parent_uri"),
    ("posts", &["root_uri"], false, "idx_posts_root_uri"),
    ("likes", &["post_uri"], false, "idx_likes_post_uri"),
    ("reposts", &["post_uri"], false, "idx_reposts_post_uri"),
    ("notifications", &["uri"], true, "notifications_uri_unique"),
    ("thread_contexts", &["post_uri"], true, "thread_contexts_pkey"),
    ("post_viewer_states", &["post_uri", "viewer_did"], true, "idx_post_viewer_states_post_viewer"),
    ("label_events", &["label_uri"], false, "idx_label_events_label_uri"),
    ("penstock.repos", &["did"], true, "repos_pkey"),
    ("penstock.stamps", &["uri"], true, "stamps_pkey"),
    ("penstock.waiting_counts", &["post_uri"], true, "waiting_counts_pkey"),
    ("penstock.profiles", &["did"], true, "profiles_pkey"),
    ("penstock.tombstones", &["uri"], true, "tombstones_pkey"),
    ("penstock.tombstones", &["entry_id"], false, "tombstones_entry_id"),
    ("penstock.shadowed", &["uri"], true, "shadowed_pkey"),
    ("penstock.shadowed", &["key_b", "key_a", "kind"], false, "shadowed_best"),
    ("penstock.shadowed", &["repo"], false, "shadowed_repo"),
    ("penstock.counts", &["worker", "field"], true, "counts_pkey"),
    ("penstock.checkpoint", &["host"], true, "checkpoint_pkey"),
    ("penstock.dead_letters", &["orig_id"], true, "dead_letters_pkey"),
    ("penstock.message_keys", &["dedupe_key"], true, "message_keys_pkey"),
    ("penstock.meta", &["key"], true, "meta_pkey"),
    ("penstock.waiting_cids", &["uri"], true, "waiting_cids_pkey"),
    ("penstock.cids", &["uri"], true, "cids_pkey"),
    ("penstock.unfinished_posts", &["uri"], true, "unfinished_posts_pkey"),
    ("penstock.sweeps", &["what"], true, "sweeps_pkey"),
    ("penstock.sweeps", &["due"], false, "sweeps_due"),
    ("penstock.records", &["key"], true, "records_pkey"),
    ("penstock.records", &["did"], false, "records_did"),
    ("penstock.repairs", &["did"], true, "repairs_pkey"),
    ("penstock.repairs", &["priority", "due"], false, "repairs_due"),
    ("penstock.unhealed", &["did"], true, "unhealed_pkey"),
    ("penstock.unhealed", &["at"], false, "unhealed_at"),
    ("penstock.backfills", &["name"], true, "backfills_pkey"),
    ("penstock.repos", &["proven_at", "did"], false, "repos_proven"),
    ("penstock.identities", &["did"], true, "identities_pkey"),
    ("penstock.handle_checks", &["did"], true, "handle_checks_pkey"),
    ("penstock.handle_checks", &["due"], false, "handle_checks_due"),
    ("users", &["handle"], false, "idx_users_handle"),
    ("penstock.account_claims", &["did"], true, "account_claims_pkey"),
    ("penstock.account_claims", &["due"], false, "account_claims_due"),
    ("penstock.account_claims", &["host", "due"], false, "account_claims_host"),
];

/// As the AppView calls them.
const PAIRS: [(&str, &str); 8] = [
    ("likes", "unique_like_user_post"),
    ("reposts", "unique_repost_user_post"),
    ("bookmarks", "unique_bookmark_user_post"),
    ("follows", "unique_follow_follower_following"),
    ("blocks", "unique_block_blocker_blocked"),
    ("list_items", "unique_list_item"),
    ("list_blocks", "unique_list_block"),
    ("verifications", "unique_verification_subject"),
];

/// Only of those that are whole: a build that was cut off leaves one that is kept up to date and never read, and one over some
/// of the rows is no help with the others. A constraint that is checked late cannot decide a conflict.
const FOUND: &str = "\
SELECT t.name, x.indisunique AND x.indimmediate,
    ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        LEFT JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
       WHERE k.place <= x.indnkeyatts ORDER BY k.place)
  FROM unnest($1::text[]) AS t (name)
  JOIN pg_index AS x ON x.indrelid = to_regclass(t.name) AND x.indisvalid AND x.indisready AND x.indislive AND x.indpred IS NULL
  JOIN pg_class AS c ON c.oid = x.indexrelid JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'";

const TABLES: &str = "SELECT t.name FROM unnest($1::text[]) AS t (name) WHERE to_regclass(t.name) IS NOT NULL";

/// Lists those that are missing from tables that are there.
pub(super) async fn missing(conn: &mut PgConnection) -> sqlx::Result<Vec<Needed>> {
    let mut needed = needed();
    let names: Vec<&str> = needed.iter().map(|needed| needed.table).collect();
    let there: Vec<String> = sqlx::query_scalar(TABLES).bind(&names).fetch_all(&mut *conn).await?;
    let rows: Vec<(String, bool, Vec<String>)> = sqlx::query_as(FOUND).bind(&there).fetch_all(conn).await?;
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for (table, is_unique, columns) in rows {
        found.entry(table).or_default().push(Found { columns, is_unique });
    }
    needed.retain(|needed| {
        let of = found.get(needed.table).map(Vec::as_slice).unwrap_or_default();
        there.iter().any(|there| there == needed.table) && !of.iter().any(|found| needed.is_met_by(found))
    });
    Ok(needed)
}

fn needed() -> Vec<Needed> {
    let mut needed = Vec::new();
    for table in Table::ALL {
        let spec = table.spec();
        let mut need = |columns: Vec<&'static str>, is_unique, name: String| {
            needed.push(Needed { table: spec.name, columns, is_unique, name });
        };
        let column = |column: usize| spec.columns.get(column).map(|(name, _)| *name);
        need(vec![spec.key], true, format!("{}_pkey", spec.name));
        if let Some((a, b)) = spec.pair {
            let name = PAIRS.into_iter().find(|(table, _)| *table == spec.name).map_or("", |(_, name)| name);
            need(a.into_iter().chain([b]).filter_map(column).collect(), true, name.to_owned());
        }
        // The pair's begins with the owner.
        if let Some(owner) = spec.owner.filter(|_| spec.pair.is_none()) {
            need(vec![owner], false, format!("idx_{}_author", spec.name));
        }
    }
    let other = |(table, columns, is_unique, name): (_, &[&'static str], _, &str)| Needed {
        table,
        columns: columns.to_vec(),
        is_unique,
        name: name.to_owned(),
    };
    needed.extend(OTHERS.into_iter().map(other));
    needed
}

// === impl Needed ===

impl Needed {
    fn is_met_by(&self, found: &Found) -> bool {
        let mut begins = self.columns.iter().zip(&found.columns).map(|(needed, found)| needed == found);
        if self.is_unique {
            found.is_unique
                && found.columns.len() == self.columns.len()
                && self.columns.iter().all(|needed| found.columns.iter().any(|found| found == needed))
        } else {
            found.columns.len() >= self.columns.len() && begins.all(|same| same)
        }
    }

    /// Returns what makes it under a name, with the name of its table to be put in.
    pub(super) fn index(&self, name: &str) -> String {
        let unique = if self.is_unique { "UNIQUE " } else { "" };
        format!("{unique}INDEX CONCURRENTLY {name} ON {{table}} ({})", self.columns.join(", "))
    }

    /// Returns the schema that its name stands in, with a dot; nothing where the search path finds it.
    pub(super) fn schema(&self) -> &'static str {
        self.table.rsplit_once('.').map_or("", |(schema, _)| self.table.get(..=schema.len()).unwrap_or_default())
    }
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unique = if self.is_unique { "unique " } else { "" };
        write!(f, "{unique}index on {} ({})", self.table, self.columns.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(columns: &[&'static str], is_unique: bool, found: (&[&str], bool)) -> bool {
        let needed = Needed { table: "t", columns: columns.to_vec(), is_unique, name: String::new() };
        let columns = found.0.iter().map(|name| (*name).to_owned()).collect();
        needed.is_met_by(&Found { columns, is_unique: found.1 })
    }

    #[test]
    fn a_lookup_needs_its_columns_first_and_a_unique_one_exactly_its_own() {
        assert!(is_met(&["a"], false, (&["a", "b"], false)));
        assert!(is_met(&["a"], false, (&["a"], true)));
        assert!(!is_met(&["a"], false, (&["b", "a"], false)));
        assert!(!is_met(&["a", "b"], false, (&["a"], false)));
        assert!(is_met(&["a", "b"], true, (&["b", "a"], true)));
        assert!(!is_met(&["a", "b"], true, (&["a", "b"], false)));
        assert!(!is_met(&["a"], true, (&["a", "b"], true)), "unique together is not unique alone");
        assert!(!is_met(&["a", "b"], true, (&["a"], true)));
    }

    #[test]
    fn every_one_has_a_name_of_its_own() {
        let mut names: Vec<_> = needed().iter().map(|needed| (needed.schema(), needed.name.clone())).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|(_, name)| !name.is_empty()));
    }
}

//! In which schema the AppView's tables are: one, whatever else the search path of a role holds.
//!
//! Statements name these tables without a schema. With two schemas in the path, each with some of the tables, one statement would
//! write here and the next one there. So a transaction begins with a path that leads to one schema with such tables, which is found
//! alike by every role: the one that a migration recorded beside what is Penstock's own; before that the first of the role's path
//! that has the AppView's tables; else the first of it. Other schemas stay in the path where none of the tables is in them, for the
//! functions that triggers and defaults of others call.

use sqlx::{PgConnection, Row as _};

/// What a migration writes beside the schema `penstock`, before the name of the other one.
pub const RECORD: &str = "Penstock, for the tables in schema ";

/// Writes the search path into a statement, for the session or for the transaction.
macro_rules! search_path {
    ($local:literal) => {
        concat!(
            "\
WITH path AS (
  SELECT s.name, s.at, ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY (
        '{blocks,bookmarks,feed_generators,feed_items,firehose_cursor,follows,generic_records,label_definitions,label_events,labeler_services,
          labels,likes,list_blocks,list_items,list_mutes,lists,messages,mutes,notifications,post_aggregations,post_gates,
          post_viewer_states,posts,quotes,reposts,starter_packs,thread_contexts,thread_gates,thread_mutes,user_settings,users,
          verifications}'::name[])) AS tables
    FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, at)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.name WHERE s.name <> 'penstock'
), chosen AS (
  SELECT coalesce(
    (SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE n.nspname =
      substring(obj_description(to_regnamespace('penstock'), 'pg_namespace') FROM '^Penstock, for the tables in schema (.*)$')),
    (SELECT name FROM path WHERE tables @> '{posts,post_aggregations}' ORDER BY at LIMIT 1),
    (SELECT name FROM path ORDER BY at LIMIT 1), 'public') AS name
)
SELECT set_config('search_path', concat_ws(', ', quote_ident(name),
    (SELECT string_agg(quote_ident(path.name), ', ' ORDER BY at) FROM path WHERE path.name <> chosen.name AND tables = '{}')), ",
            $local,
            ") FROM chosen"
        )
    };
}

/// Sets the search path of the session.
pub const SEARCH_PATH: &str = search_path!("false");

/// Sets the search path of the transaction.
pub const SEARCH_PATH_LOCAL: &str = search_path!("true");

/// The search path, and what is recorded.
const FOUND: &str =
    "SELECT current_setting('search_path'), obj_description(to_regnamespace('penstock'), 'pg_namespace')";

/// The schema that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub schema: String,
    /// Whether a migration recorded it.
    pub recorded: bool,
}

/// Returns the schema that the search path leads to, once one of the statements here has set it.
///
/// # Errors
/// When PostgreSQL cannot be asked.
pub async fn found(conn: &mut PgConnection) -> sqlx::Result<Found> {
    let (path, record): (String, Option<String>) = sqlx::query_as(FOUND).persistent(false).fetch_one(conn).await?;
    let schema = unquoted(first(&path));
    let recorded = record.is_some_and(|record| record.strip_prefix(RECORD) == Some(&schema));
    Ok(Found { schema, recorded })
}

/// Returns the schema as it stands before the name of a table, for statements that do not set the path; within a transaction or not.
///
/// # Errors
/// When PostgreSQL cannot be asked.
pub async fn qualifier(conn: &mut PgConnection) -> sqlx::Result<String> {
    // Not prepared: behind a pooler the second half could come to another session.
    let row = sqlx::raw_sql(SEARCH_PATH_LOCAL).fetch_one(conn).await?;
    Ok(first(row.try_get(0)?).to_owned())
}

/// Writes the schema into a statement, for each `{schema}` in it.
///
/// # Errors
/// When PostgreSQL cannot be asked.
pub async fn placed(conn: &mut PgConnection, statement: &str) -> sqlx::Result<String> {
    Ok(statement.replace("{schema}", &qualifier(conn).await?))
}

/// Returns the first name of a path, in its quotes where it has some: within them it may hold anything.
fn first(path: &str) -> &str {
    let end = match path.strip_prefix('"') {
        Some(rest) => rest.replace("\"\"", "__").find('"').map(|end| end + 2),
        None => path.find(','),
    };
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

fn unquoted(name: &str) -> String {
    let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    inner.map_or_else(|| name.to_owned(), |inner| inner.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_path_is_found_whatever_is_in_it() {
        for (path, quoted, name) in [
            ("public", "public", "public"),
            ("tenant, public", "tenant", "tenant"),
            ("\"a, \"\"b\", public", "\"a, \"\"b\"", "a, \"b"),
        ] {
            assert_eq!((first(path), unquoted(first(path)).as_str()), (quoted, name));
        }
    }
}

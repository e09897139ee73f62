//! What posts said before a batch changes or removes them.

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::active::Active;
use crate::store::decide::Plan;
use crate::store::table::Table;

/// What is needed of posts after they changed or were deleted.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Posts, and the accounts that each of them names.
    pub(super) mentions: Vec<(String, String)>,
    /// The posts that began their threads.
    pub(super) roots: Vec<String>,
}

/// Besides the mentions, finds what the context of a reply depends on.
const BEFORE: &str = "\
SELECT c.uri, c.root_uri, ARRAY(
    SELECT m.did #>> '{}' FROM jsonb_path_query(c.facets, '$[*].features[*]
      ? (@.\"$type\" == \"app.bsky.richtext.facet#mention\" || @.py_type == \"app.bsky.richtext.facet#mention\").did') AS m (did)
     WHERE jsonb_typeof(m.did) = 'string')
  FROM posts AS c WHERE c.uri = ANY($1)";

/// Reads it before posts are changed or deleted.
pub(crate) async fn read_before(conn: &mut PgConnection, active: Active, plan: &Plan<'_, '_>) -> sqlx::Result<Before> {
    let mut before = Before::default();
    let Some(posts) = plan.tables.get(&Table::Posts).filter(|_| active.depends_on_posts()) else { return Ok(before) };
    if posts.gone.is_empty() && posts.updates.is_empty() {
        return Ok(before);
    }
    let rows: Vec<(String, Option<String>, Vec<String>)> =
        sqlx::query_as(BEFORE).bind(posts.gone.iter().chain(posts.updates.keys()).bind_iter()).fetch_all(conn).await?;
    for (uri, root, named) in rows {
        before.roots.extend(root);
        before.mentions.extend(named.into_iter().map(|did| (uri.clone(), did)));
    }
    Ok(before)
}

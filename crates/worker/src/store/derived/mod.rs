//! What an AppView derives from records: notifications, contexts of threads, states of posts, events of labels.
//!
//! Nothing here depends on what happened. After a batch wrote its records and counts, each table is brought to what the
//! rows say now, for whatever the batch touched: what is missing is made, what has no cause any more goes, what stands
//! rightly is not touched. Whoever changes a record holds, until the end of its transaction, the counts of every post on
//! which something derived depends, so that of two batches the later one sees all that the earlier one wrote.

mod active;
mod label_events;
mod notifications;
mod stale;
mod thread_contexts;
mod touched;
mod unfinished;
mod viewer_states;

use penstock_core::settings::Projection;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::counts::Tally;
use super::decide::Plan;
use super::table::Table;
pub(crate) use active::{Active, Projector, missing};
pub(crate) use stale::Stale;
use touched::Touched;
pub(crate) use unfinished::{finish, leave};

/// What of posts that go or change is needed once they have.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Posts, and the accounts that each of them names.
    mentions: Vec<(String, String)>,
    /// The posts that began their threads.
    roots: Vec<String>,
}

/// Besides the mentions, finds what the context of a reply depends on.
const BEFORE: &str = "\
SELECT c.uri, c.root_uri, ARRAY(
    SELECT m.did #>> '{}' FROM jsonb_path_query(c.facets, '$[*].features[*]
      ? (@.\"$type\" == \"app.bsky.richtext.facet#mention\" || @.py_type == \"app.bsky.richtext.facet#mention\").did') AS m (did)
     WHERE jsonb_typeof(m.did) = 'string')
  FROM posts AS c WHERE c.uri = ANY($1)";

/// Reads what is needed of posts before they go or change.
pub(crate) async fn look(conn: &mut PgConnection, active: Active, plan: &Plan<'_, '_>) -> sqlx::Result<Before> {
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

/// Adds to what the batch holds every post on which something derived depends, whether or not its counts change.
pub(crate) fn hold(active: Active, plan: &mut Plan<'_, '_>, before: &Before) {
    if !active.depends_on_posts() {
        return;
    }
    let Plan { tables, counts, pairs, .. } = plan;
    for pair in pairs.iter().filter(|pair| matches!(pair.table, Table::Likes | Table::Reposts)) {
        counts.hold(&pair.b);
    }
    for root in &before.roots {
        counts.hold(root);
    }
    let Some(posts) = tables.get(&Table::Posts) else { return };
    for uri in posts.gone.iter().chain(posts.inserts.keys()) {
        counts.hold(uri);
    }
    for (_, row) in posts.updates.values().chain(posts.inserts.values()) {
        let quoted = row.derived.as_ref().and_then(|derived| derived.quote.as_ref()).map(|(uri, _)| &**uri);
        for uri in [row.column("parent_uri"), row.column("root_uri"), quoted].into_iter().flatten() {
            counts.hold(uri);
        }
    }
}

/// Brings every table that is on to what the rows say, and returns what of the cache is stale by that.
///
/// Comes after the counts, which hold the posts; `page` rows at most follow at once from posts that came or went, the
/// others are left to [`finish`].
pub(crate) async fn write(
    conn: &mut PgConnection,
    active: Active,
    plan: &Plan<'_, '_>,
    before: &Before,
    page: u32,
    tally: &mut Tally,
) -> sqlx::Result<Vec<String>> {
    let touched = Touched::of(plan, before);
    if active.has(Projection::LabelEvents) {
        label_events::write(conn, &touched, tally).await?;
    }
    if active.has(Projection::PostViewerStates) {
        viewer_states::write(conn, &touched, tally).await?;
    }
    let (contexts, whole) = write_for_posts(conn, active, &touched, page, tally).await?;
    if !whole {
        leave(conn, &touched.moved).await?;
    }
    Ok(contexts)
}

/// Writes what depends on posts; returns the replies whose context changed, and whether nothing is left to do.
async fn write_for_posts(
    conn: &mut PgConnection,
    active: Active,
    touched: &Touched<'_>,
    page: u32,
    tally: &mut Tally,
) -> sqlx::Result<(Vec<String>, bool)> {
    let mut whole = true;
    let mut contexts = Vec::new();
    if active.has(Projection::Notifications) {
        whole &= notifications::write(conn, touched, page, tally).await?;
    }
    if active.has(Projection::ThreadContexts) {
        let (changed, all) = thread_contexts::write(conn, touched, page, tally).await?;
        contexts = changed;
        whole &= all;
    }
    Ok((contexts, whole))
}

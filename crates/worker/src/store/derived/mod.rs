//! What an AppView derives from records: notifications, contexts of threads, states of posts, events of labels.
//!
//! In: the plan of a batch, before and after it is written.
//! Out: rows of the projections, and which keys of the AppView's cache are stale.
//! Called by `transact`; by `sweep` for what is left for later.
//!
//! Nothing here depends on history. After a batch wrote its records and counts, each table is brought up to date with the
//! rows, for whatever the batch touched: missing rows are created, rows without a cause are deleted, correct rows are not
//! touched. A batch locks, until its transaction ends, the counts of every post on which a derived row depends, so that of
//! two batches the later one sees all that the earlier one wrote.

mod active;
mod before;
mod label_events;
mod notifications;
mod posts;
mod stale;
mod thread_contexts;
mod touched;
mod unfinished;
mod viewer_states;

use penstock_core::settings::Projection;
use sqlx::PgConnection;

use super::decide::Plan;
use super::table::Table;
use super::tally::Tally;
pub(crate) use active::{Active, Projector, missing};
pub(crate) use before::{Before, read_before};
use posts::write_for_posts;
pub(crate) use stale::Stale;
use touched::Touched;
pub(crate) use unfinished::{defer, finish};

/// Locks every post on which a derived row depends, whether or not its counts change.
pub(crate) fn lock_posts(active: Active, plan: &mut Plan<'_, '_>, before: &Before) {
    if !active.depends_on_posts() {
        return;
    }
    let Plan { tables, counts, pairs, .. } = plan;
    for pair in pairs.iter().filter(|pair| matches!(pair.table, Table::Likes | Table::Reposts)) {
        counts.lock(&pair.b);
    }
    for root in &before.roots {
        counts.lock(root);
    }
    let Some(posts) = tables.get(&Table::Posts) else { return };
    for uri in posts.gone.iter().chain(posts.inserts.keys()) {
        counts.lock(uri);
    }
    for (_, row) in posts.updates.values().chain(posts.inserts.values()) {
        let quoted = row.derived.as_ref().and_then(|derived| derived.quote.as_ref()).map(|(uri, _)| &**uri);
        for uri in [row.column("parent_uri"), row.column("root_uri"), quoted].into_iter().flatten() {
            counts.lock(uri);
        }
    }
}

/// Brings every enabled table up to date with the rows, and returns which replies' contexts became stale in the cache.
///
/// Comes after the counts, which lock the posts. Posts that were created or deleted and have `page` or more dependent rows
/// are left to [`finish`]: creating and deleting one repeatedly would make each batch scan all of them.
pub(crate) async fn write(
    conn: &mut PgConnection,
    active: Active,
    plan: &Plan<'_, '_>,
    before: &Before,
    page: u32,
    tally: &mut Tally,
) -> sqlx::Result<Vec<String>> {
    let mut touched = Touched::of(plan, before);
    if active.depends_on_posts() && !touched.moved.is_empty() {
        let large = unfinished::large(conn, &touched.moved, page).await?;
        if !large.is_empty() {
            defer(conn, &large).await?;
            touched.moved.retain(|uri| !large.contains(*uri));
        }
    }
    if active.has(Projection::LabelEvents) {
        label_events::write(conn, &touched, tally).await?;
    }
    if active.has(Projection::PostViewerStates) {
        viewer_states::write(conn, &touched, tally).await?;
    }
    let (contexts, whole) = write_for_posts(conn, active, &touched, page, tally).await?;
    if !whole {
        defer(conn, &touched.moved).await?;
    }
    Ok(contexts)
}

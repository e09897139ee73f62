//! What depends on posts: notifications and contexts of threads.

use penstock_core::settings::Projection;
use sqlx::PgConnection;

use super::active::Active;
use super::touched::Touched;
use super::{notifications, thread_contexts};
use crate::store::tally::Tally;

/// Writes what depends on posts; returns the replies whose context changed, and whether nothing is left to do.
pub(super) async fn write_for_posts(
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

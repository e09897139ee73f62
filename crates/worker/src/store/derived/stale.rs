//! Which keys of the AppView's cache a batch makes stale.

use std::collections::BTreeSet;

use penstock_core::keys::cache;

use crate::store::decide::Plan;
use crate::store::parsed::{Parsed, What};
use crate::store::row::Row;
use crate::store::table::{Count, Table};

/// Keys of the AppView's cache in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale(BTreeSet<String>);

// === impl Stale ===

impl Stale {
    /// Adds what follows from the changes of a batch, once its counts are known.
    pub(crate) fn add_changes(&mut self, plan: &Plan<'_, '_>) {
        for (post, deltas) in plan.counts.by_post() {
            if deltas.iter().any(|by| *by != 0) {
                self.0.insert(cache::post_aggregations(post));
            }
        }
        if let Some(posts) = plan.tables.get(&Table::Posts) {
            self.0.extend(posts.gone.iter().chain(posts.inserts.keys()).map(|post| cache::post_aggregations(post)));
        }
        for pair in plan.pairs.iter().filter(|pair| is_viewed(pair.table)) {
            self.0.insert(cache::post_viewer_states(&pair.a, &pair.b));
        }
    }

    /// Adds what follows from what a batch says, whether or not it changes anything: it may have been committed before, by
    /// a worker that ended before it could say so.
    pub(crate) fn add_said(&mut self, batch: &Parsed<'_>) {
        for op in &batch.ops {
            if let What::Put(row) = &op.what {
                self.add_row(row);
            }
        }
    }

    fn add_row(&mut self, row: &Row<'_>) {
        let quoted = row.derived.as_ref().and_then(|derived| derived.quote.as_ref()).map(|(uri, _)| &**uri);
        self.0.extend(row.counted().into_iter().chain(quoted).map(cache::post_aggregations));
        if let Some(pair) = row.pair().filter(|pair| is_viewed(pair.table)) {
            self.0.insert(cache::post_viewer_states(&pair.a, &pair.b));
        }
    }

    /// Adds the contexts of replies.
    pub(crate) fn add_contexts(&mut self, replies: &[String]) {
        self.0.extend(replies.iter().map(|reply| cache::thread_contexts(reply)));
    }

    /// Returns the keys.
    pub(crate) fn into_keys(self) -> BTreeSet<String> {
        self.0
    }
}

fn is_viewed(table: Table) -> bool {
    let viewed = [Count::Likes, Count::Reposts, Count::Bookmarks];
    table.spec().counted.is_some_and(|(_, count)| viewed.contains(&count))
}

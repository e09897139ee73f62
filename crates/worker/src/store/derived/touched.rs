//! What a batch touched, as the statements of projections take it: pure.

use std::collections::BTreeSet;

use super::before::Before;
use crate::store::decide::{Plan, Writes};
use crate::store::table::Table;

/// A record that stands, and its CID where it is known.
type Noted<'p> = (&'p str, Option<&'p str>);

/// What of records came, changed or went.
#[derive(Debug, Default)]
pub(super) struct Touched<'p> {
    /// Likes that came or changed.
    pub(super) likes: Vec<Noted<'p>>,
    /// Reposts that came or changed.
    pub(super) reposts: Vec<Noted<'p>>,
    /// Follows that came or changed.
    pub(super) follows: Vec<Noted<'p>>,
    /// Likes, reposts and follows that went, or moved to another subject.
    pub(super) gone: Vec<&'p str>,
    /// The likes among them.
    pub(super) gone_likes: Vec<&'p str>,
    /// Likes and follows that begin to wait for their place.
    pub(super) demoted: Vec<&'p str>,
    /// Posts that came or changed.
    pub(super) posts: Vec<&'p str>,
    /// Posts that changed or went.
    pub(super) changed: Vec<&'p str>,
    /// Posts that came or went.
    pub(super) moved: Vec<&'p str>,
    /// Whom posts named before they changed or went.
    pub(super) mentions: &'p [(String, String)],
    /// Accounts and posts where likes came, went or changed.
    pub(super) liked: Vec<(&'p str, &'p str)>,
    /// Accounts and posts where likes, reposts or bookmarks came, went or changed.
    pub(super) viewed: BTreeSet<(&'p str, &'p str)>,
    /// Labels that came.
    pub(super) labels: Vec<&'p str>,
    /// Labels that went.
    pub(super) gone_labels: Vec<&'p str>,
}

// === impl Touched ===

impl<'p> Touched<'p> {
    pub(super) fn of(plan: &'p Plan<'_, '_>, before: &'p Before) -> Self {
        let mut touched = Self { mentions: &before.mentions, ..Self::default() };
        for (table, writes) in &plan.tables {
            match table {
                Table::Likes => {
                    touched.likes = noted(writes);
                    touched.gone_likes = uris(&writes.gone);
                }
                Table::Reposts => touched.reposts = noted(writes),
                Table::Follows => touched.follows = noted(writes),
                Table::Posts => touched.take_posts(writes),
                Table::Labels => {
                    touched.labels = writes.inserts.keys().map(String::as_str).collect();
                    touched.gone_labels = uris(&writes.gone);
                }
                _ => {}
            }
            if let Table::Likes | Table::Reposts | Table::Follows = table {
                touched.gone.extend(uris(&writes.gone));
            }
            if let Table::Likes | Table::Follows = table {
                touched.demoted.extend(uris(&writes.demoted));
            }
        }
        for pair in &plan.pairs {
            let at = (&*pair.a, &*pair.b);
            if pair.table == Table::Likes {
                touched.liked.push(at);
            }
            if let Table::Likes | Table::Reposts | Table::Bookmarks = pair.table {
                touched.viewed.insert(at);
            }
        }
        touched
    }

    /// One post of which it is not known what is left to do.
    pub(super) fn post(uri: &'p str) -> Self {
        Self { moved: vec![uri], ..Self::default() }
    }

    fn take_posts(&mut self, writes: &'p Writes<'_, '_>) {
        let keys = |rows: &'p std::collections::BTreeMap<String, _>| rows.keys().map(String::as_str);
        self.posts = keys(&writes.updates).chain(keys(&writes.inserts)).collect();
        self.changed = writes.gone.iter().map(String::as_str).chain(keys(&writes.updates)).collect();
        self.moved = writes.gone.iter().map(String::as_str).chain(keys(&writes.inserts)).collect();
    }
}

fn uris(uris: &BTreeSet<String>) -> Vec<&str> {
    uris.iter().map(String::as_str).collect()
}

fn noted<'p>(writes: &'p Writes<'_, '_>) -> Vec<Noted<'p>> {
    let rows = writes.updates.iter().chain(&writes.inserts);
    rows.map(|(uri, (_, row))| {
        let derived = row.derived.as_ref().map(|derived| &*derived.cid);
        (&**uri, row.cid.as_deref().or(derived))
    })
    .collect()
}

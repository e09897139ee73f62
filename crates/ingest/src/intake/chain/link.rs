//! What a frame says of the chain of its repo.

use penstock_wire::{Event, Sync, rev_number};

use crate::intake::chain::state::{Link, prefix};

/// Returns the link that a commit is; none for the other kinds, and where its rev is no TID.
pub(crate) fn of_commit(event: &Event) -> Option<Link> {
    let proof = event.proof.as_deref();
    let text = |rev: &Option<Box<str>>| rev.as_deref().and_then(rev_number);
    Some(Link {
        rev: text(&event.rev)?,
        since: text(&event.since),
        root: proof.map(|proof| prefix(&proof.data)),
        before: proof.and_then(|proof| proof.prev_data.as_ref()).map(prefix),
    })
}

/// Returns the rev and the root that a `#sync` says; none where its rev is no TID.
pub(crate) fn of_sync(sync: &Sync) -> Option<(u64, Option<u64>)> {
    Some((rev_number(&sync.rev)?, sync.proof.as_deref().map(|proof| prefix(&proof.data))))
}

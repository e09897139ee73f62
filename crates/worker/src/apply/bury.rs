//! Makes dead letters of entries that will never succeed: first in PostgreSQL, then in Redis, where they leave the group.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use penstock_core::data::EventKind;
use penstock_core::dead_letter;
use penstock_core::entry::{Entry, Event};
use penstock_core::stream::StreamId;
use serde_json::value::RawValue;

use super::gather::{field, order};
use super::traces;
use crate::action::Action;
use crate::consumer::{Burial, Delivery};
use crate::state::work::{Abandoned, Work};
use crate::store::DeadLetter;
use penstock_core::backoff::Backoff;

/// The most bytes of the text that says why.
const MAX_ERROR: usize = 1000;

/// What of an entry failed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The ops that failed; none where the whole entry did.
    ops: BTreeSet<usize>,
    error: String,
}

// === impl Failure ===

impl Failure {
    /// The whole entry failed.
    pub(crate) fn whole(error: String) -> Self {
        Self { ops: BTreeSet::new(), error }
    }

    /// Some ops failed.
    pub(crate) fn add(&mut self, ops: &[usize], error: &str) {
        self.ops.extend(ops);
        if self.error.len() < MAX_ERROR {
            let separator = if self.error.is_empty() { "" } else { "; " };
            let first = ops.first().copied().unwrap_or_default();
            self.error.push_str(&format!("{separator}op {first}: {error}"));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns whether a part of an entry with so many ops was applied.
    fn is_partial(&self, ops: usize) -> bool {
        !self.ops.is_empty() && self.ops.len() < ops
    }
}

/// Dead-letters an entry, reduced to what failed.
pub(crate) async fn bury(work: &Work, entry: &Entry, origin: &Delivery, failure: &Failure) -> Result<(), Abandoned> {
    let ops = match &entry.event {
        Event::Commit(commit) => commit.ops.len(),
        Event::Identity(_) | Event::Account(_) => 0,
    };
    bury_commit(work, origin, entry.event.did(), ops, failure).await
}

/// Dead-letters an entry of this repo with so many ops, reduced to what failed.
pub(crate) async fn bury_commit(
    work: &Work,
    origin: &Delivery,
    repo: &str,
    ops: usize,
    failure: &Failure,
) -> Result<(), Abandoned> {
    let whole = field(&origin.raw.data);
    let is_partial = failure.is_partial(ops);
    let reduced = if is_partial { reduce(whole, &failure.ops) } else { None };
    let applied = is_partial.then_some(EventKind::Commit);
    let data = reduced.as_deref().unwrap_or(whole);
    put(work, origin, order(&origin.raw), data, repo, &failure.error, applied).await
}

/// Dead-letters an entry that was not, or could not be, decoded.
pub(crate) async fn bury_unread(work: &Work, origin: &Delivery, error: &str) -> Result<(), Abandoned> {
    let data = field(&origin.raw.data);
    put(work, origin, order(&origin.raw), data, dead_letter::repo_of(data).unwrap_or_default(), error, None).await
}

async fn put(
    work: &Work,
    origin: &Delivery,
    order: StreamId,
    data: &[u8],
    repo: &str,
    error: &str,
    applied: Option<EventKind>,
) -> Result<(), Abandoned> {
    let burial = Burial {
        id: origin.raw.id,
        applied,
        kind: field(&origin.raw.kind),
        data,
        seq: field(&origin.raw.seq),
        order,
        deliveries: origin.times,
        error: shortened(error),
        repo,
    };
    record(work, &burial).await?;
    let new = work.insist(Action::Bury, || work.consumer.bury(&burial)).await?;
    work.held.release([burial.id]);
    work.show_held();
    traces::buried(burial.id, burial.error);
    work.events.buried(&burial, new);
    Ok(())
}

/// Writes the dead letter into PostgreSQL, whatever it takes.
async fn record(work: &Work, burial: &Burial<'_>) -> Result<(), Abandoned> {
    let kind = String::from_utf8_lossy(burial.kind);
    let seq = String::from_utf8_lossy(burial.seq);
    let letter = DeadLetter {
        orig_id: burial.order.to_string().into(),
        kind: &kind,
        data: burial.data,
        seq: &seq,
        deliveries: burial.deliveries,
        error: burial.error,
        consumer: work.consumer.name(),
        repo: burial.repo,
    };
    keep(work, &letter).await
}

/// Keeps a dead letter in PostgreSQL, whatever it takes.
pub(crate) async fn keep(work: &Work, letter: &DeadLetter<'_>) -> Result<(), Abandoned> {
    let mut backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
    loop {
        let written = tokio::select! {
            biased;
            written = work.store.dead_letter(letter) => written,
            () = work.abandon.cancelled() => return Err(Abandoned),
        };
        if work.record(Action::Keep, written).is_some() {
            work.added_letters.add(letter.data.len());
            return Ok(());
        }
        work.pause(backoff.fail()).await?;
    }
}

/// The text that says why, bounded.
pub(crate) fn shortened(error: &str) -> &str {
    error.get(..error.floor_char_boundary(MAX_ERROR)).unwrap_or(error)
}

/// Leaves of a commit's JSON only those ops, each byte for byte; `None` where it is not the JSON of a commit.
fn reduce(data: &[u8], ops: &BTreeSet<usize>) -> Option<Vec<u8>> {
    let commit: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(data).ok()?;
    let all: Vec<&RawValue> = serde_json::from_str(commit.get("ops")?.get()).ok()?;
    let kept: Vec<&RawValue> = ops.iter().filter_map(|index| all.get(*index).copied()).collect();
    let kept = serde_json::value::to_raw_value(&kept).ok()?;
    let reduced: BTreeMap<_, _> =
        commit.iter().map(|(key, value)| (key, if key == "ops" { &*kept } else { *value })).collect();
    serde_json::to_vec(&reduced).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reduced_commit_keeps_its_frame_and_the_bad_ops_as_they_were() {
        let data = br#"{"repo":"did:plc:a","ops":[{"a": 0},{"a":"\ud83d"},{"a":2}],"rev":"3k","time":null}"#;
        let reduced = reduce(data, &BTreeSet::from([1, 2])).unwrap();
        assert_eq!(
            String::from_utf8(reduced).unwrap(),
            r#"{"ops":[{"a":"\ud83d"},{"a":2}],"repo":"did:plc:a","rev":"3k","time":null}"#
        );
        assert_eq!(reduce(b"[]", &BTreeSet::new()), None);
    }

    #[test]
    fn a_failure_says_which_ops_and_does_not_grow_without_bound() {
        let mut failure = Failure::default();
        failure.add(&[3], "no subject");
        failure.add(&[1, 2], "too long");
        assert_eq!(failure.error, "op 3: no subject; op 1: too long");
        assert_eq!(failure.ops.len(), 3);
        for _ in 0..1000 {
            failure.add(&[4], "again and again");
        }
        assert!(failure.error.len() < MAX_ERROR + 100);
    }
}

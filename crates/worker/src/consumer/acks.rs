//! What was settled leaves the group: applied, or among the dead letters. Each script may be repeated safely.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::types::Value;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::dead_letter::{self, Author};
use penstock_core::live;
use penstock_core::live::cluster;
use penstock_core::script;
use penstock_core::stream::StreamId;
use serde::Deserialize;

use super::client::{Answer, Consumer, Names, text, text_of};

/// The kinds of entry, in the order of the counters.
const KINDS: [EventKind; 3] = [EventKind::Commit, EventKind::Identity, EventKind::Account];

/// The IDs of applied entries, by kind.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgement {
    ids: [Vec<StreamId>; 3],
    /// Keys of the AppView's cache that are stale by what was applied.
    stale: BTreeSet<String>,
}

/// An entry that failed for good.
#[derive(Clone, Debug)]
pub(crate) struct Burial<'a> {
    /// Its ID in the stream.
    pub(crate) id: StreamId,
    /// Its kind, where a part of it was applied.
    pub(crate) applied: Option<EventKind>,
    /// The `type`, as it stood in the entry.
    pub(crate) kind: &'a [u8],
    /// The `data`, reduced to what failed.
    pub(crate) data: &'a [u8],
    /// The `seq`, as it stood in the entry.
    pub(crate) seq: &'a [u8],
    /// What a replay orders it by.
    pub(crate) order: StreamId,
    /// How often it was delivered.
    pub(crate) deliveries: u64,
    /// Why.
    pub(crate) error: &'a str,
    /// The DID whose entry it is; empty where that is not known.
    pub(crate) repo: &'a str,
}

/// What of a commit says where its records stand.
#[derive(Deserialize)]
struct Paths {
    ops: Vec<OpPath>,
}

/// What of an op says where its record stands.
#[derive(Deserialize)]
struct OpPath {
    path: String,
}

// === impl Burial ===

impl Burial<'_> {
    /// Returns the URI of the first record that failed, and how many did; none where the data is no commit that can be read.
    pub(crate) fn first_record(&self) -> Option<(String, usize)> {
        let Paths { ops } = serde_json::from_slice(self.data).ok()?;
        let first = ops.first().filter(|_| !self.repo.is_empty())?;
        Some((format!("at://{}/{}", self.repo, first.path), ops.len()))
    }
}

// === impl Acknowledgement ===

impl Acknowledgement {
    pub(crate) fn add(&mut self, kind: EventKind, id: StreamId) {
        let [commits, identities, accounts] = &mut self.ids;
        match kind {
            EventKind::Commit => commits.push(id),
            EventKind::Identity => identities.push(id),
            EventKind::Account => accounts.push(id),
        }
    }

    /// Adds keys of the AppView's cache that are to go with the entries.
    pub(crate) fn make_stale(&mut self, stale: BTreeSet<String>) {
        if self.stale.is_empty() {
            self.stale = stale;
        } else {
            self.stale.extend(stale);
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.ids.iter().flatten().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.iter().all(Vec::is_empty) && self.stale.is_empty()
    }

    fn arguments<'k>(&self, group: &str, kept: Duration, stale: impl Iterator<Item = &'k String>) -> Vec<Value> {
        let kept = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
        let mut arguments =
            vec![group.into(), cluster::TOTAL.into(), Value::Integer(kept), Value::Integer(KINDS.len() as i64)];
        for (kind, ids) in KINDS.into_iter().zip(&self.ids) {
            arguments.extend([cluster::kind(kind).into(), kind.as_str().into(), Value::Integer(ids.len() as i64)]);
        }
        arguments.extend(self.ids().map(text));
        arguments.extend(stale.map(|key| Value::from(key.as_str())));
        arguments
    }
}

// === impl Consumer ===

impl Consumer {
    /// Acknowledges applied entries and counts those that were pending, in total, by kind and in the minute of `now`.
    ///
    /// Returns how many were.
    pub(crate) async fn acknowledge(&self, applied: &Acknowledgement, now: Timestamp) -> Answer<u64> {
        let Names { stream, group, consumer, keys, activity_retention, .. } = &*self.names;
        let minute = u64::try_from(now.as_second() / 60).unwrap_or_default();
        let applied_by_us = keys.consumer_applied(consumer);
        let touched = vec![stream.to_string(), keys.cluster_metrics(), keys.activity(minute), applied_by_us];
        let deleted = self.delete_stale_before(&applied.stale).await?;
        let stale = applied.stale.iter().skip(deleted);
        let arguments = applied.arguments(group, *activity_retention, stale);
        let script = format!("{}{}", script::NEEDS, include_str!("acknowledge.lua"));
        script::run(&self.client, script, touched, arguments).await
    }

    /// Acknowledges an entry that failed for good and puts it among the dead letters; `false` where it was not pending.
    pub(crate) async fn bury(&self, burial: &Burial<'_>) -> Answer<bool> {
        let Names { stream, group, consumer, keys, .. } = &*self.names;
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec().into());
        let arguments = vec![
            text_of(group),
            text(burial.id),
            cluster::ERRORS.into(),
            cluster::TOTAL.into(),
            burial.applied.map_or("", live::cluster::kind).into(),
            bytes(burial.kind),
            bytes(burial.data),
            bytes(burial.seq),
            text(burial.order),
            Value::Integer(i64::try_from(burial.deliveries).unwrap_or(i64::MAX)),
            burial.error.into(),
            text_of(consumer),
            burial.repo.into(),
        ];
        let letters = dead_letter::script(Author::Worker, self.names.letters);
        let script = format!("{}{letters}{}", script::NEEDS, include_str!("bury.lua"));
        let mut touched = vec![stream.to_string(), keys.dead_letters(), keys.cluster_metrics()];
        touched.extend(keys.beside_letters(Author::Worker));
        let buried: u64 = script::run(&self.client, script, touched, arguments).await?;
        Ok(buried == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_names_the_first_record_that_failed() {
        let named = |repo, data: &str| {
            let id = StreamId { ms: 1, seq: 0 };
            let (applied, kind, seq, error) = (None, &b"commit"[..], &b"7"[..], "no");
            let data = data.as_bytes();
            Burial { id, applied, kind, data, seq, order: id, deliveries: 1, error, repo }.first_record()
        };
        let two = r#"{"repo":"did:plc:a","ops":[{"action":"create","path":"app.bsky.feed.like/3k"},{"action":"delete","path":"x.y/z"}]}"#;
        assert_eq!(named("did:plc:a", two), Some(("at://did:plc:a/app.bsky.feed.like/3k".to_owned(), 2)));
        for data in ["{\"ops\":[]}", "{\"ops\":[{}]}", "{\"did\":\"did:plc:a\",\"active\":true}", "torn", ""] {
            assert_eq!(named("did:plc:a", data), None, "{data}");
        }
        assert_eq!(named("", two), None, "nobody knows whose it is");
    }
}

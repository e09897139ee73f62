//! What was settled leaves the group: applied, or among the dead letters. Each script may be repeated safely.

use std::collections::BTreeSet;

use fred::types::Value;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::live::cluster;
use penstock_core::stream::StreamId;
use penstock_core::{dead_letter, live};

use super::{Answer, Consumer, Names, text, text_of};

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

    fn arguments<'k>(&self, group: &str, stale: impl Iterator<Item = &'k String>) -> Vec<Value> {
        let mut arguments = vec![group.into(), cluster::TOTAL.into(), Value::Integer(KINDS.len() as i64)];
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
        let Names { stream, group, consumer, keys, .. } = &*self.names;
        let minute = u64::try_from(now.as_second() / 60).unwrap_or_default();
        let applied_by_us = keys.consumer_applied(consumer);
        let touched = vec![stream.to_string(), keys.cluster_metrics(), keys.activity(minute), applied_by_us];
        let deleted = self.delete_stale_before(&applied.stale).await?;
        let stale = applied.stale.iter().skip(deleted);
        self.run(include_str!("acknowledge.lua"), touched, applied.arguments(group, stale)).await
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
        ];
        let script = format!("{}{}", dead_letter::LUA, include_str!("bury.lua"));
        let touched = vec![stream.to_string(), keys.dead_letters(), keys.cluster_metrics()];
        let buried: u64 = self.run(script, touched, arguments).await?;
        Ok(buried == 1)
    }
}

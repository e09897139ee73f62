//! Who is in the group, and how far it has come.

use std::collections::HashMap;
use std::time::Duration;

use fred::interfaces::{HashesInterface, KeysInterface, StreamsInterface};
use fred::types::{Expiration, Value};
use jiff::Timestamp;
use penstock_core::live::state;
use penstock_core::stream::StreamId;

use super::{Answer, Consumer, Names, stream_id, text_of};

/// How long a mark of a suspect outlives its last change, in seconds.
const SUSPECT_TTL: i64 = 86_400;

/// How far behind the group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Entries delivered and not acknowledged.
    pub(crate) pending: u64,
    /// Entries that no consumer was given yet.
    pub(crate) undelivered: Lag,
}

/// How many entries the group has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// As many as this.
    Exact(u64),
    /// Redis does not know.
    Unknown,
}

// === impl Lag ===

impl Lag {
    /// Corrects what Redis says: it counts entries that were trimmed before they were read (redis#13957), and knows
    /// nothing once an entry ahead of the group was deleted.
    fn new(length: u64, last: Option<StreamId>, delivered: Option<StreamId>, told: Option<u64>) -> Self {
        if length == 0 || (last.is_some() && last == delivered) {
            return Self::Exact(0);
        }
        told.map_or(Self::Unknown, |lag| Self::Exact(lag.min(length)))
    }
}

// === impl Consumer ===

impl Consumer {
    /// Removes this consumer from the group, unless entries are pending for it; says whether it did.
    pub(crate) async fn leave(&self) -> Answer<bool> {
        let Names { stream, group, consumer, .. } = &*self.names;
        let left: u64 = self.run(include_str!("leave.lua"), stream, vec![text_of(group), text_of(consumer)]).await?;
        Ok(left == 1)
    }

    /// Shows that a process lives under this consumer's name; returns which one did so last, if within `valid`.
    pub(crate) async fn announce(&self, process: &str, valid: Duration) -> Answer<Option<String>> {
        let Names { consumer, keys, .. } = &*self.names;
        let valid = Expiration::PX(valid.as_millis() as i64);
        self.client.set(keys.consumer_alive(consumer), process, Some(valid), None, true).await
    }

    /// Removes consumers that hold nothing and were idle for `idle`; returns their names.
    pub(crate) async fn reap(&self, idle: Duration) -> Answer<Vec<String>> {
        let Names { stream, group, consumer, .. } = &*self.names;
        let idle = Value::Integer(idle.as_millis() as i64);
        self.run(include_str!("reap.lua"), stream, vec![text_of(group), text_of(consumer), idle]).await
    }

    /// Asks how far behind the group is; none where there is no such group.
    pub(crate) async fn backlog(&self) -> Answer<Option<Backlog>> {
        let Some(group) = self.group_info().await? else { return Ok(None) };
        let of_stream: HashMap<String, Value> = self.client.xinfo_stream(&self.names.stream, false, None).await?;
        let number = |of: &HashMap<String, Value>, name: &str| of.get(name).and_then(Value::as_u64);
        let lag = Lag::new(
            number(&of_stream, "length").unwrap_or_default(),
            of_stream.get("last-generated-id").and_then(stream_id),
            group.get("last-delivered-id").and_then(stream_id),
            number(&group, "lag"),
        );
        Ok(Some(Backlog { pending: number(&group, "pending").unwrap_or_default(), undelivered: lag }))
    }

    /// Returns the ID below which every entry is settled: the first pending one, else what follows the last one read; or what
    /// the first of those was that ingest put back at the tail and that are not settled yet.
    pub(crate) async fn settled_below(&self) -> Answer<Option<StreamId>> {
        let Names { stream, group, keys, .. } = &*self.names;
        // First where reading stands: an entry read in between is later than that.
        let delivered = self.group_info().await?.and_then(|of| of.get("last-delivered-id").and_then(stream_id));
        let pending: Vec<Value> = self.client.xpending(stream, group.clone(), ()).await?;
        let first = pending.get(1).and_then(stream_id);
        // After the pending ones: until it is put back, an entry is among them.
        let fields = vec![state::REQUEUED, state::REQUEUED_ORDER];
        let requeued: Vec<Option<String>> = self.client.hmget(keys.ingest_state(), fields).await?;
        let mut requeued = requeued.into_iter().map(|id| id?.parse::<StreamId>().ok());
        let (last, order) = (requeued.next().flatten(), requeued.next().flatten());
        let settled = delivered.map(StreamId::next).map(|next| first.map_or(next, |first| first.min(next)));
        Ok(settled.map(|settled| match order {
            Some(order) if last.is_some_and(|last| last >= settled) => order.min(settled),
            _ => settled,
        }))
    }

    /// Reads the `origId`s of some dead letters, from that ID on, and says where to go on.
    pub(crate) async fn dead_letter_orders(&self, from: StreamId) -> Answer<(Vec<StreamId>, Option<StreamId>)> {
        const PAGE: u64 = 100;
        let letters: Vec<(Value, HashMap<String, Value>)> =
            self.client.xrange(self.names.keys.dead_letters(), from.to_string(), "+", Some(PAGE)).await?;
        let next = letters.last().filter(|_| letters.len() as u64 == PAGE);
        let next = next.and_then(|(id, _)| stream_id(id)).map(StreamId::next);
        let order =
            |fields: &HashMap<String, Value>| fields.get(penstock_core::stream::field::ORIG_ID).and_then(stream_id);
        Ok((letters.iter().filter_map(|(_, fields)| order(fields)).collect(), next))
    }

    /// Tells the stream's last entry; where there is no stream, the moment.
    pub(crate) async fn last_entry(&self) -> Answer<StreamId> {
        let last: Value = self.run(include_str!("last_entry.lua"), &self.names.stream, Vec::new()).await?;
        let now = || u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Ok(stream_id(&last).unwrap_or_else(|| StreamId { ms: now(), seq: 0 }))
    }

    /// Asks how often an entry was tried alone by processes that then were no more.
    pub(crate) async fn crashes(&self, id: StreamId) -> Answer<u64> {
        let crashes: Option<u64> = self.client.hget(self.names.keys.suspects(), id.to_string()).await?;
        Ok(crashes.unwrap_or_default())
    }

    /// Notes how many crashes an entry is to answer for, should this process not live to take it back.
    pub(crate) async fn note_crashes(&self, id: StreamId, crashes: u64) -> Answer<()> {
        let suspects = self.names.keys.suspects();
        let () = self.client.hset(&suspects, (id.to_string(), crashes.to_string())).await?;
        self.client.expire(&suspects, SUSPECT_TTL, None).await
    }

    /// Forgets what was noted of an entry that is settled.
    pub(crate) async fn forget(&self, id: StreamId) -> Answer<()> {
        self.client.hdel(self.names.keys.suspects(), id.to_string()).await
    }

    async fn group_info(&self) -> Answer<Option<HashMap<String, Value>>> {
        let Names { stream, group, .. } = &*self.names;
        let groups: Vec<HashMap<String, Value>> = match self.client.xinfo_groups(stream).await {
            Err(error) if error.details().contains("no such key") => return Ok(None),
            groups => groups?,
        };
        let ours = |of: &HashMap<String, Value>| of.get("name").and_then(Value::as_bytes_str).as_ref() == Some(group);
        Ok(groups.into_iter().find(ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_corrected_where_redis_is_known_to_err() {
        let id = |ms| Some(StreamId { ms, seq: 0 });
        assert_eq!(Lag::new(0, id(9), id(1), Some(9)), Lag::Exact(0), "nothing is there");
        assert_eq!(Lag::new(3, id(9), id(9), Some(6)), Lag::Exact(0), "read to the end");
        assert_eq!(Lag::new(3, id(9), id(1), Some(9)), Lag::Exact(3), "trimmed entries are counted");
        assert_eq!(Lag::new(3, id(9), id(1), None), Lag::Unknown, "unknown is never none");
    }
}

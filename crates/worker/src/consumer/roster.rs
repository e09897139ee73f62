//! Who is in the group, and how far it has come.

use std::collections::HashMap;
use std::time::Duration;

use fred::interfaces::{HashesInterface, KeysInterface, StreamsInterface};
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::lag::{self, Backlog};
use penstock_core::live::state;
use penstock_core::script;
use penstock_core::stream::StreamId;

use super::client::{Answer, Consumer, Names, stream_id, text_of};

/// How long a mark of a suspect outlives its last change, in seconds.
const SUSPECT_TTL: i64 = 86_400;

// === impl Consumer ===

impl Consumer {
    /// Removes this consumer from the group, unless entries are pending for it; says whether it did.
    pub(crate) async fn leave(&self) -> Answer<bool> {
        let Names { stream, group, consumer, .. } = &*self.names;
        let left: u64 =
            script::run(&self.client, include_str!("leave.lua"), stream, vec![text_of(group), text_of(consumer)])
                .await?;
        Ok(left == 1)
    }

    /// Shows that a process lives under this consumer's name; returns which one did so last, if within `valid`.
    pub(crate) async fn announce(&self, process: &str, valid: Duration) -> Answer<Option<String>> {
        let Names { consumer, keys, .. } = &*self.names;
        script::set_for(&self.client, keys.consumer_alive(consumer), process, valid).await
    }

    /// Shows that this consumer lives at this moment.
    pub(crate) async fn pulse(&self, valid: Duration) -> Answer<()> {
        let Names { consumer, keys, .. } = &*self.names;
        script::set_for(&self.client, keys.consumer_pulse(consumer), "1", valid).await.map(drop)
    }

    /// Removes consumers that hold nothing, were idle for `idle` and are not announced; returns their names. Before Redis
    /// 7.2, a living one that waits for entries in vain is idle as well.
    pub(crate) async fn reap(&self, idle: Duration) -> Answer<Vec<String>> {
        let Names { stream, group, consumer, keys, .. } = &*self.names;
        let listed: Vec<HashMap<String, Value>> = self.client.xinfo_consumers(stream, group.clone()).await?;
        let number = |of: &HashMap<String, Value>, name: &str| of.get(name).and_then(Value::as_u64);
        let is_idle = |of: &HashMap<String, Value>| {
            number(of, "pending") == Some(0) && number(of, "idle").is_some_and(|ms| u128::from(ms) > idle.as_millis())
        };
        let idlers = listed.iter().filter(|of| is_idle(of)).filter_map(|of| of.get("name")?.as_string());
        let mut arguments = vec![text_of(group), Value::Integer(idle.as_millis() as i64)];
        for name in idlers.filter(|name| *name != **consumer) {
            let announced: u64 = self.client.exists(keys.consumer_alive(&name)).await?;
            if announced == 0 {
                arguments.push(name.into());
            }
        }
        if arguments.len() == 2 {
            return Ok(Vec::new());
        }
        script::run(&self.client, include_str!("reap.lua"), stream, arguments).await
    }

    /// Asks how far behind the group is; none where there is no such group.
    pub(crate) async fn backlog(&self) -> Answer<Option<Backlog>> {
        let Names { stream, group, .. } = &*self.names;
        lag::backlog(&self.client, stream, group).await
    }

    /// Returns the ID below which every entry of both streams is settled: the first pending one, else what follows the last
    /// one read; or what the first of those was that ingest put back at the tail and that are not settled yet. None where one
    /// of the groups is missing.
    pub(crate) async fn settled_below(&self) -> Answer<Option<StreamId>> {
        let keys = &self.names.keys;
        // In this order: what the second stream gets from here on has greater IDs, and what ingest moves from there to the
        // first is found in one of them.
        let last = self.last_entry().await?;
        let bulk = self.bulk().settled_here(Some(last.next())).await?;
        let settled = self.settled_here(None).await?;
        let settled = settled.zip(bulk).map(|(settled, bulk)| settled.min(bulk));
        // After the pending ones: until it is put back, an entry is among them.
        let fields = vec![state::REQUEUED, state::REQUEUED_ORDER];
        let requeued: Vec<Option<String>> = self.client.hmget(keys.ingest_state(), fields).await?;
        let mut requeued = requeued.into_iter().map(|id| id?.parse::<StreamId>().ok());
        let (last, order) = (requeued.next().flatten(), requeued.next().flatten());
        Ok(settled.map(|settled| match order {
            Some(order) if last.is_some_and(|last| last >= settled) => order.min(settled),
            _ => settled,
        }))
    }

    /// Returns the ID below which every entry of this stream is settled; where all was read, and `if_read` is given, that at
    /// most.
    async fn settled_here(&self, if_read: Option<StreamId>) -> Answer<Option<StreamId>> {
        let Names { stream, group, .. } = &*self.names;
        // First where reading stands: an entry read in between is later than that.
        let delivered = self.group_info().await?.and_then(|of| of.get("last-delivered-id").and_then(stream_id));
        let Some(delivered) = delivered else { return Ok(None) };
        let next = match if_read {
            Some(last) if self.is_read(delivered).await? => last,
            _ => delivered.next(),
        };
        let pending: Vec<Value> = self.client.xpending(stream, group.clone(), ()).await?;
        let first = pending.get(1).and_then(stream_id);
        Ok(Some(first.map_or(next, |first| first.min(next))))
    }

    /// Returns whether the entry that was delivered last is the last of this stream.
    async fn is_read(&self, delivered: StreamId) -> Answer<bool> {
        let of: HashMap<String, Value> = self.client.xinfo_stream(&self.names.stream, false, None).await?;
        let is_empty = of.get("length").and_then(Value::as_u64) == Some(0);
        Ok(is_empty || of.get("last-generated-id").and_then(stream_id) == Some(delivered))
    }

    /// Returns the last ID of the stream; without a stream, one of the current time.
    pub(crate) async fn last_entry(&self) -> Answer<StreamId> {
        let last: Value =
            script::run(&self.client, include_str!("last_entry.lua"), &self.names.stream, Vec::new()).await?;
        let now = || u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Ok(stream_id(&last).unwrap_or_else(|| StreamId { ms: now(), seq: 0 }))
    }

    /// Returns how many processes died while they tried an entry alone.
    pub(crate) async fn crashes(&self, id: StreamId) -> Answer<u64> {
        let crashes: Option<u64> = self.client.hget(self.names.keys.suspects(), id.to_string()).await?;
        Ok(crashes.unwrap_or_default())
    }

    /// Records how many crashes an entry has caused if this process does not live to erase the record.
    pub(crate) async fn record_crashes(&self, id: StreamId, crashes: u64) -> Answer<()> {
        let suspects = self.names.keys.suspects();
        let () = script::set_field(&self.client, suspects.clone(), &id.to_string(), &crashes.to_string()).await?;
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

//! Entries that lie idle are taken over; those that are held say so.

use std::time::Duration;

use fred::interfaces::StreamsInterface;
use fred::types::Value;
use penstock_core::script;
use penstock_core::stream::StreamId;

use super::client::{ANSWER_BYTES, Answer, Consumer, Delivery, Names, delivery, stream_id, surprise, text, text_of};

/// How many IDs one XCLAIM names at most.
const TOUCH_COUNT: usize = 1000;

/// What one look for idle entries found.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Where to go on; none once all were seen.
    pub(crate) next: Option<StreamId>,
    /// The entries that are now this consumer's.
    pub(crate) entries: Vec<Delivery>,
    /// Entries that left the stream while they were pending: lost.
    pub(crate) deleted: Vec<StreamId>,
}

impl Consumer {
    /// Takes over entries, at most `count`, that no consumer (this one included) gave a sign of for `idle`.
    pub(crate) async fn claim(&self, idle: Duration, from: StreamId, count: usize) -> Answer<Claimed> {
        let Names { stream, group, consumer, .. } = &*self.names;
        let count = count as i64;
        let arguments =
            [text_of(group), text_of(consumer), milliseconds(idle), text(from), count.into(), ANSWER_BYTES.into()]
                .into();
        let answer: Value = script::run(&self.client, include_str!("claim.lua"), stream, arguments).await?;
        claimed(answer).ok_or_else(|| surprise("XAUTOCLAIM"))
    }

    /// Renews these entries: nobody takes them over for another claim time.
    pub(crate) async fn refresh(&self, ids: &[StreamId]) -> Answer<()> {
        self.touch(ids, None, None).await
    }

    /// Hands entries back: the next consumer that looks takes them over, and where `forgiven` as if for the first time.
    pub(crate) async fn give_back(&self, ids: &[StreamId], claim_time: Duration, forgiven: bool) -> Answer<()> {
        // One millisecond more than what claims ask for, so that they find it whatever is rounded.
        self.touch(ids, Some(claim_time.as_millis() as u64 + 1), forgiven.then_some(0)).await
    }

    async fn touch(&self, ids: &[StreamId], idle: Option<u64>, deliveries: Option<u64>) -> Answer<()> {
        let Names { stream, group, consumer, .. } = &*self.names;
        for ids in ids.chunks(TOUCH_COUNT) {
            let ids: Vec<String> = ids.iter().map(StreamId::to_string).collect();
            let (group, consumer) = (group.clone(), consumer.clone());
            let _: Value =
                self.client.xclaim(stream, group, consumer, 0, ids, idle, None, deliveries, false, true).await?;
        }
        Ok(())
    }
}

fn claimed(answer: Value) -> Option<Claimed> {
    let mut parts = answer.into_array().into_iter();
    let next = stream_id(&parts.next()?)?;
    let entries = parts.next()?.into_array().into_iter().map(|entry| {
        let mut entry = entry.into_array();
        let times = entry.pop()?.as_u64()?;
        delivery(Value::Array(entry), times)
    });
    let entries = entries.collect::<Option<_>>()?;
    let deleted = parts.next()?.into_array().iter().map(stream_id).collect::<Option<_>>()?;
    Some(Claimed { next: (next != StreamId::MIN).then_some(next), entries, deleted })
}

fn milliseconds(time: Duration) -> Value {
    Value::Integer(time.as_millis() as i64)
}

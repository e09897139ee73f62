//! Gathers messages into batches, writes each in one transaction, and settles it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::{dead_letter, messages, redis, time};

use super::buffer::{BatchStatistics, Buffer};
use super::latency::Latencies;
use super::queued;
use crate::action::Action;
use crate::apply::attempt::{is_conflict, pause_after};
use crate::apply::bisect::Bisection;
use crate::apply::bury::shortened;
use crate::state::work::{Abandoned, Work};
use crate::store::{ApplyError, DeadLetter, MessageRow};

/// The pauses between tries of a Redis that fails.
const REDIS_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Writes messages until it is asked to stop, then gives back what it still has.
pub(super) async fn write(work: Arc<Work>, buffer: Buffer) {
    let Some(waiting) = begin(&work, &buffer).await else { return };
    let mut latencies = Latencies::default();
    let mut backoff = Backoff::new(REDIS_PAUSES.0, REDIS_PAUSES.1);
    while !work.stop.is_cancelled() {
        match work.record(Action::TakeMessages, gather(&work, &buffer, &waiting).await) {
            Some(taken) => {
                backoff.succeed();
                if !taken.is_empty() && settle(&work, &buffer, taken, &mut latencies).await.is_err() {
                    // What was not written in time lies in the list: the others take it over.
                    return waiting.quit().await;
                }
            }
            None => {
                work.rest(backoff.fail()).await;
            }
        }
    }
    waiting.quit().await;
    if let Some(left) = work.record(Action::TakeMessages, buffer.leave().await)
        && left > 0
    {
        work.events.messages_given_back(left);
    }
}

/// Shows that this worker lives before it takes anything, and connects what waits; `None` when asked to stop before.
async fn begin(work: &Work, buffer: &Buffer) -> Option<Buffer> {
    let mut backoff = Backoff::new(REDIS_PAUSES.0, REDIS_PAUSES.1);
    while work.record(Action::AnnounceMessages, buffer.announce().await).is_none() {
        if !work.rest(backoff.fail()).await {
            return None;
        }
    }
    loop {
        // A command that waits holds up all others of its connection.
        if let Some(client) =
            work.record(Action::TakeMessages, redis::connect_for(&work.settings, &work.servers.redis).await)
        {
            return Some(buffer.over(client));
        }
        if !work.rest(backoff.fail()).await {
            return None;
        }
    }
}

/// Takes messages until a batch is full or its first one has waited for long enough; none where there are none.
async fn gather(work: &Work, buffer: &Buffer, waiting: &Buffer) -> Result<Vec<Bytes>, fred::error::Error> {
    let (most, delay) = (work.settings.message_buffer.batch_size, work.settings.message_buffer.batch_delay);
    let mut taken = buffer.fill(most, None).await?;
    if taken == 0 && !waiting.wait(Duration::MAX).await? {
        return Ok(Vec::new());
    }
    let due = Instant::now() + delay;
    while taken < most && !work.stop.is_cancelled() {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if taken == 0 || waiting.wait(left).await? {
            taken = buffer.fill(most, Some(taken)).await?;
        }
    }
    buffer.oldest(most).await
}

/// Writes a batch, whatever it takes, and removes it from the list.
async fn settle(work: &Work, buffer: &Buffer, taken: Vec<Bytes>, latencies: &mut Latencies) -> Result<(), Abandoned> {
    let now = Timestamp::now();
    let mut rows = Vec::with_capacity(taken.len());
    for raw in taken {
        match queued::read(raw, now) {
            Ok(row) => rows.push(row),
            Err((raw, error)) => bury(work, buffer, &raw, &chain(&error), &error.to_string()).await?,
        }
    }
    let mut bisection = Bisection::new(rows.len());
    while let Some(range) = bisection.next() {
        let part = rows.get(range).unwrap_or_default();
        let started = Instant::now();
        match insert(work, part).await? {
            Ok(inserted) => {
                bisection.accepted();
                let took = started.elapsed();
                let statistics = BatchStatistics {
                    batch: messages::tracking_id(),
                    at: time::format(Timestamp::now()),
                    latency: latencies.add(took),
                };
                let settled = work.insist(Action::SettleMessages, || buffer.settle(part, &statistics)).await?;
                work.events.messages_written(inserted, settled, took);
            }
            Err(error) if !bisection.refused() => {
                for row in part {
                    bury(work, buffer, &row.raw, &error, &error).await?;
                }
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Inserts rows until PostgreSQL answers; the inner error is the data's fault.
async fn insert(work: &Work, rows: &[MessageRow]) -> Result<Result<u64, String>, Abandoned> {
    let mut backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
    loop {
        let inserted = tokio::select! {
            biased;
            inserted = work.store.insert_messages(rows) => inserted,
            () = work.abandon.cancelled() => return Err(Abandoned),
        };
        match inserted {
            Ok(inserted) => {
                work.outages.over(Action::WriteMessages, &work.events);
                return Ok(Ok(inserted));
            }
            Err(error @ ApplyError::Data { .. }) => return Ok(Err(chain(&error))),
            Err(error) => {
                if let ApplyError::Retry { reason, .. } = &error {
                    work.events.retry(reason);
                }
                if !is_conflict(&error) {
                    work.outages.failed(Action::WriteMessages, &error, &work.events);
                }
                work.pause(pause_after(&error, &mut backoff)).await?;
            }
        }
    }
}

/// Dead-letters a message that can never be a row: first in PostgreSQL, then among the dead letters in Redis. `logged` goes to the log, and
/// holds nothing of the message.
async fn bury(work: &Work, buffer: &Buffer, raw: &Bytes, error: &str, logged: &str) -> Result<(), Abandoned> {
    let error = shortened(error);
    let key = format!("{}:{}", dead_letter::MESSAGE, queued::key(raw));
    let letter = DeadLetter {
        orig_id: key.into(),
        kind: dead_letter::MESSAGE,
        data: raw,
        seq: "",
        deliveries: 1,
        error,
        consumer: work.consumer.name(),
        repo: "",
    };
    crate::apply::bury::keep(work, &letter).await?;
    let new = work.insist(Action::SettleMessages, || buffer.bury(raw, error)).await?;
    work.events.message_buried(logged, new);
    Ok(())
}

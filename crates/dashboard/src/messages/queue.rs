//! The message buffer in Redis: each script is one transaction.

use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::{ClientLike, ListInterface, SortedSetsInterface};
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::messages::{self, Message};
use penstock_core::settings::Settings;
use penstock_core::{script, time};
use thiserror::Error as ThisError;

use super::draft::Draft;
use super::stats::{LastBatch, Stats};
use crate::reading;

/// The queue of one pipeline.
pub(crate) struct Queue<'a> {
    client: WithOptions<Client>,
    settings: &'a Settings,
}

/// Why messages were not queued.
#[derive(Debug, ThisError)]
pub(crate) enum NotQueued {
    /// As many wait as may.
    #[error("the queue is full")]
    Full,
    /// Redis did not do it; that it did and could not say so is possible.
    #[error("could not queue the message")]
    Redis(#[source] Error),
    /// A message cannot be written as JSON, which none of these types is.
    #[error("could not write the message")]
    Write(#[source] serde_json::Error),
}

// === impl Queue ===

impl<'a> Queue<'a> {
    pub(crate) fn new(client: &Client, settings: &'a Settings) -> Self {
        Self::within(client, settings, settings.redis.command_timeout)
    }

    /// The same for who waits no longer than that.
    pub(crate) fn within(client: &Client, settings: &'a Settings, patience: Duration) -> Self {
        Self { client: client.with_options(&reading::options(patience)), settings }
    }

    /// Queues messages, all or none; returns their tracking IDs, and how many messages wait.
    pub(crate) async fn push(&self, drafts: &[Draft], now: Timestamp) -> Result<(Vec<String>, u64), NotQueued> {
        let Settings { keys, message_buffer, .. } = self.settings;
        let most = i64::try_from(message_buffer.max_queue).unwrap_or(i64::MAX);
        let mut arguments: Vec<Value> = vec![most.into(), (messages::QUEUED_IDS as i64).into()];
        let created_at = time::format(now);
        let mut ids = Vec::with_capacity(drafts.len());
        for Draft { user_id, channel_id, content } in drafts {
            let id = messages::tracking_id();
            let (user_id, channel_id) = (*user_id, *channel_id);
            let message = Message { tracking_id: &id, user_id, channel_id, content, created_at: &created_at };
            let message = serde_json::to_string(&message).map_err(NotQueued::Write)?;
            arguments.extend([id.as_str().into(), message.into()]);
            ids.push(id);
        }
        let touched = vec![keys.pending_messages(), keys.queued_message_ids()];
        let waiting: i64 =
            script::run(&self.client, include_str!("queue.lua"), touched, arguments).await.map_err(NotQueued::Redis)?;
        match u64::try_from(waiting) {
            Ok(waiting) => Ok((ids, waiting)),
            Err(_) => Err(NotQueued::Full),
        }
    }

    /// Reads the statistics, and as many IDs of queued messages, newest first.
    pub(crate) async fn stats(&self, ids: usize) -> Result<(Stats, Vec<String>), Error> {
        let keys = &self.settings.keys;
        let workers = self.workers().await?;
        let [total_messages, total_batches] = keys.message_totals();
        let [id, size, time, _] = keys.last_batch();
        let mut touched = vec![
            keys.pending_messages(),
            keys.messages_rate(),
            total_messages,
            total_batches,
            keys.worker_buffer_size(),
            keys.queued_message_ids(),
            id,
            size,
            time,
        ];
        touched.extend(workers.iter().map(|worker| keys.messages_taken(worker)));
        let script = format!("{}{}", messages::RATE_LUA, include_str!("stats.lua"));
        let found: Vec<Value> = script::run(&self.client, script, touched, vec![(ids as i64).into()]).await?;
        let mut found = found.into_iter();
        let mut text = || found.next().and_then(Value::into_string).unwrap_or_default();
        // Others write these keys too: what is no number counts as none.
        let number = |text: String| text.parse().unwrap_or_default();
        let waiting = number(text());
        let rate = text().parse().unwrap_or_default();
        let (messages, batches, held) = (number(text()), number(text()), number(text()));
        let (id, size, completed_at) = (text(), number(text()), text());
        let some = |text: String| (!text.is_empty()).then_some(text);
        let last_batch = LastBatch { batch_id: some(id), size, completed_at: some(completed_at) };
        let threshold = self.settings.message_buffer.batch_size as u64;
        let stats = Stats { waiting, held, rate, messages, batches, threshold, last_batch };
        let ids = found.next().map(Value::into_array).unwrap_or_default();
        Ok((stats, ids.into_iter().filter_map(Value::into_string).collect()))
    }

    /// Says how many messages wait.
    pub(crate) async fn waiting(&self) -> Result<u64, Error> {
        self.client.llen(self.settings.keys.pending_messages()).await
    }

    /// Empties the buffer; returns how many messages waited.
    pub(crate) async fn reset(&self) -> Result<u64, Error> {
        let keys = &self.settings.keys;
        let workers = self.workers().await?;
        let [total_messages, total_batches] = keys.message_totals();
        let mut touched = vec![total_messages, total_batches, keys.pending_messages()];
        touched.extend(workers.iter().map(|worker| keys.messages_taken(worker)));
        touched.extend([
            keys.queued_message_ids(),
            keys.persisted_message_ids(),
            keys.messages_rate(),
            keys.current_rps(),
            keys.worker_buffer_size(),
        ]);
        touched.extend(keys.last_batch());
        touched.extend(keys.message_latency());
        script::run(&self.client, include_str!("reset.lua"), touched, vec![(1 + workers.len() as i64).into()]).await
    }

    /// Lists the workers whose messages may lie in a list of their own.
    async fn workers(&self) -> Result<Vec<String>, Error> {
        self.client.zrange(self.settings.keys.messages_workers(), 0, -1, None, false, None, false).await
    }
}

//! Every command of the message buffer that a worker sends to Redis. Each may be repeated safely.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike, ListInterface, SortedSetsInterface};
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};
use penstock_core::dead_letter::{self, Author, Bounds};
use penstock_core::keys::Keys;
use penstock_core::settings::Settings;
use penstock_core::{messages, script};

use crate::consumer::Answer;
use crate::store::MessageRow;

/// How long a look for messages waits at most: long enough to be cheap, short enough for a prompt end.
const MAX_BLOCK: Duration = Duration::from_millis(500);

/// How many messages one script gives back at most.
const GIVE_BACK: usize = 1000;

/// Counts what workers hold, in the scripts that change it.
const HOLD: &str = include_str!("hold.lua");

/// The queue, and the list of one worker; clones share the connection.
#[derive(Clone)]
pub(super) struct Buffer {
    client: Client,
    names: Arc<Names>,
}

struct Names {
    keys: Keys,
    worker: String,
    dead_after: Duration,
    command_timeout: Duration,
    letters: Bounds,
}

/// What is published about a batch that was written.
#[derive(Clone, Debug)]
pub(super) struct BatchStatistics {
    /// Its random ID.
    pub(super) batch: String,
    /// When it was written, RFC 3339.
    pub(super) at: String,
    /// How long writing took of late: mean, 95th and 99th percentile, in ms.
    pub(super) latency: [String; 3],
}

// === impl Buffer ===

impl Buffer {
    pub(super) fn new(client: Client, settings: &Settings, worker: &str) -> Self {
        let names = Names {
            keys: settings.keys.clone(),
            worker: worker.to_owned(),
            dead_after: settings.message_buffer.dead_after,
            command_timeout: settings.redis.command_timeout,
            letters: Bounds::in_redis(settings),
        };
        Self { client, names: Arc::new(names) }
    }

    /// The same over another connection.
    pub(super) fn over(&self, client: Client) -> Self {
        Self { client, names: Arc::clone(&self.names) }
    }

    /// Takes messages until this worker has `most`, or the queue none; returns how many it has. `had` are those that it had before it
    /// waited for one.
    pub(super) async fn fill(&self, most: usize, had: Option<usize>) -> Answer<usize> {
        let keys = vec![self.names.keys.pending_messages(), self.taken(), self.names.keys.worker_buffer_size()];
        let had = had.map_or_else(|| "".into(), |had| Value::Integer(had as i64));
        let script = format!("{HOLD}{}", include_str!("fill.lua"));
        script::run(&self.client, script, keys, vec![Value::Integer(most as i64), had]).await
    }

    /// Waits at most for `patience`, and never for long, until there is a message, and takes it; says whether there is one.
    pub(super) async fn wait(&self, patience: Duration) -> Answer<bool> {
        let Names { keys, command_timeout, .. } = &*self.names;
        // Redis takes none for forever.
        let block = patience.min(MAX_BLOCK).min(*command_timeout / 2).max(Duration::from_millis(1));
        let options = Options { timeout: Some(*command_timeout + block), ..Options::default() };
        let client = self.client.with_options(&options);
        let queue = keys.pending_messages();
        // fred's own BLMOVE tells a wait in vain like an answer that did not come.
        let command = CustomCommand::new_static("BLMOVE", ClusterHash::from(queue.as_str()), true);
        let block_seconds = format!("{:.3}", block.as_secs_f64());
        let arguments = vec![queue.clone(), self.taken(), "RIGHT".to_owned(), "LEFT".to_owned(), block_seconds];
        let moved: Answer<Value> = client.custom(command, arguments).await;
        match moved {
            // A full Redis moves nothing by itself; the script that takes more does.
            Err(error) if script::is_full(&error) => {
                tokio::time::sleep(block).await;
                Ok(self.client.llen::<u64, _>(queue).await? > 0)
            }
            moved => Ok(!moved?.is_null()),
        }
    }

    /// Reads the messages that this worker took first and has not settled, oldest first.
    pub(super) async fn oldest(&self, most: usize) -> Answer<Vec<Bytes>> {
        let mut messages: Vec<Bytes> = self.client.lrange(self.taken(), -(most as i64), -1).await?;
        messages.reverse();
        Ok(messages)
    }

    /// Removes written messages from this worker's list and publishes those that were still there; returns how many.
    pub(super) async fn settle(&self, rows: &[MessageRow], statistics: &BatchStatistics) -> Answer<u64> {
        let keys = &self.names.keys;
        let mut touched =
            vec![self.taken(), keys.queued_message_ids(), keys.persisted_message_ids(), keys.messages_rate()];
        touched.extend(keys.message_totals());
        touched.extend(keys.last_batch());
        touched.extend(keys.message_latency());
        touched.push(keys.worker_buffer_size());
        let [mean, p95, p99] = &statistics.latency;
        let mut arguments: Vec<Value> = vec![
            keys.batch_notifications().into(),
            statistics.batch.as_str().into(),
            statistics.at.as_str().into(),
            mean.as_str().into(),
            p95.as_str().into(),
            p99.as_str().into(),
            Value::Integer(messages::PERSISTED_IDS as i64),
        ];
        for row in rows {
            arguments.push(Value::Bytes(row.raw.clone()));
            arguments.push(row.tracking_id.as_deref().unwrap_or_default().into());
        }
        let script = format!("{HOLD}{}{}", messages::RATE_LUA, include_str!("settle.lua"));
        script::run(&self.client, script, touched, arguments).await
    }

    /// Moves a message that will never be a row from this worker's list to the dead letters; `false` where it had gone.
    pub(super) async fn bury(&self, raw: &Bytes, error: &str) -> Answer<bool> {
        let arguments: Vec<Value> = vec![
            Value::Bytes(raw.clone()),
            dead_letter::MESSAGE.into(),
            error.into(),
            self.names.worker.as_str().into(),
        ];
        let letters = dead_letter::script(Author::Worker, self.names.letters);
        let script = format!("{HOLD}{letters}{}", include_str!("bury.lua"));
        let keys = &self.names.keys;
        let mut touched = vec![self.taken(), keys.dead_letters(), keys.worker_buffer_size()];
        touched.extend(keys.beside_letters(Author::Worker));
        let buried: u64 = script::run(&self.client, script, touched, arguments).await?;
        Ok(buried == 1)
    }

    /// Shows that this worker lives; returns the workers that gave no sign of life for long, the longest first.
    pub(super) async fn announce(&self) -> Answer<Vec<String>> {
        let Names { keys, worker, dead_after, .. } = &*self.names;
        let touched = vec![keys.messages_taken_alive(worker), keys.messages_workers()];
        let arguments = vec![worker.as_str().into(), Value::Integer(dead_after.as_millis() as i64)];
        script::run(&self.client, include_str!("announce.lua"), touched, arguments).await
    }

    /// Returns how many messages each of these workers took and has not settled.
    pub(super) async fn taken_by(&self, workers: &[String]) -> Answer<Vec<u64>> {
        if workers.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.client.pipeline();
        for worker in workers {
            let () = pipeline.llen(self.names.keys.messages_taken(worker)).await?;
        }
        pipeline.all().await
    }

    /// Puts a dead worker's messages back into the queue, in their order; returns how many.
    pub(super) async fn take_over(&self, worker: &str) -> Answer<u64> {
        let keys = &self.names.keys;
        let alive = keys.messages_taken_alive(worker);
        let taken = keys.messages_taken(worker);
        let touched = vec![keys.pending_messages(), taken, alive, keys.messages_workers(), keys.worker_buffer_size()];
        self.give_back(touched, worker, "if dead").await
    }

    /// Puts back what this worker took and has not settled, and takes leave; returns how many messages went back.
    pub(super) async fn leave(&self) -> Answer<u64> {
        let Names { keys, worker, .. } = &*self.names;
        let alive = keys.messages_taken_alive(worker);
        let touched = vec![
            keys.pending_messages(),
            self.taken(),
            alive,
            keys.messages_workers(),
            keys.worker_buffer_size(),
            keys.current_rps(),
        ];
        self.give_back(touched, worker, "leave").await
    }

    async fn give_back(&self, touched: Vec<String>, worker: &str, how: &str) -> Answer<u64> {
        let mut total = 0;
        loop {
            let arguments = vec![worker.into(), how.into(), Value::Integer(GIVE_BACK as i64)];
            let script = format!("{HOLD}{}", include_str!("give_back.lua"));
            let moved: u64 = script::run(&self.client, script, touched.clone(), arguments).await?;
            total += moved;
            if moved < GIVE_BACK as u64 {
                return Ok(total);
            }
        }
    }

    /// Writes the statistics that change by themselves, and all others where there are none.
    pub(super) async fn show(&self) -> Answer<()> {
        let keys = &self.names.keys;
        let workers: Vec<String> = self.client.zrange(keys.messages_workers(), 0, -1, None, false, None, false).await?;
        let mut touched = vec![keys.messages_rate(), keys.current_rps(), keys.worker_buffer_size()];
        touched.extend(keys.message_totals());
        touched.extend([keys.last_batch_size(), keys.last_persisted_ids()]);
        touched.extend(keys.message_latency());
        touched.extend(workers.iter().map(|worker| keys.messages_taken(worker)));
        script::run(&self.client, format!("{}{}", messages::RATE_LUA, include_str!("show.lua")), touched, Vec::new())
            .await
    }

    /// Closes the connection.
    pub(super) async fn quit(&self) {
        let _ = self.client.quit().await;
    }

    fn taken(&self) -> String {
        self.names.keys.messages_taken(&self.names.worker)
    }
}

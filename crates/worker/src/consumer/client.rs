//! One consumer of the workers' group: every command that this process sends to the stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, StreamsInterface};
use fred::types::Value;
use fred::types::config::Options;
use penstock_core::dead_letter::Bounds;
use penstock_core::entry::RawEntry;
use penstock_core::keys::Keys;
use penstock_core::script;
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;

use super::weight::weigh;

/// What a command to Redis returns.
pub(crate) type Answer<T> = Result<T, Error>;

/// The most bytes of one answer, about: the last two entries may go over, each with what ingest writes at most.
pub(crate) const ANSWER_BYTES: i64 = 2 * 1024 * 1024;

/// An entry that is larger than this stays in the answer's memory; a smaller one would keep its neighbours there.
const COPIED: usize = 64 * 1024;

/// How long a read waits for entries at most: long enough to be cheap, short enough for a prompt end.
const MAX_BLOCK: Duration = Duration::from_millis(500);

/// The consumer; clones share the connection.
#[derive(Clone)]
pub(crate) struct Consumer {
    pub(super) client: Client,
    pub(super) names: Arc<Names>,
}

#[derive(Clone)]
pub(super) struct Names {
    pub(super) keys: Keys,
    pub(super) stream: Str,
    pub(super) group: Str,
    pub(super) consumer: Str,
    pub(super) letters: Bounds,
    /// How long a minute's activity is kept.
    pub(super) activity_retention: Duration,
    pub(super) command_timeout: Duration,
}

/// The most bytes that an entry may take, decoded, to be decoded beside others.
const LARGE: usize = 4 * 1024 * 1024;

/// What an entry is held in besides.
const AROUND: usize = 512;

/// An entry as it was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its fields.
    pub(crate) raw: RawEntry<Bytes>,
    /// How often it was delivered, this time included.
    pub(crate) times: u64,
    /// How many bytes it takes, decoded.
    pub(crate) weight: usize,
}

// === impl Delivery ===

impl Delivery {
    pub(crate) fn new(raw: RawEntry<Bytes>, times: u64) -> Self {
        let weight = weigh(raw.data.as_deref().unwrap_or_default());
        Self { raw, times, weight }
    }

    /// How many bytes its fields take.
    pub(crate) fn size(&self) -> usize {
        let RawEntry { kind, data, seq, orig_id, traceparent, root, sync, .. } = &self.raw;
        [kind, data, seq, orig_id, traceparent, root, sync].into_iter().flatten().map(Bytes::len).sum()
    }

    /// Whether it is too large to be decoded beside others.
    pub(crate) fn is_large(&self) -> bool {
        self.weight > LARGE
    }

    /// How many bytes it is held in: a large one is decoded in parts, one after the other.
    pub(crate) fn held(&self) -> usize {
        AROUND + self.size() + if self.is_large() { 0 } else { self.weight }
    }
}

// === impl Consumer ===

impl Consumer {
    pub(crate) fn new(client: Client, settings: &Settings, name: &str) -> Self {
        let names = Names {
            keys: settings.keys.clone(),
            stream: settings.keys.stream().into(),
            group: settings.keys.group().into(),
            consumer: name.into(),
            letters: Bounds::in_redis(settings),
            activity_retention: settings.redis.activity_retention,
            command_timeout: settings.redis.command_timeout,
        };
        Self { client, names: Arc::new(names) }
    }

    /// The same consumer over another connection.
    pub(crate) fn over(&self, client: Client) -> Self {
        Self { client, names: Arc::clone(&self.names) }
    }

    /// The same consumer on the second stream.
    pub(crate) fn bulk(&self) -> Self {
        let names = Names { stream: self.names.keys.bulk().into(), ..Names::clone(&self.names) };
        Self { client: self.client.clone(), names: Arc::new(names) }
    }

    /// The consumer's name, which is the worker's.
    pub(crate) fn name(&self) -> &str {
        &self.names.consumer
    }

    pub(crate) fn group(&self) -> &str {
        &self.names.group
    }

    /// Reads at most `count` entries that no consumer has read, and waits for one a little while.
    ///
    /// How large entries are shows only once they are here: so a script reads them two by two until they are enough.
    pub(crate) async fn read(&self, count: usize) -> Answer<Vec<Delivery>> {
        match self.poll(count).await? {
            none if none.is_empty() => self.wait().await,
            entries => Ok(entries),
        }
    }

    /// Reads at most `count` entries that no consumer has read, and waits for none.
    pub(crate) async fn poll(&self, count: usize) -> Answer<Vec<Delivery>> {
        let Names { stream, group, consumer, .. } = &*self.names;
        let numbers = [Value::Integer(count as i64), Value::Integer(ANSWER_BYTES)];
        let arguments = [text_of(group), text_of(consumer)].into_iter().chain(numbers).collect();
        match script::run(&self.client, include_str!("read.lua"), stream, arguments).await? {
            Value::Array(entries) => deliveries(entries),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits a little while for an entry that no consumer has read.
    async fn wait(&self) -> Answer<Vec<Delivery>> {
        let block = MAX_BLOCK.min(self.names.command_timeout / 2);
        let Names { stream, group, consumer, command_timeout, .. } = &*self.names;
        let options = Options { timeout: Some(*command_timeout + block), ..Options::default() };
        let answer: Value = self
            .client
            .with_options(&options)
            .xreadgroup(group.clone(), consumer.clone(), Some(1), Some(block.as_millis() as u64), false, stream, ">")
            .await?;
        // RESP2 lists pairs of stream and entries, RESP3 maps them: flattened, both end with the entries.
        let entries = match answer {
            Value::Null => return Ok(Vec::new()),
            Value::Array(mut streams) => streams.pop().map(Value::into_array).and_then(|mut pair| pair.pop()),
            map @ Value::Map(_) => map.into_array().pop(),
            _ => None,
        };
        deliveries(entries.ok_or_else(|| surprise("XREADGROUP"))?.into_array())
    }

    /// The connection, for what a worker does besides.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Closes the connection.
    pub(crate) async fn quit(&self) {
        let _ = self.client.quit().await;
    }
}

/// Returns whether the group is gone, or the stream with it: somebody flushed this Redis, or it lost its data.
pub(crate) fn is_group_gone(error: &Error) -> bool {
    error.details().contains("NOGROUP") || error.details().starts_with("UNBLOCKED")
}

/// Ignores a missing group: the reader creates it again.
pub(crate) fn unless_group_gone(answer: Answer<()>) -> Answer<()> {
    match answer {
        Err(error) if is_group_gone(&error) => Ok(()),
        answer => answer,
    }
}

fn deliveries(entries: Vec<Value>) -> Answer<Vec<Delivery>> {
    entries.into_iter().map(|entry| delivery(entry, 1).ok_or_else(|| surprise("XREADGROUP"))).collect()
}

/// Reads `[id, [name, value, …]]`.
pub(super) fn delivery(entry: Value, times: u64) -> Option<Delivery> {
    let mut parts = entry.into_array().into_iter();
    let id = stream_id(&parts.next()?)?;
    let mut fields = parts.next()?.into_array().into_iter();
    let pairs = std::iter::from_fn(|| {
        let name = fields.next()?.into_bytes()?;
        let value = fields.next()?.into_bytes()?;
        Some((name, if value.len() > COPIED { value } else { Bytes::copy_from_slice(&value) }))
    });
    Some(Delivery::new(RawEntry::from_fields(id, pairs), times))
}

pub(super) fn stream_id(value: &Value) -> Option<StreamId> {
    value.as_bytes_str()?.parse().ok()
}

pub(super) fn text(id: StreamId) -> Value {
    Value::String(id.to_string().into())
}

pub(super) fn text_of(name: &Str) -> Value {
    Value::String(name.clone())
}

pub(super) fn surprise(command: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("{command} answered what it never should"))
}

//! One consumer of the workers' group: every command that this process sends to the stream.

mod acks;
mod claims;
mod counts;
mod join;
mod roster;
mod stale;
mod survey;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, StreamsInterface};
use fred::types::config::Options;
use fred::types::{MultipleKeys, Value};
use penstock_core::entry::RawEntry;
use penstock_core::keys::Keys;
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;

pub(crate) use acks::{Acknowledgement, Burial};
pub(crate) use claims::Claimed;
pub(crate) use counts::Published;
pub(crate) use join::{JoinError, Joined};
pub(crate) use roster::{Backlog, Lag};
#[cfg(test)]
pub(crate) use survey::Stay;

/// What a command to Redis returns.
pub(crate) type Answer<T> = Result<T, Error>;

/// How long a read waits for entries at most: long enough to be cheap, short enough for a prompt end.
const MAX_BLOCK: Duration = Duration::from_millis(500);

/// The consumer; clones share the connection.
#[derive(Clone)]
pub(crate) struct Consumer {
    client: Client,
    names: Arc<Names>,
}

struct Names {
    keys: Keys,
    stream: Str,
    group: Str,
    consumer: Str,
    command_timeout: Duration,
}

/// An entry as it was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its fields.
    pub(crate) raw: RawEntry<Bytes>,
    /// How often it was delivered, this time included.
    pub(crate) times: u64,
}

// === impl Consumer ===

impl Consumer {
    pub(crate) fn new(client: Client, settings: &Settings, name: &str) -> Self {
        let names = Names {
            keys: settings.keys.clone(),
            stream: settings.keys.stream().into(),
            group: settings.keys.group().into(),
            consumer: name.into(),
            command_timeout: settings.redis.command_timeout,
        };
        Self { client, names: Arc::new(names) }
    }

    /// The same consumer over another connection.
    pub(crate) fn over(&self, client: Client) -> Self {
        Self { client, names: Arc::clone(&self.names) }
    }

    /// The consumer's name, which is the worker's.
    pub(crate) fn name(&self) -> &str {
        &self.names.consumer
    }

    pub(crate) fn group(&self) -> &str {
        &self.names.group
    }

    /// Reads at most `count` entries that no consumer has read, and waits for them a little while.
    pub(crate) async fn read(&self, count: usize) -> Answer<Vec<Delivery>> {
        let Names { stream, group, consumer, command_timeout, .. } = &*self.names;
        let block = MAX_BLOCK.min(*command_timeout / 2);
        let options = Options { timeout: Some(*command_timeout + block), ..Options::default() };
        let answer: Value = self
            .client
            .with_options(&options)
            .xreadgroup(
                group.clone(),
                consumer.clone(),
                Some(count as u64),
                Some(block.as_millis() as u64),
                false,
                stream,
                ">",
            )
            .await?;
        // RESP2 lists pairs of stream and entries, RESP3 maps them: flattened, both end with the entries.
        let entries = match answer {
            Value::Null => return Ok(Vec::new()),
            Value::Array(mut streams) => streams.pop().map(Value::into_array).and_then(|mut pair| pair.pop()),
            map @ Value::Map(_) => map.into_array().pop(),
            _ => None,
        };
        let entries = entries.ok_or_else(|| surprise("XREADGROUP"))?.into_array();
        entries.into_iter().map(|entry| delivery(entry, 1).ok_or_else(|| surprise("XREADGROUP"))).collect()
    }

    /// Runs a script. It is sent whole each time: Redis knows it by its hash, and there is no second round trip.
    async fn run<R: fred::types::FromValue>(
        &self,
        script: impl Into<Str> + Send,
        keys: impl Into<MultipleKeys> + Send,
        arguments: Vec<Value>,
    ) -> Answer<R> {
        use fred::interfaces::LuaInterface;
        self.client.eval(script, keys, arguments).await
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

/// Says whether the group is gone, or the stream with it: somebody emptied this Redis, or it lost its data.
pub(crate) fn is_group_gone(error: &Error) -> bool {
    error.details().contains("NOGROUP") || error.details().starts_with("UNBLOCKED")
}

/// Leaves a group that is gone to the reader, which makes it again.
pub(crate) fn unless_group_gone(answer: Answer<()>) -> Answer<()> {
    match answer {
        Err(error) if is_group_gone(&error) => Ok(()),
        answer => answer,
    }
}

/// Reads `[id, [name, value, …]]`.
fn delivery(entry: Value, times: u64) -> Option<Delivery> {
    let mut parts = entry.into_array().into_iter();
    let id = stream_id(&parts.next()?)?;
    let mut fields = parts.next()?.into_array().into_iter();
    let pairs = std::iter::from_fn(|| {
        let name = fields.next()?.into_bytes()?;
        Some((name, fields.next()?.into_bytes()?))
    });
    Some(Delivery { raw: RawEntry::from_fields(id, pairs), times })
}

fn stream_id(value: &Value) -> Option<StreamId> {
    value.as_bytes_str()?.parse().ok()
}

fn text(id: StreamId) -> Value {
    Value::String(id.to_string().into())
}

fn text_of(name: &Str) -> Value {
    Value::String(name.clone())
}

fn surprise(command: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("{command} answered what it never should"))
}

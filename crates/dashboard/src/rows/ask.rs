//! Asks Redis how far the workers are.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use penstock_autoscale::{Acked, Ask, Ingest, Lag, ObserveError, Queue, observe};
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;

use crate::reading;

/// How many consumers are looked at, at most.
const MOST: usize = 1000;

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The time of Redis, in Unix milliseconds: what stream IDs are made of.
    pub(crate) now: u64,
    /// The last ID that either stream gave.
    pub(crate) newest: Option<StreamId>,
    /// The oldest entry of either stream that is not in PostgreSQL.
    pub(crate) oldest: Option<StreamId>,
    /// Entries that are not in PostgreSQL; none where that is not known.
    pub(crate) waiting: Option<u64>,
    /// Whether no more than these can wait.
    pub(crate) waiting_exact: bool,
    /// Entries of both streams, settled or not.
    pub(crate) length: u64,
    /// Entries ever added.
    pub(crate) added: Option<u64>,
    /// A running count of settled entries.
    pub(crate) settled: Option<Acked>,
    /// What ingest says of itself.
    pub(crate) ingest: Ingest,
    /// The consumers of the group.
    pub(crate) consumers: Vec<Presence>,
}

/// What shows that a consumer is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) name: String,
    /// Its pulse is there: it lived within the last 2 s.
    pub(crate) pulse: bool,
    /// It announced itself within its claim time.
    pub(crate) announced: bool,
    /// It asked for entries within the claim time.
    pub(crate) asked: bool,
}

/// Looks once; none where the streams are not what this pipeline keeps there.
///
/// # Errors
/// Redis is away.
pub(crate) async fn ask(client: &Client, settings: &Settings) -> Result<Option<Seen>, Error> {
    let ask = Ask { claim_time: settings.worker.claim_time, timeout: settings.redis.command_timeout };
    let queue = match observe(client, &settings.keys, &ask).await {
        Ok(queue) => queue,
        Err(ObserveError::Ask(error)) => return Err(error),
        Err(ObserveError::WrongType { .. } | ObserveError::Read) => return Ok(None),
    };
    let options = reading::options(settings.redis.command_timeout);
    let keys = vec![settings.keys.stream().to_owned(), settings.keys.bulk().to_owned()];
    let script = include_str!("ask.lua");
    let told: Value = client.with_options(&options).eval(script, keys, vec![settings.keys.group()]).await?;
    let consumers = presence(client, settings).await?;
    Ok(Some(seen(&queue, told, consumers).ok_or_else(|| Error::new(ErrorKind::Parse, "times of the streams"))?))
}

/// Lists every consumer of the group: before Redis 7.2, one that waits in vain counts as idle.
async fn presence(client: &Client, settings: &Settings) -> Result<Vec<Presence>, Error> {
    let keys = &settings.keys;
    let options = reading::options(settings.redis.command_timeout);
    let listed = client.with_options(&options).xinfo_consumers(keys.stream(), keys.group()).await;
    let listed: Vec<HashMap<String, Value>> = match listed {
        // Before the first worker there is no group, and before the first event no stream.
        Err(error) if error.details().contains("NOGROUP") || error.details().contains("no such key") => {
            return Ok(Vec::new());
        }
        listed => listed?,
    };
    let pipeline = client.pipeline();
    let ask = pipeline.with_options(&options);
    let mut consumers = Vec::new();
    for of in listed.into_iter().take(MOST) {
        let Some(name) = of.get("name").and_then(Value::as_string) else { continue };
        let () = ask.exists(keys.consumer_pulse(&name)).await?;
        let () = ask.exists(keys.consumer_alive(&name)).await?;
        let idle = of.get("idle").and_then(Value::as_u64).map(Duration::from_millis);
        let asked = idle.is_some_and(|idle| idle < settings.worker.claim_time);
        consumers.push(Presence { name, asked, ..Presence::default() });
    }
    if !consumers.is_empty() {
        let there: Vec<u64> = pipeline.all().await?;
        for (consumer, there) in consumers.iter_mut().zip(there.chunks(2)) {
            consumer.pulse = there.first() == Some(&1);
            consumer.announced = there.get(1) == Some(&1);
        }
    }
    Ok(consumers)
}

fn seen(queue: &Queue, told: Value, consumers: Vec<Presence>) -> Option<Seen> {
    let mut told = told.into_array().into_iter();
    let now = told.next()?.as_u64()?;
    let ids = told.map(|of| of.into_array().iter().map(id).collect::<Vec<_>>()).collect::<Vec<_>>();
    let of = |at: usize| ids.iter().filter_map(move |of| *of.get(at)?);
    let waiting = match queue.undelivered {
        Lag::Exact(undelivered) | Lag::AtLeast(undelivered) => Some(undelivered + queue.pending()),
        // No group: nobody has read anything. No stream: nothing was written.
        Lag::Unknown(_) => of(1).next().map_or(Some(0), |_| Some(queue.length)),
    };
    let waiting_exact = !matches!(queue.undelivered, Lag::AtLeast(_));
    Some(Seen {
        now,
        waiting_exact,
        // A stream that never had an entry.
        newest: of(0).max().filter(|newest| newest.ms > 0),
        oldest: of(1).min(),
        waiting,
        length: queue.length,
        added: queue.added,
        settled: queue.acked,
        ingest: queue.ingest,
        consumers,
    })
}

fn id(value: &Value) -> Option<StreamId> {
    value.as_string()?.parse().ok()
}

impl Seen {
    /// Returns the names of consumers whose pulse is there.
    pub(super) fn pulses(&self) -> HashSet<&str> {
        self.consumers.iter().filter(|consumer| consumer.pulse).map(|consumer| consumer.name.as_str()).collect()
    }
}

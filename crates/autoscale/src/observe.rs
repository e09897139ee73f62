//! Reads from Redis, in one moment, what the number of workers is decided on.

use std::sync::LazyLock;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use fred::types::config::Options;
use penstock_core::keys::Keys;
use penstock_core::lag::{self, MOST_COUNTED, Told};
use penstock_core::live::{cluster, state};
use penstock_core::stream::StreamId;
use penstock_core::time;
use thiserror::Error;

use crate::observation::{Acked, Consumer, Group, Ingest, Lag, LagGap, Queue};

/// How many idle entries are counted at most.
const MOST_IDLE: u64 = 1_000;

/// How many consumers are listed at most.
const MOST_CONSUMERS: u64 = 500;

/// How Redis is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// From which idle time on an entry counts as stranded: the workers' own claim time.
    pub claim_time: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// Why Redis showed nothing.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// There is no answer, or it is a refusal.
    #[error("could not query the workers' progress in Redis")]
    Ask(#[source] Error),
    /// A name belongs to a key of another type.
    #[error("{key} has type {found}, which this pipeline does not use there")]
    WrongType {
        /// The key.
        key: String,
        /// Its type.
        found: String,
    },
    /// The answer does not have the expected shape.
    #[error("could not parse the answer of Redis about the workers' progress")]
    Read,
}

/// What Redis tells of one of the two streams.
struct Stream {
    length: u64,
    added: Option<u64>,
    last: StreamId,
    /// None where it is missing.
    group: Option<Group>,
    /// How many entries the group ever read.
    read: Option<u64>,
    undelivered: Lag,
    stranded: Lag,
    consumers: Vec<Consumer>,
}

/// Reads the queue of a pipeline: both streams, for the same workers read both.
///
/// A missing stream or group is no error: the lag is then [`Lag::Unknown`].
///
/// # Errors
/// Redis is away or refuses, a key has the wrong type, or the answer is not understood. What follows for the decision is
/// [`ObserveError::gap`].
pub async fn observe(client: &Client, keys: &Keys, ask: &Ask) -> Result<Queue, ObserveError> {
    static SCRIPT: LazyLock<Str> = LazyLock::new(|| [lag::LUA, include_str!("observe.lua")].concat().into());
    observe_by(SCRIPT.clone(), client, keys, ask).await
}

async fn observe_by(script: Str, client: &Client, keys: &Keys, ask: &Ask) -> Result<Queue, ObserveError> {
    let options = Options { fail_fast: true, max_attempts: Some(1), timeout: Some(ask.timeout), ..Options::default() };
    let touched = vec![
        keys.stream().to_owned(),
        keys.ingest_state(),
        keys.cluster_metrics(),
        keys.status(),
        keys.bulk().to_owned(),
    ];
    let arguments: Vec<Value> = vec![
        keys.group().into(),
        Value::Integer(i64::try_from(ask.claim_time.as_millis()).unwrap_or(i64::MAX)),
        Value::Integer(MOST_COUNTED as i64),
        Value::Integer(MOST_IDLE as i64),
        Value::Integer(MOST_CONSUMERS as i64),
        state::PAUSED.into(),
        state::EVENT_TIME.into(),
        cluster::TOTAL.into(),
        cluster::ERRORS.into(),
    ];
    let answer: Result<Value, _> = client.with_options(&options).eval(script, touched, arguments).await;
    let mut parts = answer.map_err(ObserveError::Ask)?.into_array().into_iter();
    match parts.next().and_then(Value::into_string).as_deref() {
        Some("seen") => queue(parts).ok_or(ObserveError::Read),
        Some("wrongtype") => {
            let mut text = || parts.next().and_then(Value::into_string).unwrap_or_default();
            Err(ObserveError::WrongType { key: text(), found: text() })
        }
        _ => Err(ObserveError::Read),
    }
}

// === impl ObserveError ===

impl ObserveError {
    /// Returns what is unknown because of it.
    #[must_use]
    pub fn gap(&self) -> LagGap {
        match self {
            Self::Ask(_) => LagGap::RedisUnreachable,
            Self::WrongType { .. } => LagGap::KeyOfWrongType,
            Self::Read => LagGap::AnswerUnreadable,
        }
    }
}

fn queue(mut parts: impl Iterator<Item = Value>) -> Option<Queue> {
    let mut next = || parts.next().map(Value::into_array).map(Vec::into_iter);
    let (mut state, mut applied) = (next()?, next()?);
    let (first, second) = (stream(next()?)?, stream(next()?)?);
    let ingest = Ingest {
        paused: state.next()?.as_string().as_deref() == Some("1"),
        event_time: state.next()?.as_string().as_deref().and_then(time::parse),
    };
    let missing = |gap| Queue {
        length: 0,
        added: None,
        last_id: None,
        group: None,
        undelivered: Lag::Unknown(gap),
        stranded: Lag::Unknown(gap),
        consumers: Vec::new(),
        acked: None,
        ingest,
    };
    let Some(mut seen) = first else { return Some(missing(LagGap::StreamMissing)) };
    if let Some(second) = second {
        seen.add(second);
    }
    let Stream { length, added, last, group, read, undelivered, stranded, consumers } = seen;
    let Some(group) = group else {
        return Some(Queue { length, added, last_id: Some(last), ..missing(LagGap::GroupMissing) });
    };
    // What an entry of the hash counted is settled, applied or given up; a part of an entry may be both.
    let mut number = || applied.next().and_then(|value| value.as_string()).and_then(|text| text.parse::<u64>().ok());
    let (total, errors) = (number(), number());
    let acked = match read {
        Some(read) => read.checked_sub(group.pending).map(Acked::Read),
        None => total.map(|total| Acked::Counted(total.saturating_add(errors.unwrap_or(0)))),
    };
    Some(Queue {
        length,
        added,
        last_id: Some(last),
        group: Some(group),
        undelivered,
        stranded,
        consumers,
        acked,
        ingest,
    })
}

/// Reads what was told of one stream; nothing where it is not there.
fn stream(mut parts: impl Iterator<Item = Value>) -> Option<Option<Stream>> {
    let mut next = || parts.next();
    let list = |value: Value| value.into_array().into_iter();
    let (mut stream, mut group, told) = (next().map(list)?, next().map(list)?, next()?);
    let consumers = next().map(list)?.map(consumer).collect::<Option<Vec<_>>>()?;
    let (idle, abandoned) = (next()?.as_u64()?, next()?.as_u64()?);
    let Some(length) = stream.next() else { return Some(None) };
    let length = length.as_u64()?;
    let last = id(&stream.next()?)?;
    let added = stream.next()?.as_u64();
    let Some(delivered) = group.next() else {
        // Whoever makes the group begins at the oldest entry.
        let (undelivered, stranded) = (Lag::Exact(length), Lag::Exact(0));
        return Some(Some(Stream { length, added, last, group: None, read: None, undelivered, stranded, consumers }));
    };
    let pending = group.next()?.as_u64()?;
    Some(Some(Stream {
        length,
        added,
        last,
        group: Some(Group { last_delivered: id(&delivered)?, pending }),
        read: group.next()?.as_u64(),
        undelivered: Told::read(told)?.undelivered(),
        stranded: stranded(pending, idle, abandoned),
        consumers,
    }))
}

// === impl Stream ===

impl Stream {
    /// Adds what the second stream holds for the same workers.
    fn add(&mut self, second: Self) {
        self.length += second.length;
        self.added = self.added.zip(second.added).map(|(first, second)| first + second);
        self.undelivered = sum(self.undelivered, second.undelivered);
        self.stranded = sum(self.stranded, second.stranded);
        if let (Some(group), Some(beside)) = (&mut self.group, second.group) {
            group.pending += beside.pending;
            self.read = self.read.zip(second.read).map(|(first, second)| first + second);
        }
        for consumer in second.consumers {
            match self.consumers.iter_mut().find(|known| known.name == consumer.name) {
                Some(known) => {
                    known.pending += consumer.pending;
                    known.idle = known.idle.min(consumer.idle);
                }
                None => self.consumers.push(consumer),
            }
        }
    }
}

fn sum(a: Lag, b: Lag) -> Lag {
    let least = a.at_least() + b.at_least();
    if a.is_exact() && b.is_exact() { Lag::Exact(least) } else { Lag::AtLeast(least) }
}

/// Counts stranded entries: by their own idle time as far as that was looked through, else all those of no consumer, or of one
/// that is idle itself.
fn stranded(pending: u64, idle: u64, abandoned: u64) -> Lag {
    if abandoned >= pending {
        Lag::Exact(pending)
    } else if idle < MOST_IDLE {
        Lag::Exact(idle)
    } else {
        Lag::AtLeast(idle.max(abandoned))
    }
}

fn consumer(value: Value) -> Option<Consumer> {
    let mut parts = value.into_array().into_iter();
    let name = parts.next()?.into_string()?;
    let pending = parts.next()?.as_u64()?;
    let idle = Duration::from_millis(parts.next()?.as_u64()?);
    Some(Consumer { name, pending, idle })
}

fn id(value: &Value) -> Option<StreamId> {
    value.as_string()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use fred::types::CustomCommand;
    use penstock_core::settings::{Layers, Settings};
    use penstock_local::testing::TestRedis;

    use super::*;

    /// What a server shows where entries were handed back (`XNACK`): they are pending, idle since ever, and no consumer's. What
    /// `nobody` holds stands for them.
    const HANDED_BACK: &str = "
        local server = redis
        local redis = { call = function(command, what, ...)
          local answer = server.call(command, what, ...)
          if command == 'XINFO' and what == 'CONSUMERS' then
            local others = {}
            for _, consumer in ipairs(answer) do
              if consumer[2] ~= 'nobody' then
                others[#others + 1] = consumer
              end
            end
            return others
          elseif command == 'XINFO' and what == 'GROUPS' then
            for at = 1, #answer[1], 2 do
              if answer[1][at] == 'consumers' then
                answer[1][at + 1] = answer[1][at + 1] - 1
              end
            end
            answer[1][#answer[1] + 1] = 'nacked-count'
            answer[1][#answer[1] + 1] = 1500
          end
          return answer
        end }
    ";

    #[tokio::test]
    async fn entries_of_no_consumer_are_stranded_at_once_however_many_they_are() {
        let redis = TestRedis::start().await.unwrap();
        let settings = Settings::load(&Layers::default().flag("redis.url", redis.url())).unwrap();
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        let run = async |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let command = CustomCommand::new(words.next().unwrap(), None, false);
            client.custom::<Value, _>(command, words.collect::<Vec<_>>()).await.unwrap()
        };
        let (stream, group) = (settings.keys.stream(), settings.keys.group());
        run(&format!("XGROUP CREATE {stream} {group} 0 MKSTREAM")).await;
        for id in 1..=1_510 {
            run(&format!("XADD {stream} {id}-0 type commit")).await;
        }
        run(&format!("XREADGROUP GROUP {group} nobody COUNT 1500 STREAMS {stream} >")).await;
        let script: Str = [HANDED_BACK, lag::LUA, include_str!("observe.lua")].concat().into();
        let ask = Ask { claim_time: Duration::from_secs(3_600), timeout: Duration::from_secs(30) };
        let seen = async || observe_by(script.clone(), &client, &settings.keys, &ask).await.unwrap();
        assert_eq!((seen().await.stranded, seen().await.pending()), (Lag::Exact(1_500), 1_500));
        // Beside one that holds some itself; that all are idle for ever is what the server adds.
        run(&format!("XREADGROUP GROUP {group} w-0 COUNT 10 STREAMS {stream} >")).await;
        let ids: Vec<String> = (1..=1_500).map(|id| format!("{id}-0")).collect();
        run(&format!("XCLAIM {stream} {group} nobody 0 {} IDLE 7200000 JUSTID", ids.join(" "))).await;
        let now = seen().await;
        assert_eq!((now.stranded, now.pending(), now.consumers.len()), (Lag::AtLeast(1_500), 1_510, 1));
        // Who knows nothing of it sees consumers that are alive and hold everything.
        assert_eq!(observe(&client, &settings.keys, &ask).await.unwrap().stranded, Lag::AtLeast(1_000));
    }

    #[test]
    fn stranded_entries_are_those_idle_or_all_of_idle_consumers() {
        assert_eq!(stranded(0, 0, 0), Lag::Exact(0));
        assert_eq!(stranded(1_000_000, 0, 1_000_000), Lag::Exact(1_000_000));
        assert_eq!(stranded(5_000, 700, 300), Lag::Exact(700));
        assert_eq!(stranded(9_000, 1_000, 4_000), Lag::AtLeast(4_000));
    }
}

//! Reads from Redis, in one moment, what the number of workers is decided on.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::Value;
use fred::types::config::Options;
use penstock_core::keys::Keys;
use penstock_core::live::{cluster, state};
use penstock_core::stream::StreamId;
use penstock_core::time;
use thiserror::Error;

use crate::observation::{Acked, Consumer, Group, Ingest, Lag, LagGap, Queue};

/// How many unread entries are counted at most: a page of the script costs Redis some 10 µs an entry.
pub(crate) const MOST_UNREAD: u64 = 200;

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
    #[error("could not ask Redis how far the workers are")]
    Ask(#[source] Error),
    /// A name belongs to a key of another type.
    #[error("{key} is a {found}, which is not what this pipeline keeps there")]
    WrongType {
        /// The key.
        key: String,
        /// Its type.
        found: String,
    },
    /// The answer does not have the expected shape.
    #[error("could not read how far the workers are from the answer of Redis")]
    Read,
}

/// What Redis tells of the lag, before it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Entries in the stream.
    pub(crate) length: u64,
    /// The first of them.
    pub(crate) first: Option<StreamId>,
    /// The last ID that the stream gave.
    pub(crate) last: StreamId,
    /// The last entry that the group was given.
    pub(crate) delivered: StreamId,
    /// What Redis says.
    pub(crate) lag: Option<u64>,
    /// Unread entries counted, up to [`MOST_UNREAD`]; none where there was no need.
    pub(crate) counted: Option<u64>,
}

/// Reads the queue of a pipeline.
///
/// A missing stream or group is no error: the lag is then [`Lag::Unknown`].
///
/// # Errors
/// Redis is away or refuses, a key has the wrong type, or the answer is not understood. What follows for the decision is
/// [`ObserveError::gap`].
pub async fn observe(client: &Client, keys: &Keys, ask: &Ask) -> Result<Queue, ObserveError> {
    let options = Options { fail_fast: true, max_attempts: Some(1), timeout: Some(ask.timeout), ..Options::default() };
    let touched = vec![keys.stream().to_owned(), keys.ingest_state(), keys.cluster_metrics(), keys.status()];
    let arguments: Vec<Value> = vec![
        keys.group().into(),
        Value::Integer(i64::try_from(ask.claim_time.as_millis()).unwrap_or(i64::MAX)),
        Value::Integer(MOST_UNREAD as i64),
        Value::Integer(MOST_IDLE as i64),
        Value::Integer(MOST_CONSUMERS as i64),
        state::PAUSED.into(),
        state::EVENT_TIME.into(),
        cluster::TOTAL.into(),
        cluster::ERRORS.into(),
    ];
    let script = include_str!("observe.lua");
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

// === impl Told ===

impl Told {
    /// Makes of it what can be relied on. Redis counts in `lag` entries that were trimmed before they were read
    /// (redis#13957), for good; and it tells none once an entry ahead of the group was deleted, or where the group began at
    /// an ID.
    pub(crate) fn undelivered(self) -> Lag {
        let Self { length, first, last, delivered, lag, counted } = self;
        let counted = counted.unwrap_or(0);
        if length == 0 || delivered == last {
            Lag::Exact(0)
        } else if counted < MOST_UNREAD {
            Lag::Exact(counted)
        } else if first.is_some_and(|first| first > delivered) {
            // Nothing of what is there was delivered.
            Lag::Exact(length)
        } else {
            lag.map_or(Lag::AtLeast(counted), |lag| Lag::Exact(lag.min(length).max(counted)))
        }
    }
}

fn queue(mut parts: impl Iterator<Item = Value>) -> Option<Queue> {
    let mut next = || parts.next().map(Value::into_array).map(Vec::into_iter);
    let (mut state, mut applied, mut stream, mut group) = (next()?, next()?, next()?, next()?);
    let consumers = next()?.map(consumer).collect::<Option<Vec<_>>>()?;
    let mut count = || parts.next().map(|value| value.as_u64());
    let (idle, abandoned, counted) = (count()??, count()??, count()?);

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
        consumers: consumers.clone(),
        acked: None,
        ingest,
    };
    let Some(length) = stream.next() else { return Some(missing(LagGap::StreamMissing)) };
    let length = length.as_u64()?;
    let last = id(&stream.next()?)?;
    let first = id(&stream.next()?);
    let added = stream.next()?.as_u64();
    let Some(delivered) = group.next() else {
        return Some(Queue { length, added, last_id: Some(last), ..missing(LagGap::GroupMissing) });
    };
    let delivered = id(&delivered)?;
    let pending = group.next()?.as_u64()?;
    let read = group.next()?.as_u64();
    let lag = group.next()?.as_u64();
    // What an entry of the hash counted is settled, applied or given up; a part of an entry may be both.
    let mut number = || applied.next().and_then(|value| value.as_string()).and_then(|text| text.parse::<u64>().ok());
    let (total, errors) = (number(), number());
    let acked = match read {
        Some(read) => read.checked_sub(pending).map(Acked::Read),
        None => total.map(|total| Acked::Counted(total.saturating_add(errors.unwrap_or(0)))),
    };
    Some(Queue {
        length,
        added,
        last_id: Some(last),
        group: Some(Group { last_delivered: delivered, pending }),
        undelivered: Told { length, first, last, delivered, lag, counted }.undelivered(),
        stranded: stranded(pending, idle, abandoned),
        consumers,
        acked,
        ingest,
    })
}

/// Counts stranded entries: by their own idle time as far as that was looked through, else all those of consumers that are
/// idle themselves.
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
    use super::*;

    fn told(length: u64, delivered: u64, lag: Option<u64>, counted: Option<u64>) -> Lag {
        let id = |ms| StreamId { ms, seq: 0 };
        let first = (length > 0).then(|| id(10_001 - length));
        Told { length, first, last: id(10_000), delivered: id(delivered), lag, counted }.undelivered()
    }

    #[test]
    fn an_empty_stream_and_a_group_at_its_end_have_no_lag_whatever_redis_says() {
        assert_eq!(told(0, 5, Some(9), None), Lag::Exact(0));
        assert_eq!(told(3, 10_000, Some(6), None), Lag::Exact(0));
        assert_eq!(told(3, 10_000, None, None), Lag::Exact(0));
    }

    #[test]
    fn a_short_count_is_right_where_redis_is_not() {
        assert_eq!(told(5_000, 9_990, Some(1_900), Some(10)), Lag::Exact(10));
        assert_eq!(told(5_000, 9_990, None, Some(10)), Lag::Exact(10));
    }

    #[test]
    fn a_lag_is_never_more_than_the_stream_holds() {
        assert_eq!(told(500, 9_700, Some(90_000), Some(200)), Lag::Exact(500));
        assert_eq!(told(500, 100, None, Some(200)), Lag::Exact(500), "nothing of it was delivered");
    }

    #[test]
    fn without_a_lag_only_the_counted_is_certain() {
        assert_eq!(told(5_000, 6_000, None, Some(200)), Lag::AtLeast(200));
        assert_eq!(told(5_000, 6_000, Some(4_000), Some(200)), Lag::Exact(4_000));
    }

    #[test]
    fn stranded_entries_are_those_idle_or_all_of_idle_consumers() {
        assert_eq!(stranded(0, 0, 0), Lag::Exact(0));
        assert_eq!(stranded(1_000_000, 0, 1_000_000), Lag::Exact(1_000_000));
        assert_eq!(stranded(5_000, 700, 300), Lag::Exact(700));
        assert_eq!(stranded(9_000, 1_000, 4_000), Lag::AtLeast(4_000));
    }
}

//! How many entries of a stream a group has not read: the one way in which every service counts them.
//!
//! Redis tells a lag, and errs. It counts entries that were trimmed before they were read (redis#13957), for good. It tells none
//! once an entry ahead of the group was deleted, where the group began at an ID, and after a restart of 7.0, until the group has
//! read to the end; 6.2 never tells one.

use std::fmt;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::types::Value;

use crate::script;
use crate::stream::StreamId;

/// The functions of Lua that look: a script that calls them begins with this.
pub const LUA: &str = include_str!("lag.lua");

/// How many entries are counted at most: 200 of 600 B take Redis about 1 ms.
pub const MOST_COUNTED: u64 = 200;

/// A count of entries, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// As many as this; after a loss of unread entries possibly fewer, never more.
    Exact(u64),
    /// As many as this or more.
    AtLeast(u64),
    /// Nobody knows: not none.
    Unknown(LagGap),
}

/// Why a count is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LagGap {
    /// Redis gives no answer.
    RedisUnreachable,
    /// There is no stream: ingest has written nothing yet, or Redis lost its data.
    StreamMissing,
    /// There is a stream and no group: no worker has made it yet, or somebody removed it.
    GroupMissing,
    /// One of the names belongs to a key of another type.
    KeyOfWrongType,
    /// Redis answered in a way that this version does not understand.
    AnswerUnreadable,
}

/// What Redis tells of the lag, before it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Entries in the stream.
    pub length: u64,
    /// The first of them.
    pub first: Option<StreamId>,
    /// The last ID that the stream gave.
    pub last: StreamId,
    /// The last entry that the group was given.
    pub delivered: StreamId,
    /// What Redis says.
    pub lag: Option<u64>,
    /// Unread entries counted, up to [`MOST_COUNTED`]; none where there was no need.
    pub unread: Option<u64>,
    /// Entries that were delivered and are still in the stream, up to [`MOST_COUNTED`]; none where there was no need.
    pub kept: Option<u64>,
}

/// How far behind a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// Entries that no consumer was given yet.
    pub undelivered: Lag,
}

/// Asks in one moment how far behind a group is; none where stream or group is missing.
///
/// # Errors
/// Redis is away or refuses, or the answer is not understood.
pub async fn backlog(client: &Client, stream: &str, group: &str) -> Result<Option<Backlog>, Error> {
    let text = concat!(include_str!("lag.lua"), include_str!("backlog.lua"));
    let most = Value::Integer(MOST_COUNTED as i64);
    let answer: Value = script::run(client, text, stream, vec![group.into(), most]).await?;
    if answer.is_null() {
        return Ok(None);
    }
    let surprise = || Error::new(ErrorKind::Parse, "could not parse what Redis tells of the group's lag");
    Backlog::read(answer).map(Some).ok_or_else(surprise)
}

// === impl Told ===

impl Told {
    /// Reads what `lag_told` returns.
    #[must_use]
    pub fn read(value: Value) -> Option<Self> {
        let mut parts = value.into_array().into_iter();
        let mut next = || parts.next();
        let id = |value: &Value| value.as_string()?.parse::<StreamId>().ok();
        Some(Self {
            length: next()?.as_u64()?,
            first: id(&next()?),
            last: id(&next()?)?,
            delivered: id(&next()?)?,
            lag: next()?.as_u64(),
            unread: next()?.as_u64(),
            kept: next()?.as_u64(),
        })
    }

    /// Makes of it what can be relied on.
    #[must_use]
    pub fn undelivered(self) -> Lag {
        let Self { length, first, last, delivered, lag, unread, kept } = self;
        let unread = unread.unwrap_or(0);
        if length == 0 || delivered == last {
            Lag::Exact(0)
        } else if unread < MOST_COUNTED {
            Lag::Exact(unread)
        } else if first.is_some_and(|first| first > delivered) {
            // Nothing of what is there was delivered.
            Lag::Exact(length)
        } else if let Some(lag) = lag {
            Lag::Exact(lag.min(length).max(unread))
        } else if let Some(kept) = kept.filter(|kept| *kept < MOST_COUNTED) {
            Lag::Exact(length.saturating_sub(kept).max(unread))
        } else {
            Lag::AtLeast(unread)
        }
    }
}

// === impl Backlog ===

impl Backlog {
    fn read(value: Value) -> Option<Self> {
        let mut parts = value.into_array().into_iter();
        let pending = parts.next()?.as_u64()?;
        Some(Self { pending, undelivered: Told::read(parts.next()?)?.undelivered() })
    }

    /// Returns how many entries are not settled, as far as that is known.
    #[must_use]
    pub fn left(self) -> Lag {
        match self.undelivered {
            Lag::Exact(count) => Lag::Exact(count + self.pending),
            Lag::AtLeast(count) => Lag::AtLeast(count + self.pending),
            unknown @ Lag::Unknown(_) => unknown,
        }
    }
}

// === impl Lag ===

impl Lag {
    /// Returns what is certain: how many there are at least.
    #[must_use]
    pub fn at_least(self) -> u64 {
        match self {
            Self::Exact(count) | Self::AtLeast(count) => count,
            Self::Unknown(_) => 0,
        }
    }

    /// Says whether the count is whole.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Returns it as a gauge shows it: what is certain, and no number where nothing is.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Exact(count) | Self::AtLeast(count) => count as f64,
            Self::Unknown(_) => f64::NAN,
        }
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(count) => count.fmt(f),
            Self::AtLeast(count) => write!(f, "at least {count}"),
            Self::Unknown(gap) => write!(f, "unknown ({gap})"),
        }
    }
}

// === impl LagGap ===

impl LagGap {
    /// Returns a stable name for conditions and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisUnreachable => "RedisUnreachable",
            Self::StreamMissing => "StreamMissing",
            Self::GroupMissing => "GroupMissing",
            Self::KeyOfWrongType => "KeyOfWrongType",
            Self::AnswerUnreadable => "AnswerUnreadable",
        }
    }
}

impl fmt::Display for LagGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RedisUnreachable => "Redis gives no answer",
            Self::StreamMissing => "there is no stream",
            Self::GroupMissing => "the workers' group is missing",
            Self::KeyOfWrongType => "a key has the wrong type",
            Self::AnswerUnreadable => "the answer of Redis is not understood",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose last entry is 10,000 and that has no gaps.
    fn told(length: u64, delivered: u64, lag: Option<u64>, unread: Option<u64>, kept: Option<u64>) -> Lag {
        let id = |ms| StreamId { ms, seq: 0 };
        let first = (length > 0).then(|| id(10_001 - length));
        Told { length, first, last: id(10_000), delivered: id(delivered), lag, unread, kept }.undelivered()
    }

    #[test]
    fn an_empty_stream_and_a_group_at_its_end_have_no_lag_whatever_redis_says() {
        assert_eq!(told(0, 5, Some(9), None, None), Lag::Exact(0));
        assert_eq!(told(3, 10_000, Some(6), None, None), Lag::Exact(0));
        assert_eq!(told(3, 10_000, None, None, None), Lag::Exact(0));
    }

    #[test]
    fn a_short_count_is_right_where_redis_is_not() {
        assert_eq!(told(5_000, 9_990, Some(1_900), Some(10), None), Lag::Exact(10));
        assert_eq!(told(5_000, 9_990, None, Some(10), None), Lag::Exact(10));
    }

    #[test]
    fn a_lag_is_never_more_than_the_stream_holds() {
        assert_eq!(told(500, 9_700, Some(90_000), Some(200), None), Lag::Exact(500));
        assert_eq!(told(500, 100, None, Some(200), Some(0)), Lag::Exact(500), "nothing of it was delivered");
    }

    #[test]
    fn without_a_lag_what_is_left_of_the_delivered_tells_it_else_only_the_counted_is_certain() {
        assert_eq!(told(5_000, 6_000, Some(4_000), Some(200), None), Lag::Exact(4_000));
        assert_eq!(told(5_000, 5_199, None, Some(200), Some(199)), Lag::Exact(4_801));
        assert_eq!(told(5_000, 6_000, None, Some(200), Some(200)), Lag::AtLeast(200));
    }

    #[test]
    fn a_gauge_shows_what_is_certain() {
        assert_eq!((Lag::Exact(7).as_f64(), Lag::AtLeast(200).as_f64()), (7.0, 200.0));
        assert!(Lag::Unknown(LagGap::GroupMissing).as_f64().is_nan(), "unknown is never none");
        let left = |undelivered| Backlog { pending: 3, undelivered }.left();
        assert_eq!((left(Lag::Exact(7)), left(Lag::AtLeast(200))), (Lag::Exact(10), Lag::AtLeast(203)));
    }
}

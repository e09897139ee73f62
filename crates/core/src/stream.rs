//! Redis stream IDs, sequence numbers and the field order of an entry.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The ID of an entry in a Redis stream: milliseconds, then a counter within the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix milliseconds of the Redis server that made the ID.
    pub ms: u64,
    /// Counter of the entries within that millisecond.
    pub seq: u64,
}

/// A relay's sequence number, in 1..2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

/// A text that is no stream ID.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a stream id like 1700000000000-0")]
pub struct StreamIdError(String);

/// A number or text that is no sequence number.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a sequence number in 1..2^53")]
pub struct SeqError(String);

/// The fields of a stream entry, in the order in which readers index them.
pub mod field {
    /// `commit`, `identity` or `account`.
    pub const TYPE: &str = "type";
    /// The event as JSON.
    pub const DATA: &str = "data";
    /// The relay's sequence number in decimal, or empty.
    pub const SEQ: &str = "seq";
    /// W3C trace context of a sampled entry. Ours: stands after `seq`.
    pub const TRACEPARENT: &str = "traceparent";
    /// The first eight bytes of the digest of the tree that a commit leaves, as 16 hexadecimal digits. Ours: stands after `seq`.
    pub const ROOT: &str = "root";
    /// Why the repo is desynchronized since this commit or one before it: a word. Ours: stands after `seq`.
    pub const SYNC: &str = "sync";
    /// The ID that a replayed dead letter, or an entry put back at the tail, had at first. Ours: stands after `seq`.
    pub const ORIG_ID: &str = "origId";
    /// How often an entry was put back at the tail. Ours: stands after `origId`.
    pub const REQUEUED: &str = "requeued";
    /// How often a dead letter was delivered.
    pub const DELIVERIES: &str = "deliveries";
    /// Why an entry became a dead letter. Ours.
    pub const ERROR: &str = "error";
    /// Which consumer gave it up. Ours.
    pub const CONSUMER: &str = "consumer";
    /// Whose letter a dead letter is, where that is known. Ours: stands last.
    pub const REPO: &str = "repo";
}

// === impl StreamId ===

impl StreamId {
    /// The smallest ID there is.
    pub const MIN: Self = Self { ms: 0, seq: 0 };

    /// Returns the smallest ID above this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            None => Self { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        match (decimal(ms), decimal(seq)) {
            (Some(ms), Some(seq)) => Ok(Self { ms, seq }),
            _ => Err(StreamIdError(text.chars().take(64).collect())),
        }
    }
}

// === impl Seq ===

impl Seq {
    /// The first number above the range, 2^53: what a JSON number can still hold exactly.
    pub const END: u64 = 1 << 53;

    /// Makes a sequence number; `None` outside 1..2^53.
    #[must_use]
    pub fn new(value: u64) -> Option<Self> {
        (1..Self::END).contains(&value).then_some(Self(value))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Seq {
    type Err = SeqError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text).and_then(Self::new).ok_or_else(|| SeqError(text.chars().take(64).collect()))
    }
}

/// Reads digits only: `u64::from_str` would also take a leading `+`.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_order_by_milliseconds_then_counter() {
        let id = |text: &str| text.parse::<StreamId>().unwrap();
        assert!(id("9-10") < id("10-2"));
        assert!(id("10-2") < id("10-10"));
        assert_eq!(id("5"), StreamId { ms: 5, seq: 0 });
        assert_eq!(id("1-18446744073709551615").next(), id("2-0"));
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        for bad in ["", "-", "a-1", "1-", "+1-1", "1-1-1", "-1-0"] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sequence_numbers_end_below_2_to_the_53() {
        assert_eq!("9007199254740991".parse::<Seq>().unwrap().get(), (1 << 53) - 1);
        for bad in ["", "0", "9007199254740992", "-1", "+1", "1.0", "x"] {
            assert!(bad.parse::<Seq>().is_err(), "{bad:?}");
        }
    }
}

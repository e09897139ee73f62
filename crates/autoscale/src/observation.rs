//! What is seen of the queue and of the fleet at one moment; what is not known stays unknown.

use std::time::Duration;

use jiff::Timestamp;
use penstock_core::stream::StreamId;

pub use penstock_core::lag::{Lag, LagGap};

/// What is seen at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// What Redis shows, or why it shows nothing.
    pub queue: Result<Queue, LagGap>,
    /// What the cluster shows.
    pub fleet: Fleet,
}

/// The workers, as the cluster shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// How many are asked for now.
    pub desired: u16,
    /// How many are ready.
    pub ready: u16,
    /// Whether a new version is being rolled out.
    pub rolling: bool,
}

/// What Redis shows in one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Entries in the stream; 0 where there is none.
    pub length: u64,
    /// Entries ever added; none before Redis 7, or without a stream.
    pub added: Option<u64>,
    /// The last ID that the stream gave; none without a stream.
    pub last_id: Option<StreamId>,
    /// The workers' group; none where it is missing.
    pub group: Option<Group>,
    /// Entries that no worker was given yet.
    pub undelivered: Lag,
    /// Entries that no worker holds any more: given to one that showed no sign of it for the claim time, or handed back.
    pub stranded: Lag,
    /// The group's consumers that hold something or showed life lately, at most 500.
    pub consumers: Vec<Consumer>,
    /// Entries settled by the group since some moment in the past; only differences mean anything.
    pub acked: Option<Acked>,
    /// What ingest says of itself.
    pub ingest: Ingest,
}

/// The workers' group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The last entry it was given.
    pub last_delivered: StreamId,
    /// Entries it was given and has not acknowledged.
    pub pending: u64,
}

/// One consumer of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Entries it was given and has not acknowledged.
    pub pending: u64,
    /// How long ago it last asked for anything.
    pub idle: Duration,
}

/// A running count of settled entries. Two counts compare only where they come from the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// Entries the group ever read, less those pending: what Redis itself knows.
    Read(u64),
    /// What the workers counted as they acknowledged.
    Counted(u64),
}

/// What ingest says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingest {
    /// Whether it does not read because the stream is full.
    pub paused: bool,
    /// Event time of what it wrote last.
    pub event_time: Option<Timestamp>,
}

// === impl Queue ===

impl Queue {
    /// Returns entries given to a worker and not acknowledged; 0 without a group.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.group.map_or(0, |group| group.pending)
    }

    /// Returns how far what was delivered lies behind what was written, by the clock of Redis.
    #[must_use]
    pub fn behind(&self) -> Option<Duration> {
        let behind = self.last_id?.ms.saturating_sub(self.group?.last_delivered.ms);
        Some(Duration::from_millis(behind))
    }
}

// === impl Acked ===

impl Acked {
    /// Returns how many were settled since an earlier count; none where the two do not compare.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<u64> {
        match (self, earlier) {
            (Self::Read(now), Self::Read(then)) | (Self::Counted(now), Self::Counted(then)) => now.checked_sub(then),
            _ => None,
        }
    }
}

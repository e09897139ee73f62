//! The message buffer as the dashboard sees it: what is queued, what is told of it, what PostgreSQL has.
//!
//! However many clients watch, a process reads the statistics once an interval and subscribes once, and writes each frame
//! once. Nothing is read while nobody watches.

mod draft;
mod integer;
mod queue;
mod rows;
mod sockets;
mod source;
mod stats;

use std::time::Duration;

use penstock_core::settings::Settings;
use tokio::sync::watch;

pub(crate) use draft::{Draft, Faults, Sent, count, limit};
pub(crate) use queue::{NotQueued, Queue};
pub(crate) use rows::{Row, Rows};
pub(crate) use sockets::Sockets;
pub(crate) use source::{pass_batches, watch_stats};
pub(crate) use stats::{LastBatch, Stats, StatsFrame, progress};

use crate::events::Events;

/// What the routes of the message buffer share, where it is enabled.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) sockets: Sockets,
    /// The statistics as they were told last.
    newest: watch::Sender<Stats>,
    /// Absent where no database is set.
    pub(crate) rows: Option<Rows>,
}

// === impl Messages ===

impl Messages {
    /// Begins without clients; none where the message buffer is not enabled. A client is asked for a sign of life each `ping`.
    pub(crate) fn new(settings: &Settings, ping: Duration, events: Events) -> Option<Self> {
        settings.message_buffer.enabled.then(|| Self {
            sockets: Sockets::new(ping, events),
            newest: watch::Sender::default(),
            rows: Rows::new(&settings.postgres),
        })
    }
}

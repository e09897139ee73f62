//! How a connection ends.

use std::time::Duration;

use penstock_core::causes::innermost;
use penstock_core::servers::is_unanswered;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout};

use crate::intake::resets::Reset;
use crate::intake::{Intake, Stop};
use crate::relay::socket::End;
use crate::stream::error::PublishError;

/// How long pending data may take to be written at a shutdown.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Shutdown was requested.
    Shutdown,
    /// The stream is full.
    Paused,
    /// A new connection was requested.
    Reconnect,
    /// The host restarted its sequence; this is how to resume.
    Reset(Reset),
    /// A second connection to a quiet host replaces this one.
    Renewed,
    /// The relay failed.
    Relay {
        /// A word for the metric.
        reason: &'static str,
        /// The cause, for the log.
        detail: String,
        /// How long events had been arriving.
        healthy: Duration,
    },
    /// Another program changed the cursor.
    Foreign {
        /// The text found.
        found: String,
        /// The text expected.
        expected: String,
    },
    /// Another program adds entries to the stream.
    Crowded {
        /// Its first entry.
        id: String,
    },
    /// Redis has lost its data, and PostgreSQL cannot be asked where to resume.
    Database {
        /// The cause, for log and health.
        detail: String,
    },
    /// Redis failed or was replaced: the position must be read again.
    Redis {
        /// A word for the metric.
        reason: &'static str,
        /// The cause, for the log.
        detail: String,
        /// Whether Redis answered.
        is_answered: bool,
    },
    /// Another ingest holds the lease.
    LeaseLost,
}

/// Returns the outcome of a connection that a frame stopped.
pub(crate) fn stopped(stop: Stop, first_data: Option<Instant>) -> Outcome {
    let healthy = first_data.map(|first| first.elapsed()).unwrap_or_default();
    match stop {
        Stop::Reset(reset) => Outcome::Reset(reset),
        Stop::Unreadable => Outcome::Relay { reason: "unreadable", detail: "unreadable frame".to_owned(), healthy },
        Stop::Said(detail) => Outcome::Relay { reason: "said", detail, healthy },
    }
}

/// Returns the outcome of a connection with a chunk that could not be decoded.
pub(crate) fn undecoded(error: &JoinError) -> Outcome {
    Outcome::Relay { reason: "decoder", detail: error.to_string(), healthy: Duration::ZERO }
}

/// Returns the outcome of a connection with a batch that was not written.
pub(crate) fn refused(error: PublishError) -> Outcome {
    let detail = error.to_string();
    match error {
        PublishError::Lease => Outcome::LeaseLost,
        PublishError::Cursor { found, expected } => Outcome::Foreign { found, expected },
        PublishError::Entry { id } => Outcome::Crowded { id },
        PublishError::Behind => Outcome::Redis { reason: "behind", detail, is_answered: true },
        PublishError::Incarnation { .. } => Outcome::Redis { reason: "incarnation", detail, is_answered: true },
        PublishError::Redis(error) => Outcome::Redis { reason: "redis", detail, is_answered: !is_unanswered(&error) },
        PublishError::Answer(_) => Outcome::Redis { reason: "redis", detail, is_answered: true },
    }
}

/// Waits for the reader, and returns why it ended.
pub(crate) async fn ended(
    reader: &mut JoinHandle<End>,
    intake: &mut Intake<'_>,
    first_data: Option<Instant>,
) -> Outcome {
    let healthy = first_data.map(|first| first.elapsed()).unwrap_or_default();
    match timeout(DRAIN, reader).await {
        Ok(Ok(End::Stopped)) => Outcome::Shutdown,
        Ok(Ok(End::Closed(detail))) => {
            Outcome::Relay { reason: "closed", detail: format!("closed by the relay {detail}"), healthy }
        }
        Ok(Ok(End::Silent(after))) => {
            intake.ended();
            Outcome::Relay { reason: "silent", detail: format!("no data for {after:?}"), healthy }
        }
        Ok(Ok(End::Oversized(size))) => {
            intake.oversized(size);
            Outcome::Relay { reason: "oversized", detail: format!("frame of {size} bytes"), healthy }
        }
        Ok(Ok(End::Cut(unfinished))) => {
            let detail = format!("ended in the middle of a frame, seq {:?}", unfinished.seq);
            intake.cut(unfinished);
            Outcome::Relay { reason: "failed", detail, healthy }
        }
        Ok(Ok(End::Failed(error))) => {
            intake.ended();
            Outcome::Relay { reason: "failed", detail: innermost(&error), healthy }
        }
        Ok(Err(error)) => Outcome::Relay { reason: "failed", detail: error.to_string(), healthy },
        Err(_) => Outcome::Relay { reason: "failed", detail: "the reader did not stop".to_owned(), healthy },
    }
}

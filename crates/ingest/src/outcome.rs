//! How a connection ends.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::intake::{Intake, Stop};
use crate::publish::PublishError;
use crate::session::DRAIN;
use crate::socket::End;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Ingest is to end.
    Asked,
    /// The stream is full.
    Paused,
    /// Somebody wants a new connection.
    Reconnect,
    /// The host's sequence began again.
    Reset,
    /// The relay failed.
    Relay {
        /// In a word, for the metric.
        reason: &'static str,
        /// For the log.
        detail: String,
        /// How long events had come.
        healthy: Duration,
    },
    /// Something else wrote the cursor.
    Foreign {
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// Another program adds entries to the stream.
    Crowded {
        /// The first of them.
        id: String,
    },
    /// Redis is lost, and PostgreSQL does not tell where to resume.
    Database {
        /// For log and health.
        detail: String,
    },
    /// Redis failed, or is not the one it was: the position is in doubt.
    Redis {
        /// In a word, for the metric.
        reason: &'static str,
        /// For the log.
        detail: String,
    },
    /// Another ingest holds the lease.
    LeaseLost,
}

/// Says how a connection ends that cannot be read on.
pub(crate) fn stopped(stop: Stop, first_data: Option<Instant>) -> Outcome {
    let healthy = first_data.map(|first| first.elapsed()).unwrap_or_default();
    match stop {
        Stop::Reset => Outcome::Reset,
        Stop::Unreadable => {
            Outcome::Relay { reason: "unreadable", detail: "a frame is unreadable".to_owned(), healthy }
        }
        Stop::Said(detail) => Outcome::Relay { reason: "said", detail, healthy },
    }
}

/// Says how a connection ends of which a batch was not written.
pub(crate) fn refused(error: PublishError) -> Outcome {
    let detail = error.to_string();
    match error {
        PublishError::Lease => Outcome::LeaseLost,
        PublishError::Cursor { found, expected } => Outcome::Foreign { found, expected },
        PublishError::Entry { id } => Outcome::Crowded { id },
        PublishError::Behind => Outcome::Redis { reason: "behind", detail },
        PublishError::Incarnation { .. } => Outcome::Redis { reason: "incarnation", detail },
        PublishError::Redis(_) | PublishError::Answer(_) => Outcome::Redis { reason: "redis", detail },
    }
}

/// Waits for the reader, and says how the connection ended.
pub(crate) async fn ended(
    reader: &mut JoinHandle<End>,
    intake: &mut Intake<'_>,
    first_data: Option<Instant>,
) -> Outcome {
    let healthy = first_data.map(|first| first.elapsed()).unwrap_or_default();
    match timeout(DRAIN, reader).await {
        Ok(Ok(End::Asked)) => Outcome::Asked,
        Ok(Ok(End::Closed(detail))) => {
            Outcome::Relay { reason: "closed", detail: format!("the relay closed {detail}"), healthy }
        }
        Ok(Ok(End::Silent(after))) => {
            Outcome::Relay { reason: "silent", detail: format!("no data for {after:?}"), healthy }
        }
        Ok(Ok(End::Oversized(size))) => {
            intake.oversized(size);
            Outcome::Relay { reason: "oversized", detail: format!("a frame has {size} bytes"), healthy }
        }
        Ok(Ok(End::Failed(error))) => Outcome::Relay { reason: "failed", detail: error.to_string(), healthy },
        Ok(Err(error)) => Outcome::Relay { reason: "failed", detail: error.to_string(), healthy },
        Err(_) => Outcome::Relay { reason: "failed", detail: "the reader did not end".to_owned(), healthy },
    }
}

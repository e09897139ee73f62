//! The events of identities: each one is a log line and a metric.

use std::time::Duration;

use penstock_core::servers::{Kind, Server};
use penstock_telemetry::metrics::{Metric, Metrics};
use tracing::{info, warn};

/// The longest pause before the directory is asked again.
const EVERY: Duration = Duration::from_secs(30);

/// Logs and counts what happens.
#[derive(Clone)]
pub(crate) struct Events {
    metrics: Metrics,
    directory: Server,
}

/// What is asked for over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A DID document.
    Document,
    /// Whose a handle is.
    Handle,
    /// Whether a host has an account.
    Status,
}

// === impl Events ===

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Takes the handles, so that what never happened shows as 0.
    pub(crate) fn new(metrics: &Metrics, directory: &str) -> Self {
        let means = "identities that are not known yet cannot be resolved; it is asked again until it answers";
        let events =
            Self { metrics: metrics.clone(), directory: Server::new(Kind::Directory, directory, means, EVERY) };
        for result in ["memory", "table", "miss"] {
            let _ = metrics.counter(Metric::IdentityCache, result);
        }
        for asked in [Asked::Document, Asked::Handle, Asked::Status] {
            let _ = metrics.counter(Metric::IdentityRequests, label(asked, "ok"));
            let _ = metrics.counter(Metric::IdentityRequests, label(asked, "unreachable"));
        }
        events
    }

    /// A request was answered, or not.
    pub(crate) fn asked(&self, asked: Asked, result: &'static str) {
        self.metrics.counter(Metric::IdentityRequests, label(asked, result)).inc();
    }

    /// What was wanted was in memory, in the table, or in neither.
    pub(crate) fn looked_up(&self, found: &'static str) {
        self.metrics.counter(Metric::IdentityCache, found).inc();
    }

    /// The directory answered.
    pub(crate) fn directory_answered(&self) {
        self.directory.answered();
    }

    /// The directory did not.
    pub(crate) fn directory_failed(&self, why: &str) {
        self.directory.failed_because(why);
    }

    /// The table cannot be used.
    pub(crate) fn table_away(&self, error: &str) {
        warn!(
            error,
            "the table of identities cannot be used: they are resolved over the network and kept in memory until it can"
        );
    }

    /// It can again.
    pub(crate) fn table_back(&self) {
        info!("the table of identities can be used again");
    }
}

/// Labels are literals, so that their number is bounded.
fn label(asked: Asked, result: &'static str) -> &'static str {
    macro_rules! labels {
        ($kind:literal) => {
            match result {
                "ok" => concat!($kind, ",ok"),
                "not_found" => concat!($kind, ",not_found"),
                "tombstoned" => concat!($kind, ",tombstoned"),
                "refused" => concat!($kind, ",refused"),
                "busy" => concat!($kind, ",busy"),
                _ => concat!($kind, ",unreachable"),
            }
        };
    }
    match asked {
        Asked::Document => labels!("document"),
        Asked::Handle => labels!("handle"),
        Asked::Status => labels!("status"),
    }
}

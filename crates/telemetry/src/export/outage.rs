//! A collector that does not take what it is sent: counted each time, told now and then.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metrics::{Counter, Metric, Metrics};

/// How often an outage that goes on is told again.
const REMIND: Duration = Duration::from_secs(60);

/// The outage of one signal, `traces` or `metrics`.
#[derive(Debug)]
pub(super) struct Outage {
    signal: &'static str,
    failures: Counter,
    began: Option<Instant>,
    told: Option<Instant>,
}

// === impl Outage ===

impl Outage {
    pub(super) fn new(signal: &'static str, metrics: &Metrics) -> Self {
        Self { signal, failures: metrics.counter(Metric::ExportFailures, signal), began: None, told: None }
    }

    /// Notes how a sending ended.
    pub(super) fn note(&mut self, sent: Result<(), String>) {
        let now = Instant::now();
        match sent {
            Ok(()) => {
                self.told = None;
                if let Some(began) = self.began.take() {
                    info!(signal = self.signal, after = ?now.duration_since(began), "the collector takes what it is sent again");
                }
            }
            Err(error) => {
                self.failures.inc();
                self.began.get_or_insert(now);
                if self.told.is_none_or(|told| now.duration_since(told) >= REMIND) {
                    self.told = Some(now);
                    let failures = self.failures.get();
                    warn!(
                        signal = self.signal,
                        failures, error, "the collector does not take what it is sent, dropped"
                    );
                }
            }
        }
    }
}

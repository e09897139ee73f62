//! A collector that does not take what it is sent: counted each time, told once.

use std::error::Error;
use std::time::Instant;

use opentelemetry_sdk::error::OTelSdkError;
use penstock_core::causes::{innermost, phrase};
use penstock_core::servers::{Circumstances, Failing, Server};
use penstock_core::units::seconds;
use tonic::Code;
use tracing::{info, warn};

use crate::metrics::{Counter, Metric, Metrics};

/// What a text holds that tells of a collector which gave no answer, and what is said of it; empty: the text itself.
const UNANSWERED: &[(&str, &str)] = &[
    ("connection refused", "connection refused"),
    ("connectionrefused", "connection refused"),
    ("connection reset", "connection reset by peer"),
    ("connectionreset", "connection reset by peer"),
    ("timed out", "no answer in time"),
    ("timeout", "no answer in time"),
    ("deadline", "no answer in time"),
    ("dns error", "its name could not be resolved"),
    ("connect", ""),
    ("transport", ""),
    ("unavailable", ""),
];

/// Why something was not sent.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The collector does not answer, and why.
    Unanswered(String),
    /// It refuses what it is sent, with these words.
    Refused(String),
}

/// How the sending of one signal fares, `traces` or `metrics`.
#[derive(Debug)]
pub(super) struct Outage {
    signal: &'static str,
    failures: Counter,
    /// Shared by the signals.
    server: Server,
    refused: Failing,
}

// === impl NotSent ===

impl NotSent {
    /// Takes for no answer whatever the collector did not say.
    pub(super) fn unanswered(error: &(dyn Error + 'static)) -> Self {
        Self::Unanswered(innermost(error))
    }

    /// Judges by the code that a call came back with; without an answer the library makes one up.
    pub(super) fn by_grpc(status: &tonic::Status) -> Self {
        match (status.code(), status.source()) {
            (_, Some(source)) => Self::unanswered(source),
            (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, None) => {
                Self::Unanswered(phrase(status.message()))
            }
            (code, None) => Self::Refused(format!("{code:?}: {}", phrase(status.message()))),
        }
    }

    /// Judges by the text that the library makes of an error, which is all that it gives.
    pub(super) fn in_library(error: &OTelSdkError) -> Self {
        let text = match error {
            OTelSdkError::Timeout(_) => return Self::Unanswered("no answer in time".to_owned()),
            OTelSdkError::AlreadyShutdown => return Self::Refused("it was shut down".to_owned()),
            OTelSdkError::InternalFailure(text) => text,
        };
        let lower = text.to_lowercase();
        let found = UNANSWERED.iter().find(|(sign, _)| lower.contains(sign));
        match found {
            Some((_, "")) => Self::Unanswered(phrase(text)),
            Some((_, cause)) => Self::Unanswered((*cause).to_owned()),
            None => Self::Refused(phrase(text)),
        }
    }
}

// === impl Outage ===

impl Outage {
    pub(super) fn new(signal: &'static str, server: Server, metrics: &Metrics) -> Self {
        let failures = metrics.counter(Metric::ExportFailures, signal);
        Self { signal, failures, server, refused: Failing::default() }
    }

    /// Records how a sending ended.
    pub(super) fn record(&mut self, sent: Result<(), NotSent>) {
        let now = Instant::now();
        match sent {
            Ok(()) => {
                self.server.answered();
                if let Some(after) = self.refused.over(now) {
                    info!(signal = self.signal, after_seconds = seconds(after), "the collector accepts exports again");
                }
            }
            Err(NotSent::Unanswered(cause)) => {
                self.failures.inc();
                self.server.failed_because(&cause);
            }
            Err(NotSent::Refused(error)) => {
                self.failures.inc();
                self.server.answered();
                if let Some(failures) = self.refused.failed(now, Circumstances { is_away: false, is_unanswered: false })
                {
                    warn!(signal = self.signal, failures, error, "the collector refused an export, dropped");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_refuses_is_not_away() {
        let unanswered = |cause: &str| format!("{:?}", NotSent::Unanswered(cause.to_owned()));
        let library =
            |text: &str| format!("{:?}", NotSent::in_library(&OTelSdkError::InternalFailure(text.to_owned())));
        let refused = "ConnectError(\"tcp connect error\", Os { code: 111, kind: ConnectionRefused })";
        assert_eq!(library(refused), unanswered("connection refused"));
        assert_eq!(library("Request timed out"), unanswered("no answer in time"));
        assert_eq!(library("HTTP export failed with status 401"), "Refused(\"HTTP export failed with status 401\")");
        let status = tonic::Status::unauthenticated("no key");
        assert_eq!(format!("{:?}", NotSent::by_grpc(&status)), "Refused(\"Unauthenticated: no key\")");
        assert_eq!(format!("{:?}", NotSent::by_grpc(&tonic::Status::unavailable("Gone"))), unanswered("gone"));
    }
}

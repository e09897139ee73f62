//! What fails again and again: one line, and none where the server behind it is away, which is told once for everything.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use fred::error::ErrorKind;

/// How long something must have failed without an answer until it is told, although its server answers others.
const GRACE: Duration = Duration::from_secs(10);

/// How often a failure that lasts is told again.
const REMIND: Duration = Duration::from_secs(300);

/// One thing that fails, and goes on failing.
#[derive(Clone, Debug, Default)]
pub struct Failing {
    began: Option<Instant>,
    told: Option<Instant>,
    failures: u64,
}

/// How something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// Its server is known to be away.
    pub is_away: bool,
    /// It got no answer, so that its server may be away.
    pub is_unanswered: bool,
}

// === impl Failing ===

impl Failing {
    /// Records a failure; returns how many there were so far when a line is due.
    pub fn failed(&mut self, now: Instant, how: Circumstances) -> Option<u64> {
        let began = *self.began.get_or_insert(now);
        self.failures += 1;
        let is_news = self.told.is_none_or(|told| now.saturating_duration_since(told) >= REMIND);
        let may_be_told = !how.is_unanswered || now.saturating_duration_since(began) >= GRACE;
        if how.is_away || !is_news || !may_be_told {
            return None;
        }
        self.told = Some(now);
        Some(self.failures)
    }

    /// Records a success; returns how long the failure went on, if it was told.
    pub fn over(&mut self, now: Instant) -> Option<Duration> {
        let Self { began, told, .. } = std::mem::take(self);
        told.and(began).map(|began| now.saturating_duration_since(began))
    }

    /// Returns whether it fails.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.began.is_some()
    }
}

/// Returns whether an error says that a server could not be reached or gave no answer; one that refuses gave an answer.
#[must_use]
pub fn is_unanswered(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() || error.downcast_ref::<fred::error::Error>().is_some_and(is_unanswered_by_redis) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the client (fred 10.1) says, without a kind of its own, of a command that found no connection to send it on.
const UNROUTED: &str = "Failed to route command.";

/// As [`is_unanswered`], for Redis. One that still loads its data answers nothing else.
fn is_unanswered_by_redis(error: &fred::error::Error) -> bool {
    let is_lost = matches!(
        error.kind(),
        ErrorKind::IO
            | ErrorKind::Timeout
            | ErrorKind::Canceled
            | ErrorKind::Tls
            | ErrorKind::Routing
            | ErrorKind::Sentinel
            | ErrorKind::Backpressure
    );
    is_lost
        || error.details() == UNROUTED
        || ["LOADING", "MASTERDOWN", "CLUSTERDOWN"].iter().any(|word| error.details().starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Circumstances = Circumstances { is_away: false, is_unanswered: false };
    const UNANSWERED: Circumstances = Circumstances { is_unanswered: true, ..REFUSED };
    const AWAY: Circumstances = Circumstances { is_away: true, ..UNANSWERED };

    #[test]
    fn what_is_refused_is_told_at_once_then_now_and_then_then_as_over() {
        let start = Instant::now();
        let mut failing = Failing::default();
        assert_eq!(failing.over(start), None);
        assert_eq!(failing.failed(start, REFUSED), Some(1));
        assert_eq!(failing.failed(start + GRACE, REFUSED), None);
        assert_eq!(failing.failed(start + REMIND, REFUSED), Some(3));
        assert_eq!(failing.over(start + REMIND * 2), Some(REMIND * 2));
        assert_eq!(failing.failed(start + REMIND * 2, REFUSED), Some(1));
    }

    #[test]
    fn what_gets_no_answer_is_told_only_if_others_get_one() {
        let start = Instant::now();
        let mut failing = Failing::default();
        assert_eq!(failing.failed(start, UNANSWERED), None);
        assert_eq!(failing.failed(start + GRACE, AWAY), None);
        assert_eq!(failing.over(start + GRACE), None, "nothing was told");
        assert_eq!(failing.failed(start, UNANSWERED), None);
        assert_eq!(failing.failed(start + GRACE, UNANSWERED), Some(2));
    }

    #[test]
    fn a_server_that_refuses_answers() {
        let redis = |kind, details: &'static str| fred::error::Error::new(kind, details);
        for (error, expected) in [
            (redis(ErrorKind::IO, "Connection refused (os error 111)"), true),
            (redis(ErrorKind::Timeout, "Request timed out."), true),
            (redis(ErrorKind::Unknown, UNROUTED), true),
            (redis(ErrorKind::Unknown, "LOADING Redis is loading the dataset in memory"), true),
            (redis(ErrorKind::Unknown, "READONLY You can't write against a read only replica."), false),
            (redis(ErrorKind::Unknown, "OOM command not allowed"), false),
        ] {
            assert_eq!(is_unanswered(&error), expected, "{error}");
        }
        assert!(is_unanswered(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}

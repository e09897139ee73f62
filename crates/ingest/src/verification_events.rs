//! The events of verification: what was found of commits, as log lines, metrics, and in [`Found`].

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_telemetry::metrics::{Counter, Gauge, Metric, Metrics};
use tracing::{debug, info, warn};

use crate::found::Found;
use crate::intake::chain::state::{Verdict, Why};

/// How often a line that may repeat is logged at most.
const SPARSE: Duration = Duration::from_secs(60);

/// Tells what was found of commits; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct VerificationEvents {
    metrics: Metrics,
    passed: Counter,
    repos: Gauge,
    found: Found,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    counters: HashMap<(&'static str, &'static str), Counter>,
    desynchronized: Sparse,
    failed: Sparse,
}

/// Lets one line of a kind through a minute, and counts the others.
#[derive(Debug, Default)]
struct Sparse {
    last: Option<Instant>,
    left_out: u64,
}

// === impl VerificationEvents ===

impl VerificationEvents {
    pub(crate) fn new(metrics: &Metrics, found: Found) -> Self {
        let shared = Shared { counters: HashMap::new(), desynchronized: Sparse::default(), failed: Sparse::default() };
        Self {
            passed: metrics.counter(Metric::Verified, "passed,none"),
            repos: metrics.gauge(Metric::RepoStates, None),
            metrics: metrics.clone(),
            found,
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// A commit was held against the chain of its repo, and nothing was wrong with itself.
    pub(crate) fn judged(&self, verdict: Verdict) {
        self.found.passed();
        match verdict {
            Verdict::Follows | Verdict::First => {
                self.passed.inc();
            }
            Verdict::NotNewer => self.count("repeated", "none"),
            Verdict::Breaks(why) => self.count("broken", why.word()),
            Verdict::Unknown(gap) => self.count("unknown", gap.word()),
        }
    }

    /// A repo is known to have missed something.
    pub(crate) fn desynchronized(&self, did: &str, why: Why, seq: Option<u64>) {
        let reason = why.word();
        self.metrics.counter(Metric::Desynchronized, reason).inc();
        self.found.desynchronized(reason);
        match self.lock().desynchronized.due(Instant::now()) {
            Some(suppressed) => warn!(did, seq, reason, suppressed, "repo is desynchronized: it missed something"),
            None => debug!(did, seq, reason, "repo is desynchronized"),
        }
    }

    /// A commit or `#sync` proves wrong; `word` names why.
    pub(crate) fn failed(&self, word: &'static str, did: &str, seq: u64, reason: &dyn Display, is_refused: bool) {
        self.count(if is_refused { "refused" } else { "failed" }, word);
        self.found.failed(did, word);
        match self.lock().failed.due(Instant::now()) {
            Some(suppressed) => warn!(did, seq, %reason, suppressed, "commit failed verification"),
            None => debug!(did, seq, %reason, "commit does not verify"),
        }
    }

    /// A `#sync` is not signed with the account's present key; nothing is wrong with that where the account has moved.
    pub(crate) fn unsigned_sync(&self, word: &'static str, did: &str, seq: u64, reason: &dyn Display) {
        self.count("ignored", word);
        debug!(did, seq, %reason, "sync is not signed with the present key");
    }

    /// A commit goes on although the key of its account cannot be had.
    pub(crate) fn unresolved(&self) {
        self.count("unresolved", "none");
        self.found.unresolved();
    }

    /// Events wait because keys cannot be had, or no longer.
    pub(crate) fn holding(&self, is_holding: bool) {
        self.found.held(is_holding);
        if is_holding {
            warn!("holding events until the keys of their accounts can be resolved (verify.unresolved)");
        } else {
            info!("keys can be resolved again, events go on");
        }
    }

    /// So many repos are in memory.
    pub(crate) fn repos(&self, repos: usize) {
        self.repos.set(repos as f64);
    }

    fn count(&self, result: &'static str, reason: &'static str) {
        let mut shared = self.lock();
        let counter = shared.counters.entry((result, reason)).or_insert_with(|| {
            // Labels are literals; of two literals there are few pairs, each of which is made once.
            self.metrics.counter(Metric::Verified, &*format!("{result},{reason}").leak())
        });
        counter.inc();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sparse ===

impl Sparse {
    /// Returns how many lines were left out since the last one, if one is due.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < SPARSE) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::{Layers, Settings};
    use penstock_core::verified::Verified;

    use super::*;

    #[test]
    fn a_line_that_repeats_is_told_once_a_minute_with_how_many_were_left_out() {
        let (mut sparse, start) = (Sparse::default(), Instant::now());
        let told: Vec<_> = (0..4).map(|at| sparse.due(start + Duration::from_secs(at * 30))).collect();
        assert_eq!(told, [Some(0), None, Some(1), None]);
    }

    #[test]
    fn each_commit_is_counted_once_and_reported() {
        let metrics = Metrics::new();
        let settings = Layers::default().flag("relay.urls", "wss://relay.test");
        let found = Found::new(&Settings::load(&settings).unwrap().verify);
        let events = VerificationEvents::new(&metrics, found.clone());
        events.judged(Verdict::Follows);
        events.judged(Verdict::Breaks(Why::Since));
        events.failed("signature", "did:plc:a", 7, &"no", true);
        events.failed("signature", "did:plc:a", 8, &"no", false);
        events.unresolved();
        events.desynchronized("did:plc:a", Why::Since, None);
        let text = metrics.encode();
        for line in [
            r#"penstock_ingest_verified_total{result="passed",reason="none"} 1"#,
            r#"penstock_ingest_verified_total{result="broken",reason="since"} 1"#,
            r#"penstock_ingest_verified_total{result="refused",reason="signature"} 1"#,
            r#"penstock_ingest_verified_total{result="failed",reason="signature"} 1"#,
            r#"penstock_ingest_verified_total{result="unresolved",reason="none"} 1"#,
            r#"penstock_ingest_desynchronized_total{reason="since"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let report = Verified::read(&found.text()).unwrap();
        assert_eq!((report.verified, report.failures(), report.unresolved, report.marked()), (2, 2, 1, 1));
    }
}

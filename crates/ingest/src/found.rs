//! What was found of the commits since this process began, for the operator and the dashboard.
//!
//! `Events` counts it beside its metrics, and `stream::live` writes it with the status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use penstock_core::settings::Verify;
use penstock_core::verified::{LastFailed, Verified};

/// Counts what was found; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Found(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of most commits nothing else is to be told.
    passed: AtomicU64,
    rest: Mutex<Verified>,
}

// === impl Found ===

impl Found {
    /// Begins at 0.
    pub(crate) fn new(verify: &Verify) -> Self {
        let rest = Verified::new(verify.mode, verify.signatures, Timestamp::now());
        Self(Arc::new(Inner { passed: AtomicU64::new(0), rest: Mutex::new(rest) }))
    }

    /// A commit proved right, as far as the modes ask.
    pub(crate) fn passed(&self) {
        self.0.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// A commit proved wrong.
    pub(crate) fn failed(&self, did: &str, reason: &str) {
        let mut rest = self.rest();
        *rest.failed.entry(reason.to_owned()).or_default() += 1;
        rest.last_failed = Some(LastFailed { at: Timestamp::now(), did: did.to_owned(), reason: reason.to_owned() });
    }

    /// A commit was written although its account's key could not be had.
    pub(crate) fn unresolved(&self) {
        let mut rest = self.rest();
        rest.unresolved += 1;
        rest.last_unresolved = Some(Timestamp::now());
    }

    /// A repo was marked.
    pub(crate) fn desynchronized(&self, reason: &str) {
        *self.rest().desynchronized.entry(reason.to_owned()).or_default() += 1;
    }

    /// Reading begins to wait for a key, or goes on.
    pub(crate) fn held(&self, is_held: bool) {
        let mut rest = self.rest();
        rest.held_since = is_held.then(|| rest.held_since.unwrap_or_else(Timestamp::now));
    }

    /// Returns all of it, as it is written.
    pub(crate) fn text(&self) -> String {
        let rest = self.rest().clone();
        Verified { verified: self.0.passed.load(Ordering::Relaxed), ..rest }.write()
    }

    fn rest(&self) -> MutexGuard<'_, Verified> {
        self.0.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::{Layers, Settings};

    use super::*;

    #[test]
    fn what_is_counted_is_what_is_written() {
        let layers = Layers::default().flag("redis.url", "redis://a").flag("verify.mode", "enforce");
        let found = Found::new(&Settings::load(&layers).unwrap().verify);
        let again = found.clone();
        (0..3).for_each(|_| again.passed());
        found.failed("did:plc:a", "signature");
        found.failed("did:plc:b", "inversion");
        found.failed("did:plc:c", "signature");
        found.unresolved();
        found.desynchronized("since");
        found.held(true);
        let told = Verified::read(&found.text()).unwrap();
        assert_eq!((told.verified, told.failures(), told.unresolved, told.marked()), (3, 3, 1, 1));
        assert_eq!((told.failed["signature"], told.failed["inversion"]), (2, 1));
        let last = told.last_failed.unwrap();
        assert_eq!((last.did.as_str(), last.reason.as_str()), ("did:plc:c", "signature"));
        let since = told.held_since.unwrap();
        found.held(true);
        assert_eq!(Verified::read(&found.text()).unwrap().held_since, Some(since), "it began when it began");
        found.held(false);
        assert_eq!(Verified::read(&found.text()).unwrap().held_since, None);
    }
}

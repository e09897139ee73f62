//! What is known of a DID, and what that is good for: no clock, no network.

use std::time::Duration;

use penstock_wire::Key;

use crate::document::Document;
use crate::error::ResolveError;

/// Failures beyond this many no longer lengthen the pause: 2^6.
const DOUBLINGS: u32 = 6;

/// How often in a row an account that says that it changed is asked for at once: moving to another host takes a few changes.
const BURST: u8 = 8;

/// How old its document may be after that: it says all the time that it changed, and nobody waits for it.
pub(crate) const SPACING: Duration = Duration::from_secs(1);

/// What is known of a DID, in memory or in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// As in the document.
    pub(crate) key: Option<Key>,
    /// As in the document.
    pub(crate) host: Option<Box<str>>,
    /// As in the document.
    pub(crate) handle: Option<Box<str>>,
    /// How long ago the document was asked for; none where there is none.
    pub(crate) fetched: Option<Duration>,
    /// Whether somebody said that it changed.
    pub(crate) stale: bool,
    /// How long ago somebody said so, where that is known.
    pub(crate) told: Option<Duration>,
    /// That asking was of no use.
    pub(crate) failure: Option<Failure>,
    /// Whether the handle led back to the DID.
    pub(crate) checked: Option<Checked>,
    /// How often the document was asked for in a row, none later than a retry after the one before.
    pub(crate) asks: u8,
}

/// That asking for a document was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) error: ResolveError,
    /// How often in a row.
    pub(crate) failures: u32,
    /// How long ago the last time.
    pub(crate) age: Duration,
}

/// What became of checking a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Whether it led back to the DID.
    pub(crate) valid: bool,
    /// How long ago.
    pub(crate) age: Duration,
}

/// How long things are good for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// A document, without a word of change.
    pub(crate) max_age: Duration,
    /// The pause after the first failure.
    pub(crate) retry_after: Duration,
}

/// What to do with what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Use it.
    Fresh,
    /// Use it, and ask again beside that.
    Old,
    /// Ask.
    Ask,
    /// It was asked for in vain, and it is too early to ask again.
    Wait(ResolveError),
}

/// How much later than word of a change something must have been asked for to be trusted: clocks of memory are that coarse.
const CLEAR: Duration = Duration::from_millis(150);

impl Record {
    /// Says whether this is newer than word of a change that made another record stale.
    pub(crate) fn is_after_change_of(&self, stale: &Self) -> bool {
        let told = stale.told.or(stale.fetched).unwrap_or_default();
        self.fetched.is_some_and(|fetched| fetched + CLEAR < told)
    }

    /// Makes one of a document that was just asked for.
    pub(crate) fn of_document(document: Document, age: Duration) -> Self {
        let Document { key, host, handle } = document;
        Self { key, host, handle, fetched: Some(age), ..Self::default() }
    }

    /// Makes one of a failure, the next after those before.
    pub(crate) fn of_failure(error: ResolveError, before: Option<&Failure>) -> Self {
        let failures = before.map_or(0, |failure| failure.failures).saturating_add(1);
        Self { failure: Some(Failure { error, failures, age: Duration::ZERO }), ..Self::default() }
    }
}

impl Policy {
    /// Says what to do with a record.
    pub(crate) fn judge(&self, record: &Record) -> Judgement {
        if let Some(failure) = &record.failure
            && failure.age < self.pause(failure.failures)
        {
            return Judgement::Wait(failure.error.clone());
        }
        match record.fetched {
            Some(_) if record.stale && !self.is_spent(record) => Judgement::Ask,
            Some(age) if age < self.max_age => Judgement::Fresh,
            Some(_) => Judgement::Old,
            None => Judgement::Ask,
        }
    }

    /// Returns whether a record is good enough although somebody said that it changed: it is very recent, and that is said too often.
    pub(crate) fn is_spent(&self, record: &Record) -> bool {
        let is_recent = record.fetched.is_some_and(|age| age < SPACING.min(self.retry_after));
        record.stale && is_recent && record.asks >= BURST
    }

    /// Returns the pause after so many failures in a row.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        self.retry_after.saturating_mul(1 << failures.saturating_sub(1).min(DOUBLINGS))
    }

    /// Returns whether a check of a handle still counts. One that led nowhere is repeated sooner: its owner may be at it.
    pub(crate) fn counts(&self, checked: Checked) -> bool {
        let good = if checked.valid { self.max_age } else { self.retry_after.saturating_mul(8).min(self.max_age) };
        checked.age < good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { max_age: Duration::from_secs(100), retry_after: Duration::from_secs(1) };

    fn known(age: u64, stale: bool) -> Record {
        Record { fetched: Some(Duration::from_secs(age)), stale, ..Record::default() }
    }

    #[test]
    fn what_is_only_old_is_used_and_what_is_stale_is_not() {
        for (record, judgement) in [
            (known(0, false), Judgement::Fresh),
            (known(99, false), Judgement::Fresh),
            (known(100, false), Judgement::Old),
            (known(9_999, false), Judgement::Old),
            (known(0, true), Judgement::Ask),
            (known(9_999, true), Judgement::Ask),
            (Record::default(), Judgement::Ask),
            (Record { asks: BURST - 1, ..known(0, true) }, Judgement::Ask),
            (Record { asks: BURST, ..known(0, true) }, Judgement::Fresh),
            (Record { asks: u8::MAX, ..known(1, true) }, Judgement::Ask),
        ] {
            assert_eq!(POLICY.judge(&record), judgement, "{record:?}");
        }
    }

    #[test]
    fn a_failure_is_repeated_after_a_pause_that_doubles_up_to_64_times() {
        let mut before = None;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let mut record = Record::of_failure(ResolveError::NotFound, before.as_ref());
            let failure = record.failure.as_mut().unwrap();
            let pause = (0..).find(|seconds| {
                failure.age = Duration::from_secs(*seconds);
                POLICY.judge(&Record { failure: Some(failure.clone()), ..Record::default() }) == Judgement::Ask
            });
            pauses.push(pause.unwrap());
            before = record.failure;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(POLICY.pause(u32::MAX), Duration::from_secs(64));
    }

    #[test]
    fn a_handle_that_leads_nowhere_is_checked_again_sooner() {
        let counts = |valid, age| POLICY.counts(Checked { valid, age: Duration::from_secs(age) });
        assert!(counts(true, 99) && !counts(true, 100));
        assert!(counts(false, 7) && !counts(false, 8));
    }
}

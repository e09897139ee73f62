//! The events of the filter: what it leaves out, and when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use penstock_core::causes::chain;
use penstock_core::filter::{Change, LeftOut, Rules};
use penstock_telemetry::metrics::{Counter, Metric, Metrics};
use tracing::{error, info};

/// How many reasons are told apart in a process, of all the rules it ever had; what comes later counts as `other`.
const REASONS: usize = 500;

/// Tells what becomes of the filter; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct FilterEvents {
    metrics: Metrics,
    since: Timestamp,
    /// What was left out since, for the dashboard.
    left_out: Arc<Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>>,
}

/// Counts the ops that are left out for one reason.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    counter: Counter,
    ops: Arc<AtomicU64>,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn add(&self, ops: u64) {
        self.counter.inc_by(ops);
        self.ops.fetch_add(ops, Ordering::Relaxed);
    }
}

// === impl FilterEvents ===

impl FilterEvents {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        // Created now, so that a scrape shows 0 before the first one.
        metrics.counter(Metric::FilterChanges, None);
        metrics.counter(Metric::FilterErrors, None);
        Self { metrics: metrics.clone(), since: Timestamp::now(), left_out: Arc::default() }
    }

    /// Returns the counter of the ops that are left out for a reason.
    pub(crate) fn left_out(&self, reason: &str) -> Tally {
        let reason = label(reason);
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let ops = Arc::clone(left_out.entry(reason).or_default());
        Tally { counter: self.metrics.counter(Metric::Filtered, reason), ops }
    }

    /// Returns what was left out since this process began, as it is written beside the status.
    pub(crate) fn text(&self) -> String {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let ops = left_out.iter().map(|(reason, ops)| ((*reason).to_owned(), ops.load(Ordering::Relaxed))).collect();
        serde_json::to_string(&LeftOut { since: self.since, ops }).unwrap_or_default()
    }

    /// These rules are in force, and nothing was chosen by others before.
    pub(crate) fn in_force(&self, rules: &Rules) {
        if !rules.is_everything() {
            let Sizes { collections, repos, excluded } = Sizes::of(rules);
            info!(epoch = rules.epoch().as_str(), collections, repos, excluded, "the filter is in force");
        }
    }

    /// Other rules are in force behind this cursor.
    /// Backfills of what is let in are registered, unless there is no database.
    pub(crate) fn changed(&self, change: &Change, rules: &Rules, cursor: Option<u64>, backfills: Option<&[String]>) {
        self.metrics.counter(Metric::FilterChanges, None).inc();
        let Sizes { collections, repos, excluded } = Sizes::of(rules);
        let epoch = rules.epoch().as_str();
        info!(
            cursor,
            epoch, collections, repos, excluded, "the filter has changed: it is in force for what follows the cursor"
        );
        if change.narrows() {
            let (collections, repos) = (names(&change.narrowed), change.fewer_repos);
            info!(
                collections,
                repos,
                "the filter leaves out what it carried before: what the database holds of it stays, and is not kept up to date; \
                 `penstock prune` removes it"
            );
        }
        if change.widens() {
            let (collections, repos) = (names(&change.widened), change.more_repos);
            if let Some(backfills) = backfills {
                let backfills = names(backfills);
                info!(
                    collections,
                    repos, backfills, "the filter carries what it left out before: healers fetch what came until now"
                );
            } else {
                info!(
                    collections,
                    repos,
                    "the filter carries what it left out before: what came until now is not in the database; \
                     `penstock backfill` fetches it"
                );
            }
        }
    }

    /// The rules cannot be read anew.
    pub(crate) fn unreadable(&self, error: &(dyn Error + 'static)) {
        self.metrics.counter(Metric::FilterErrors, None).inc();
        error!(error = chain(error), "could not read the filter, its previous rules stay in force");
    }

    /// They can be read again.
    pub(crate) fn readable(&self) {
        info!("the filter can be read again");
    }
}

/// What a filter consists of, for logs: its rules by collection, and how many repos it names.
struct Sizes {
    collections: Option<String>,
    repos: Option<usize>,
    excluded: Option<usize>,
}

// === impl Sizes ===

impl Sizes {
    fn of(rules: &Rules) -> Self {
        let summary = rules.summary();
        let excluded = (summary.exclude_repos > 0).then_some(summary.exclude_repos);
        Self { collections: names(&summary.collections), repos: summary.repos, excluded }
    }
}

fn names(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(","))
}

/// Returns the label of a reason: a text that lives as long as the process, of which there are not many.
fn label(name: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    // Those that are no rules are there however many rules there were.
    if let Some(fixed) = ["unlisted", "repos", "excludeRepos"].into_iter().find(|fixed| *fixed == name) {
        return fixed;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(label) = known.get(name) {
        return label;
    }
    if known.len() >= REASONS {
        return "other";
    }
    let label: &'static str = name.to_owned().leak();
    known.insert(label);
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        assert_eq!(label("!app.bsky.feed.like"), "!app.bsky.feed.like");
        let labels: BTreeSet<_> = (0..REASONS * 2).map(|nth| label(&format!("app.example.n{nth}"))).collect();
        assert!(labels.len() <= REASONS && labels.contains("other"));
        assert_eq!(label("!app.bsky.feed.like"), "!app.bsky.feed.like");
    }
}

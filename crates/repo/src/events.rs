//! What is counted of the requests for repos.

use penstock_telemetry::metrics::{Metric, Metrics};

/// Counts requests.
#[derive(Clone)]
pub(crate) struct Events {
    metrics: Metrics,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A whole repo.
    Repo,
    /// Its present rev.
    Latest,
    /// Its signed commit.
    Commit,
    /// One record.
    Record,
    /// A page of repos.
    List,
}

// === impl Events ===

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Takes the handles, so that what never happened shows as 0.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        for asked in [Asked::Repo, Asked::Latest, Asked::Commit, Asked::Record, Asked::List] {
            for result in ["ok", "unreachable"] {
                let _ = metrics.counter(Metric::RepoRequests, label(asked, result));
            }
        }
        Self { metrics: metrics.clone() }
    }

    /// Something was asked for, and this came of it.
    pub(crate) fn asked(&self, asked: Asked, result: &'static str) {
        self.metrics.counter(Metric::RepoRequests, label(asked, result)).inc();
    }
}

/// Labels are literals, so that their number is bounded. What is wrong with a repo in particular, is with the repair that it is of.
fn label(asked: Asked, result: &'static str) -> &'static str {
    macro_rules! labels {
        ($kind:literal) => {
            match result {
                "ok" => concat!($kind, ",ok"),
                "not_found" | "no_record" => concat!($kind, ",not_found"),
                "inactive" => concat!($kind, ",inactive"),
                "identity" | "no_host" | "no_key" => concat!($kind, ",identity"),
                "limited" => concat!($kind, ",limited"),
                "busy" => concat!($kind, ",busy"),
                "refused" | "unsupported" => concat!($kind, ",refused"),
                "cut" | "slow" | "changed" => concat!($kind, ",incomplete"),
                "too_large" => concat!($kind, ",too_large"),
                "spill" => concat!($kind, ",spill"),
                "car" | "hash" | "block_missing" | "tree" | "commit" | "signature" => concat!($kind, ",invalid"),
                _ => concat!($kind, ",unreachable"),
            }
        };
    }
    match asked {
        Asked::Repo => labels!("repo"),
        Asked::Latest => labels!("latest"),
        Asked::Commit => labels!("commit"),
        Asked::Record => labels!("record"),
        Asked::List => labels!("list"),
    }
}

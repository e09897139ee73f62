//! What a worker derives from records besides the rows of the records themselves.

use std::collections::BTreeSet;

use super::value::Value;

/// One table, or the cache, that a worker keeps up with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// `notifications`: one row for each cause.
    Notifications,
    /// `thread_contexts`: whether a thread's first author liked a reply.
    ThreadContexts,
    /// `post_viewer_states`: what each account did with a post.
    PostViewerStates,
    /// `label_events`: when a label came.
    LabelEvents,
    /// The AppView's cache in Redis, out of which goes what an event makes stale.
    Cache,
}

/// Which projections are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projections {
    /// Each whose table is there, and the cache.
    Auto,
    /// These and no others.
    Only(BTreeSet<Projection>),
}

// === impl Projection ===

impl Projection {
    /// Every projection.
    pub const ALL: [Self; 5] =
        [Self::Notifications, Self::ThreadContexts, Self::PostViewerStates, Self::LabelEvents, Self::Cache];

    /// Returns its name: that of its table, where it has one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::ThreadContexts => "thread_contexts",
            Self::PostViewerStates => "post_viewer_states",
            Self::LabelEvents => "label_events",
            Self::Cache => "cache",
        }
    }
}

// === impl Projections ===

impl Projections {
    /// Tells whether a projection was asked for by name.
    #[must_use]
    pub fn names(&self, projection: Projection) -> bool {
        matches!(self, Self::Only(named) if named.contains(&projection))
    }
}

impl Value for Projections {
    const ALLOWED: &'static str = "auto, none, or any of notifications, thread_contexts, post_viewer_states, label_events and cache, comma-separated";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "auto" => Some(Self::Auto),
            "none" => Some(Self::Only(BTreeSet::new())),
            list => {
                let named = list
                    .split(',')
                    .map(|name| Projection::ALL.into_iter().find(|projection| projection.name() == name.trim()));
                named.collect::<Option<_>>().map(Self::Only)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projections_are_named_one_by_one_or_left_to_the_database() {
        let only = |named: &[Projection]| Some(Projections::Only(named.iter().copied().collect()));
        assert_eq!(Projections::parse("auto"), Some(Projections::Auto));
        assert_eq!(Projections::parse("none"), only(&[]));
        assert_eq!(Projections::parse("cache, label_events"), only(&[Projection::Cache, Projection::LabelEvents]));
        for bad in ["", "feeds", "cache,", "auto,cache", "none,cache"] {
            assert_eq!(Projections::parse(bad), None, "{bad}");
        }
    }
}

//! Which records are carried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which records are carried, of those that the relay sends; identity and account events always are. A change takes effect within a
/// minute or two, without a restart: only when a filter is added or removed as a whole does ingest start anew.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Collections to carry: `app.bsky.feed.post`, `app.bsky.*` for all below, `!app.bsky.feed.like` to leave one out. The most specific
    /// one that fits decides, in whatever order they stand. Default: all.
    #[schemars(length(max = 200), inner(length(min = 1, max = 320)))]
    pub collections: Vec<String>,
    /// DIDs of the repos to carry. Default: all.
    #[schemars(length(max = 10_000), inner(length(min = 1, max = 256)))]
    pub repos: Vec<String>,
    /// DIDs of the repos to leave out. Default: none.
    #[schemars(length(max = 10_000), inner(length(min = 1, max = 256)))]
    pub exclude_repos: Vec<String>,
}

//! Which records ingest carries, and what it left out, as the API shows it.

use std::collections::BTreeMap;

use penstock_core::filter::{LeftOut, Summary};
use schemars::JsonSchema;
use serde::Serialize;

/// The part `filter` of `/api/ingest`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter<'r> {
    /// What tells these rules from others; empty where everything is carried.
    epoch: &'r str,
    /// The rules of `filter.collections`, as they are written.
    collections: &'r [String],
    /// How many repos `filter.repos` names; null: every repo is carried.
    repos: Option<usize>,
    /// How many repos `filter.excludeRepos` names.
    exclude_repos: usize,
    /// When the counts of `leftOut` began, with the process of ingest, RFC 3339; null if it does not count.
    since: Option<String>,
    /// Ops that were left out, by what left them out: a rule of `collections`, `unlisted` (none names their collection), `repos`,
    /// `excludeRepos`.
    left_out: BTreeMap<&'r str, u64>,
}

// === impl Filter ===

impl<'r> Filter<'r> {
    pub(crate) fn of(rules: &'r Summary, left_out: Option<&'r LeftOut>) -> Self {
        let ops = left_out.into_iter().flat_map(|left_out| &left_out.ops);
        Self {
            epoch: rules.epoch.as_str(),
            collections: &rules.collections,
            repos: rules.repos,
            exclude_repos: rules.exclude_repos,
            since: left_out.map(|left_out| left_out.since.to_string()),
            left_out: ops.map(|(reason, count)| (reason.as_str(), *count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str, json, to_value};

    use super::*;

    #[test]
    fn the_shape_is_pinned() {
        let rules = r#"{"epoch":"abc","collections":["app.bsky.*"],"repos":2,"excludeRepos":1,"named":["did:web:a","did:web:b"],"excluded":["did:web:c"]}"#;
        let left_out = r#"{"since":"2026-07-04T14:00:00Z","ops":{"repos":7,"unlisted":5}}"#;
        let (rules, left_out): (Summary, LeftOut) = (from_str(rules).unwrap(), from_str(left_out).unwrap());
        let expected = json!({
            "epoch": "abc", "collections": ["app.bsky.*"], "repos": 2, "excludeRepos": 1, "since": "2026-07-04T14:00:00Z",
            "leftOut": {"repos": 7, "unlisted": 5},
        });
        assert_eq!(to_value(Filter::of(&rules, Some(&left_out))).unwrap(), expected);
        let everything: Value = json!({
            "epoch": "", "collections": [], "repos": null, "excludeRepos": 0, "since": null, "leftOut": {},
        });
        assert_eq!(to_value(Filter::of(&Summary::default(), None)).unwrap(), everything);
    }
}

//! Repairs and backfills as services and commands exchange them: why a repo is read again, and what a backfill covers and how far it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::settings::RelayUrl;
use crate::settings::Value as _;

/// Why a repo is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Somebody asked for it.
    Asked,
    /// A `#sync` came: its host says that events do not lead from the last state to this one.
    Sync,
    /// A commit does not follow the one before: events were missed.
    Chain,
    /// A commit came without some of its records.
    BlockMissing,
    /// Data was lost.
    Seam,
    /// An audit found differences.
    Audit,
    /// A filter was widened.
    Filter,
    /// A backfill covers it.
    Backfill,
}

/// Which repos a backfill covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// These.
    Repos(Vec<String>),
    /// All that have records of a collection, as a relay lists them (`com.atproto.sync.listReposByCollection`).
    Collection(String),
    /// All that a relay lists (`com.atproto.sync.listRepos`); the value is `true`.
    All(bool),
}

/// What a backfill is to do: the body of `PUT /backfills/{name}`, such as
/// `{"scope":{"collection":"app.bsky.feed.post"},"rate":20}`. The same name again changes rate, parallelism, priority,
/// suspension and `verify`; another scope or relay is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackfillRequest {
    /// Which repos.
    pub scope: Scope,
    /// The relay that lists them. Default: the first of `relay.urls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Repos a second at most, of all healers together. Default: no limit but the hosts'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Repos at once at most, of all healers together. Default: no limit but `heal.parallelism` of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Place among backfills: the greatest comes first, and what is damaged comes before all that is below 10.
    #[serde(default)]
    pub priority: i16,
    /// Whether to begin no further repo for now.
    #[serde(default)]
    pub suspend: bool,
    /// Whether to write only what a signature proves: repos whose host offers no CAR are given up then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
}

/// What a backfill is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackfillState {
    /// Repos are being listed, and read meanwhile.
    Listing,
    /// All are listed, some are still to be read.
    Running,
    /// Suspended.
    Paused,
    /// Every repo was read or has failed.
    Complete,
    /// The relay refuses to list: `error` says why.
    Failed,
}

/// How far a backfill is: the answer of `GET /backfills/{name}`. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackfillStatus {
    /// Its name.
    pub name: String,
    /// Which repos.
    pub scope: Scope,
    /// Why: `backfill` where somebody asked for it, else the reason of its repairs, such as `filter`.
    #[serde(default)]
    pub reason: String,
    /// The relay that lists them.
    pub relay: Option<String>,
    /// Repos a second at most.
    pub rate: Option<f64>,
    /// Repos at once at most.
    pub parallelism: Option<u32>,
    /// Place among backfills.
    pub priority: i16,
    /// Whether only what a signature proves is written.
    #[serde(default)]
    pub verify: bool,
    /// What it is doing.
    pub state: BackfillState,
    /// How many repos were listed so far.
    pub listed: u64,
    /// How many there are; known once all are listed, or where the scope names them.
    pub total: Option<u64>,
    /// How many were read and written.
    pub done: u64,
    /// How many were given up.
    pub failed: u64,
    /// How many wait, those included that are being read.
    pub waiting: u64,
    /// How many are being read.
    pub running: u64,
    /// Records written.
    pub records: u64,
    /// Records a second, over the last minute.
    pub records_per_second: f64,
    /// Repos a second, over the last minute.
    pub repos_per_second: f64,
    /// When it will be complete at that pace; known once the total is.
    pub ends_at: Option<String>,
    /// When it was asked for.
    pub created_at: String,
    /// When it last got further.
    pub updated_at: String,
    /// When it was complete, or failed.
    pub finished_at: Option<String>,
    /// What keeps it from going on, or the last failure of a repo of it.
    pub error: Option<String>,
}

/// What waits to be repaired, backfills included: the answer of `GET /backlog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Repos that wait, those included that are not due yet; without those of suspended backfills, and without those being read.
    pub waiting: u64,
    /// Repos that may be read now.
    pub due: u64,
    /// Repos that are being read.
    pub running: u64,
    /// Backfills that are neither complete nor failed nor suspended.
    pub backfills: u64,
}

/// What is wrong with the request for a backfill.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {allowed}")]
pub struct RequestError {
    /// The field.
    pub field: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

/// The most repos that a scope may name one by one.
pub const MOST_NAMED: usize = 10_000;

/// The longest name of a backfill: as Kubernetes allows for namespace and name.
const LONGEST_NAME: usize = 317;

// === impl Reason ===

impl Reason {
    /// Lists all, the most urgent first.
    pub const ALL: [Self; 8] = [
        Self::Asked,
        Self::Sync,
        Self::Chain,
        Self::BlockMissing,
        Self::Seam,
        Self::Audit,
        Self::Filter,
        Self::Backfill,
    ];

    /// Returns the word in `penstock.repairs` and in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Sync => "sync",
            Self::Chain => "chain",
            Self::BlockMissing => "block missing",
            Self::Seam => "seam",
            Self::Audit => "audit",
            Self::Filter => "filter",
            Self::Backfill => "backfill",
        }
    }

    /// Returns the priority in `penstock.repairs`: the greatest comes first.
    #[must_use]
    pub const fn priority(self) -> i16 {
        match self {
            Self::Asked => 60,
            Self::Sync | Self::Chain => 50,
            Self::BlockMissing => 40,
            Self::Seam => 30,
            Self::Audit => 20,
            Self::Filter => 10,
            Self::Backfill => 0,
        }
    }

    /// Finds the one of a word; none for that of a newer version.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

// === impl BackfillState ===

impl BackfillState {
    /// Returns the word in `penstock.backfills`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }

    /// Returns whether it will never go on by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

// === impl BackfillRequest ===

impl BackfillRequest {
    /// Makes one with every default.
    #[must_use]
    pub const fn new(scope: Scope) -> Self {
        Self { scope, relay: None, rate: None, parallelism: None, priority: 0, suspend: false, verify: false }
    }

    /// Checks the fields, and leaves out repos that are named twice.
    ///
    /// # Errors
    /// Names the first field that is wrong and what is allowed there.
    pub fn checked(mut self) -> Result<Self, RequestError> {
        let wrong = |field, allowed| Err(RequestError { field, allowed });
        match &mut self.scope {
            Scope::Repos(repos) => {
                let mut seen = BTreeSet::new();
                repos.retain(|repo| seen.insert(repo.clone()));
                if repos.is_empty() || repos.len() > MOST_NAMED {
                    return wrong("scope.repos", "1 to 10,000 DIDs");
                }
                if !repos.iter().all(|repo| is_did(repo)) {
                    return wrong("scope.repos", "DIDs such as did:plc:ewvi7nxzyoun6zhxrhs64oiz");
                }
            }
            Scope::Collection(collection) if !is_nsid(collection) => {
                return wrong("scope.collection", "a collection's name, such as app.bsky.feed.post");
            }
            Scope::All(false) => return wrong("scope.all", "true, or another scope"),
            Scope::Collection(_) | Scope::All(true) => {}
        }
        if self.relay.as_deref().is_some_and(|relay| RelayUrl::parse(relay).is_none()) {
            return wrong("relay", RelayUrl::ALLOWED);
        }
        if self.rate.is_some_and(|rate| !(0.001..=1_000_000.0).contains(&rate)) {
            return wrong("rate", "repos a second, from 0.001 to 1000000");
        }
        if self.parallelism.is_some_and(|many| !(1..=10_000).contains(&many)) {
            return wrong("parallelism", "repos at once, from 1 to 10000");
        }
        if !(-100..=100).contains(&self.priority) {
            return wrong("priority", "from -100 to 100");
        }
        Ok(self)
    }
}

/// Returns whether a backfill may be called so: letters, digits, and `-_./` between them.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_end = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
    name.len() <= LONGEST_NAME
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && is_end(name.chars().next())
        && is_end(name.chars().next_back())
}

/// Returns whether a text has the form of an account's DID.
#[must_use]
pub fn is_did(text: &str) -> bool {
    let rest = text.strip_prefix("did:plc:").or_else(|| text.strip_prefix("did:web:"));
    text.len() <= 2048
        && rest.is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"._:%-".contains(&c))
        })
}

fn is_nsid(text: &str) -> bool {
    let mut parts = text.split('.');
    text.len() <= 317
        && text.split('.').count() >= 3
        && parts.all(|part| {
            !part.is_empty() && part.len() <= 63 && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<BackfillRequest, String> {
        let request: BackfillRequest = serde_json::from_str(json).map_err(|error| error.to_string())?;
        request.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn every_word_of_a_reason_leads_back_to_it_and_the_list_is_in_order() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of(reason.word()), Some(reason));
        }
        assert!(Reason::ALL.is_sorted_by_key(|reason| -reason.priority()));
        assert_eq!(Reason::of("newer"), None);
    }

    #[test]
    fn the_scopes_are_written_as_objects_with_one_key() {
        for (json, scope) in [
            (r#"{"repos":["did:plc:a"]}"#, Scope::Repos(vec!["did:plc:a".to_owned()])),
            (r#"{"collection":"app.bsky.feed.post"}"#, Scope::Collection("app.bsky.feed.post".to_owned())),
            (r#"{"all":true}"#, Scope::All(true)),
        ] {
            assert_eq!(serde_json::to_string(&scope).unwrap(), json);
            assert_eq!(request(&format!(r#"{{"scope":{json}}}"#)).unwrap(), BackfillRequest::new(scope));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let scope = r#""scope":{"all":true}"#;
        for (json, field) in [
            (r#"{"scope":{"repos":[]}}"#.to_owned(), "scope.repos"),
            (r#"{"scope":{"repos":["alice.test"]}}"#.to_owned(), "scope.repos"),
            (r#"{"scope":{"repos":["did:key:z"]}}"#.to_owned(), "scope.repos"),
            (r#"{"scope":{"collection":"posts"}}"#.to_owned(), "scope.collection"),
            (r#"{"scope":{"all":false}}"#.to_owned(), "scope.all"),
            (format!(r#"{{{scope},"rate":0}}"#), "rate"),
            (format!(r#"{{{scope},"rate":-1}}"#), "rate"),
            (format!(r#"{{{scope},"parallelism":0}}"#), "parallelism"),
            (format!(r#"{{{scope},"priority":101}}"#), "priority"),
            (format!(r#"{{{scope},"relay":"ftp://x"}}"#), "relay"),
            (format!(r#"{{{scope},"speed":1}}"#), "speed"),
        ] {
            let error = request(&json).unwrap_err();
            assert!(error.contains(field), "{json}: {error}");
        }
    }

    #[test]
    fn a_repo_that_is_named_twice_counts_once() {
        let twice = request(r#"{"scope":{"repos":["did:plc:b","did:plc:a","did:plc:b"]}}"#).unwrap();
        assert_eq!(twice.scope, Scope::Repos(vec!["did:plc:b".to_owned(), "did:plc:a".to_owned()]));
    }

    #[test]
    fn names_are_those_that_kubernetes_and_a_path_allow() {
        for name in ["a", "posts-2026", "bluesky/all", "A.b_c"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "/a", "a/", "a b", "ä", "a?b", &"x".repeat(318)] {
            assert!(!is_name(name), "{name}");
        }
    }
}

//! Which records a pipeline carries: by the collection, and by the repo they are in.
//!
//! [`Rules`] decide, [`Change`] says what becomes different; [`filter_files`](crate::filter_files) reads them.
//! Identity and account events always pass, whoever they are of.

mod change;
mod collections;
mod dids;
mod lines;

pub use change::Change;
pub use collections::{CollectionRule, Collections, RuleError};
pub use dids::{DidError, Dids};
pub use lines::entries;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a pipeline carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    collections: Collections,
    /// None: those of every repo.
    repos: Option<Dids>,
    excluded: Dids,
    epoch: Epoch,
}

/// What tells one set of rules from another: the same rules have the same one, wherever they are read. Empty where everything is carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(String);

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftOutBy {
    /// Its repo is not among `filter.repos`.
    Repos,
    /// Its repo is among `filter.excludeRepos`.
    ExcludedRepos,
    /// `filter.collections` names what is carried, and its collection is not among that.
    Unlisted,
    /// This rule of `filter.collections`, counted from 0, leaves its collection out.
    Rule(u16),
}

/// The rules as ingest keeps them beside its cursor, and as the dashboard shows them: with the repos counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// What tells these rules from others; empty where everything is carried.
    pub epoch: Epoch,
    /// The rules by collection, as they are written.
    pub collections: Vec<String>,
    /// How many repos are carried, where those are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repos: Option<usize>,
    /// How many repos are left out.
    pub exclude_repos: usize,
    /// The DIDs of those repos, where all together are few: with them it is known which of them a change lets in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// As above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
}

/// What the rules left out, by the reason that [`Rules::name`] gives, since a process began to count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// When the counts began.
    pub since: Timestamp,
    /// Ops, by reason.
    #[serde(default)]
    pub ops: BTreeMap<String, u64>,
}

/// How many DIDs a [`Summary`] names at most: it is read again and again.
const NAMED: usize = 500;

// === impl Rules ===

impl Rules {
    /// Combines the three lists.
    #[must_use]
    pub fn new(collections: Collections, repos: Option<Dids>, excluded: Dids) -> Self {
        let epoch = Epoch::of(&collections, repos.as_ref(), &excluded);
        Self { collections, repos, excluded, epoch }
    }

    /// Returns why the records of a repo are left out, if they are.
    #[must_use]
    pub fn repo(&self, did: &str) -> Option<LeftOutBy> {
        if self.excluded.contains(did) {
            return Some(LeftOutBy::ExcludedRepos);
        }
        let is_named = self.repos.as_ref().is_none_or(|repos| repos.contains(did));
        if is_named { None } else { Some(LeftOutBy::Repos) }
    }

    /// Returns why the records of a collection are left out, if they are.
    #[must_use]
    pub fn collection(&self, collection: &str) -> Option<LeftOutBy> {
        self.collections.left_out(collection)
    }

    /// Says whether a record is carried: the one at `path` (`collection/rkey`) of a repo.
    #[must_use]
    pub fn keeps(&self, did: &str, path: &str) -> bool {
        let collection = path.split_once('/').map_or(path, |(collection, _)| collection);
        self.collection(collection).is_none() && self.repo(did).is_none()
    }

    /// Says whether everything is carried.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.collections.is_everything() && self.repos.is_none() && self.excluded.is_empty()
    }

    /// Says whether some collections are left out of the repos that are carried.
    #[must_use]
    pub fn has_collections(&self) -> bool {
        !self.collections.is_everything()
    }

    /// Returns what tells these rules from others.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Returns the rules by collection.
    #[must_use]
    pub fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Returns the repos that are carried; none where none are named, and every one is.
    #[must_use]
    pub fn repos(&self) -> Option<&Dids> {
        self.repos.as_ref()
    }

    /// Returns the repos that are left out.
    #[must_use]
    pub fn excluded(&self) -> &Dids {
        &self.excluded
    }

    /// Names a reason for metrics and logs; a rule by what it says.
    #[must_use]
    pub fn name(&self, by: LeftOutBy) -> String {
        match by {
            LeftOutBy::Repos => "repos".to_owned(),
            LeftOutBy::ExcludedRepos => "excludeRepos".to_owned(),
            LeftOutBy::Unlisted => "unlisted".to_owned(),
            LeftOutBy::Rule(index) => self.collections.rule(index).map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// Sums the rules up.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let repos = self.repos.as_ref().map(Dids::len);
        let are_few = repos.unwrap_or_default() + self.excluded.len() <= NAMED;
        let names = |dids: Option<&Dids>| -> Vec<String> {
            dids.filter(|_| are_few).into_iter().flat_map(Dids::iter).map(Cow::into_owned).collect()
        };
        Summary {
            epoch: self.epoch.clone(),
            collections: self.collections.rules().iter().map(ToString::to_string).collect(),
            repos,
            exclude_repos: self.excluded.len(),
            named: names(self.repos.as_ref()),
            excluded: names(Some(&self.excluded)),
        }
    }
}

// === impl Summary ===

impl Summary {
    /// Returns the rules that it sums up, where it names their repos.
    #[must_use]
    pub fn rules(&self) -> Option<Rules> {
        let rules = self.collections.iter().map(|rule| CollectionRule::read(rule)).collect::<Result<_, _>>().ok()?;
        let dids = |names: &[String]| Dids::read(&names.join("\n")).ok();
        let repos = match self.repos {
            Some(_) => Some(dids(&self.named)?),
            None => None,
        };
        let rules = Rules::new(Collections::new(rules).ok()?, repos, dids(&self.excluded)?);
        (rules.epoch == self.epoch).then_some(rules)
    }
}

// === impl Epoch ===

impl Epoch {
    /// Returns its text; empty where everything is carried.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hashes the rules, each list sorted: in which order they are written changes nothing.
    fn of(collections: &Collections, repos: Option<&Dids>, excluded: &Dids) -> Self {
        if collections.is_everything() && repos.is_none() && excluded.is_empty() {
            return Self::default();
        }
        let mut hash = Fnv::default();
        let mut rules: Vec<_> = collections.rules().iter().map(ToString::to_string).collect();
        rules.sort_unstable();
        rules.iter().for_each(|rule| hash.write(rule));
        for (name, dids) in [("repos", repos), ("excludeRepos", Some(excluded))] {
            if let Some(dids) = dids {
                hash.write(name);
                dids.iter().for_each(|did| hash.write(&did));
            }
        }
        Self(format!("{:016x}", hash.0))
    }
}

/// FNV-1a: the same everywhere and in every version, unlike the standard library's.
struct Fnv(u64);

// === impl Fnv ===

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, text: &str) {
        for byte in text.bytes().chain([b'\n']) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(collections: &str, repos: Option<&str>, excluded: &str) -> Rules {
        Rules::new(
            Collections::read(collections).unwrap(),
            repos.map(|repos| Dids::read(repos).unwrap()),
            Dids::read(excluded).unwrap(),
        )
    }

    #[test]
    fn a_record_is_kept_where_its_repo_and_its_collection_are() {
        let all = rules("", None, "");
        assert!(all.is_everything() && all.keeps("did:web:a", "a.b.c/d") && all.epoch().as_str().is_empty());
        let some = rules("app.bsky.*,!app.bsky.feed.like", Some("did:web:a,did:web:b"), "did:web:b");
        let table = [
            ("did:web:a", "app.bsky.feed.post/1", true),
            ("did:web:a", "app.bsky.feed.like/1", false),
            ("did:web:a", "com.example.thing/1", false),
            ("did:web:b", "app.bsky.feed.post/1", false),
            ("did:web:c", "app.bsky.feed.post/1", false),
        ];
        for (did, path, kept) in table {
            assert_eq!(some.keeps(did, path), kept, "{did} {path}");
        }
        assert_eq!(some.repo("did:web:b"), Some(LeftOutBy::ExcludedRepos), "what is excluded is, named or not");
        assert_eq!(some.repo("did:web:c"), Some(LeftOutBy::Repos));
        let names = ["app.bsky.feed.like", "com.example.thing"].map(|name| some.name(some.collection(name).unwrap()));
        assert_eq!(names, ["!app.bsky.feed.like", "unlisted"]);
    }

    #[test]
    fn the_same_rules_have_one_epoch_whatever_their_order() {
        let one = rules("app.bsky.*,!app.bsky.feed.like", Some("did:web:a,did:web:b"), "did:web:c");
        let same = rules("!app.bsky.feed.like, app.bsky.*", Some("did:web:b\ndid:web:a"), "did:web:c");
        assert_eq!(one.epoch(), same.epoch());
        let others = [
            rules("app.bsky.*", Some("did:web:a,did:web:b"), "did:web:c"),
            rules("app.bsky.*,!app.bsky.feed.like", None, "did:web:c"),
            rules("app.bsky.*,!app.bsky.feed.like", Some("did:web:a,did:web:b,did:web:c"), ""),
        ];
        for other in others {
            assert_ne!(one.epoch(), other.epoch(), "{other:?}");
        }
    }

    #[test]
    fn a_summary_is_read_as_it_is_written() {
        let summary = rules("app.bsky.*", Some("did:web:a"), "").summary();
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        assert_eq!(serde_json::from_str::<Summary>("{}").unwrap(), Rules::default().summary());
    }

    #[test]
    fn a_summary_leads_back_to_its_rules_unless_they_name_many_repos() {
        let dids = |count: usize| (0..count).map(|n| format!("did:web:r{n}.test")).collect::<Vec<_>>().join(",");
        let (few, many) = (dids(NAMED), dids(NAMED + 1));
        for (collections, repos, excluded, is_known) in [
            ("", None, "", true),
            ("app.bsky.*,!app.bsky.feed.like", Some("did:web:a,did:plc:ewvi7nxzyoun6zhxrhs64oiz"), "did:web:b", true),
            ("", Some(few.as_str()), "", true),
            ("", Some(many.as_str()), "", false),
            ("", Some("did:web:a"), few.as_str(), false),
        ] {
            let rules = rules(collections, repos, excluded);
            let summary: Summary = serde_json::from_str(&serde_json::to_string(&rules.summary()).unwrap()).unwrap();
            assert_eq!(summary.rules(), is_known.then_some(rules));
        }
    }
}

//! What becomes different when rules change.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::collections::CollectionRule;
use super::{Collections, Dids, Rules, Summary};
use crate::backfill::{MOST_NAMED, Scope};

/// What a change of the rules lets in that was left out, and leaves out that was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Collections that are carried from now on, as patterns.
    pub widened: Vec<String>,
    /// Collections that are left out from now on, as patterns.
    pub narrowed: Vec<String>,
    /// Whether some repos are carried from now on, and whether some are left out; what is not known counts as both.
    pub more_repos: bool,
    /// See above.
    pub fewer_repos: bool,
    /// The repos that are carried from now on, where it is known which.
    pub let_in: Option<Vec<String>>,
}

/// How many collections are listed one by one at most: each listing may be as long as that of all repos.
const COLLECTIONS: usize = 20;

// === impl Change ===

impl Change {
    /// Compares rules with what was kept of those before; of many repos only how many there were is known.
    #[must_use]
    pub fn since(before: &Summary, after: &Rules) -> Self {
        if let Some(before) = before.rules() {
            return Self::between(&before, after);
        }
        let rules = before.collections.iter().filter_map(|rule| CollectionRule::read(rule).ok()).collect();
        let collections = Collections::new(rules).unwrap_or_default();
        let now = after.summary();
        let (widened, narrowed) = compare(&collections, after.collections());
        let is_same = before.epoch == now.epoch;
        // The repos may differ though there are as many.
        let is_untouched = is_same
            || before.repos.is_none() && now.repos.is_none() && before.exclude_repos == 0 && now.exclude_repos == 0;
        let (more_repos, fewer_repos) = if is_untouched {
            (false, false)
        } else if before.repos.is_none() && before.exclude_repos == 0 {
            (false, true)
        } else if now.repos.is_none() && now.exclude_repos == 0 {
            (true, false)
        } else {
            (true, true)
        };
        Self { widened, narrowed, more_repos, fewer_repos, let_in: (!more_repos).then(Vec::new) }
    }

    /// Compares two sets of rules.
    #[must_use]
    pub fn between(before: &Rules, after: &Rules) -> Self {
        let (widened, narrowed) = compare(before.collections(), after.collections());
        let let_in: Vec<String> = repos_let_in(before, after).map(Cow::into_owned).collect();
        let are_all_let_in = before.repos().is_some() && after.repos().is_none();
        Self {
            widened,
            narrowed,
            more_repos: are_all_let_in || !let_in.is_empty(),
            fewer_repos: repos_let_in(after, before).next().is_some()
                || before.repos().is_none() && after.repos().is_some(),
            let_in: (!are_all_let_in).then_some(let_in),
        }
    }

    /// Returns the narrowest scopes of backfills that cover what is let in by the rules that are in force now: collections and repos where
    /// those can be named, else everything.
    #[must_use]
    pub fn scopes(&self, after: &Rules) -> Vec<Scope> {
        let all = || vec![Scope::All(true)];
        let named = |dids: &mut dyn Iterator<Item = String>| -> Vec<Scope> {
            let dids: Vec<String> = dids.take(MOST_NAMED + 1).collect();
            match dids.len() {
                0 => Vec::new(),
                1..=MOST_NAMED => vec![Scope::Repos(dids)],
                _ => all(),
            }
        };
        let carried =
            |dids: &Dids| named(&mut dids.iter().filter(|did| !after.excluded().contains(did)).map(Cow::into_owned));
        let mut scopes = Vec::new();
        if !self.widened.is_empty() {
            // Of every repo that is carried, those that are let in included.
            if let Some(repos) = after.repos() {
                return carried(repos);
            }
            let is_one = |pattern: &String| !pattern.ends_with('*');
            if self.widened.len() > COLLECTIONS || !self.widened.iter().all(is_one) {
                return all();
            }
            scopes.extend(self.widened.iter().cloned().map(Scope::Collection));
        }
        if self.more_repos {
            let repos = match (&self.let_in, after.repos()) {
                (Some(let_in), _) => named(&mut let_in.iter().cloned()),
                (None, Some(repos)) => carried(repos),
                (None, None) => all(),
            };
            if repos == all() {
                return repos;
            }
            scopes.extend(repos);
        }
        scopes
    }

    /// Says whether something is carried that was left out.
    #[must_use]
    pub fn widens(&self) -> bool {
        !self.widened.is_empty() || self.more_repos
    }

    /// Says whether something is left out that was carried.
    #[must_use]
    pub fn narrows(&self) -> bool {
        !self.narrowed.is_empty() || self.fewer_repos
    }
}

/// Returns the repos that are named, carried after and not before.
pub(super) fn repos_let_in<'a>(before: &'a Rules, after: &'a Rules) -> impl Iterator<Item = Cow<'a, str>> {
    let none: &Dids = &NO_DIDS;
    let named = after.repos().unwrap_or(none).without(before.repos().unwrap_or(none));
    let excluded = before.excluded().without(after.excluded());
    let mut all: Vec<_> =
        named.chain(excluded).filter(|did| before.repo(did).is_some() && after.repo(did).is_none()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

static NO_DIDS: std::sync::LazyLock<Dids> = std::sync::LazyLock::new(Dids::default);

/// Returns which collections are let in and which are left out, as the patterns that say so.
fn compare(before: &Collections, after: &Collections) -> (Vec<String>, Vec<String>) {
    // Each pattern, less the more specific ones, is judged as one by both sides; so is what no pattern fits.
    let everything = CollectionRule::read("*").ok();
    let patterns: BTreeMap<String, String> = before
        .rules()
        .iter()
        .chain(after.rules())
        .chain(&everything)
        .map(|rule| (rule.pattern(), rule.example()))
        .collect();
    let (mut widened, mut narrowed) = (Vec::new(), Vec::new());
    for (pattern, example) in patterns {
        match (before.left_out(&example).is_some(), after.left_out(&example).is_some()) {
            (true, false) => widened.push(pattern),
            (false, true) => narrowed.push(pattern),
            _ => {}
        }
    }
    (widened, narrowed)
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
    fn a_change_of_collections_names_what_comes_and_what_goes() {
        let table: &[(&str, &str, &[&str], &[&str])] = &[
            ("", "", &[], &[]),
            ("", "*", &[], &[]),
            ("", "app.bsky.*", &[], &["*"]),
            ("app.bsky.*", "", &["*"], &[]),
            ("app.bsky.*", "app.bsky.*,!app.bsky.feed.like", &[], &["app.bsky.feed.like"]),
            ("app.bsky.*,!app.bsky.feed.like", "app.bsky.*", &["app.bsky.feed.like"], &[]),
            ("a.b.c", "a.b.d", &["a.b.d"], &["a.b.c"]),
            ("a.b.*", "a.b.c", &[], &["a.b.*"]),
            ("!a.b.c", "!a.b.d", &["a.b.c"], &["a.b.d"]),
        ];
        for (before, after, widened, narrowed) in table {
            let (before, after) = (rules(before, None, ""), rules(after, None, ""));
            let change = Change::between(&before, &after);
            assert_eq!(
                (&*change.widened, &*change.narrowed),
                (
                    &*widened.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
                    &*narrowed.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
                )
            );
            assert_eq!(Change::since(&before.summary(), &after), change);
        }
    }

    #[test]
    fn a_change_of_repos_names_those_that_come() {
        let let_in =
            |before: &Rules, after: &Rules| repos_let_in(before, after).map(Cow::into_owned).collect::<Vec<_>>();
        let (a, ab, none) =
            (rules("", Some("did:web:a"), ""), rules("", Some("did:web:a,did:web:b"), ""), rules("", None, ""));
        let without_b = rules("", None, "did:web:b");
        assert_eq!(let_in(&a, &ab), ["did:web:b"]);
        assert_eq!(let_in(&ab, &a), [""; 0]);
        assert_eq!(let_in(&without_b, &none), ["did:web:b"]);
        assert_eq!(let_in(&none, &a), [""; 0]);
        assert_eq!(let_in(&rules("", Some("did:web:a"), "did:web:b"), &rules("", Some("did:web:a"), "")), [""; 0]);
        let change = |before: &Rules, after: &Rules| {
            let change = Change::between(before, after);
            (change.more_repos, change.fewer_repos)
        };
        assert_eq!(change(&a, &ab), (true, false));
        assert_eq!(change(&ab, &a), (false, true));
        assert_eq!(change(&a, &none), (true, false));
        assert_eq!(change(&none, &a), (false, true));
        assert_eq!(change(&a, &without_b), (true, false), "whoever else there is comes, and b was not carried before");
        assert_eq!(change(&none, &none), (false, false));
    }

    #[test]
    fn what_is_to_be_read_again_is_no_more_than_what_is_let_in() {
        let repos = |dids: &[&str]| Scope::Repos(dids.iter().map(|did| (*did).to_owned()).collect());
        let collection = |name: &str| Scope::Collection(name.to_owned());
        let ab = Some("did:web:a,did:web:b");
        type Written<'a> = (&'a str, Option<&'a str>, &'a str);
        let table: &[(Written<'_>, Written<'_>, Vec<Scope>)] = &[
            (("", None, ""), ("", None, ""), vec![]),
            (("", None, ""), ("a.b.c", None, ""), vec![]),
            (("a.b.c", None, ""), ("a.b.c,a.b.d,a.b.e", None, ""), vec![collection("a.b.d"), collection("a.b.e")]),
            (("!a.b.c", None, ""), ("", None, ""), vec![collection("a.b.c")]),
            (("a.b.c", None, ""), ("a.*", None, ""), vec![Scope::All(true)]),
            (("a.b.c", None, ""), ("", None, ""), vec![Scope::All(true)]),
            // Of repos that are named, no list of a relay is needed.
            (("a.b.c", ab, ""), ("", ab, "did:web:b"), vec![repos(&["did:web:a"])]),
            (("", Some("did:web:a"), ""), ("", ab, ""), vec![repos(&["did:web:b"])]),
            (("", None, "did:web:a,did:web:b"), ("", None, "did:web:b"), vec![repos(&["did:web:a"])]),
            (("", ab, ""), ("", None, ""), vec![Scope::All(true)]),
            (("!a.b.c", None, "did:web:a"), ("", None, ""), vec![collection("a.b.c"), repos(&["did:web:a"])]),
            (("!a.b.c", ab, ""), ("", None, ""), vec![Scope::All(true)]),
        ];
        for (before, after, scopes) in table {
            let [before, after] =
                [before, after].map(|(collections, repos, excluded)| rules(collections, *repos, excluded));
            assert_eq!(Change::between(&before, &after).scopes(&after), *scopes, "{before:?} {after:?}");
            assert_eq!(Change::since(&before.summary(), &after).scopes(&after), *scopes, "after a restart");
        }
    }

    #[test]
    fn of_many_repos_it_is_not_known_which_were_let_in() {
        let dids = |count: usize| (0..count).map(|n| format!("did:web:r{n}.test")).collect::<Vec<_>>().join(",");
        let (before, after) = (rules("", Some(&dids(600)), ""), rules("", Some(&dids(601)), ""));
        let new = vec![Scope::Repos(vec!["did:web:r600.test".to_owned()])];
        assert_eq!(Change::between(&before, &after).scopes(&after), new);
        let Change { let_in, .. } = Change::since(&before.summary(), &after);
        assert_eq!(let_in, None);
        let scopes = Change::since(&before.summary(), &after).scopes(&after);
        assert!(matches!(&scopes[..], [Scope::Repos(dids)] if dids.len() == 601), "all that are named, and no others");
        let many = rules("", Some(&dids(MOST_NAMED + 1)), "");
        assert_eq!(Change::between(&before, &many).scopes(&many).len(), 1);
        assert_eq!(Change::since(&before.summary(), &many).scopes(&many), [Scope::All(true)]);
    }
}

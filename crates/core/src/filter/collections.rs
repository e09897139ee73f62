//! Rules by collection: `app.bsky.feed.post`, `app.bsky.*`, `!app.bsky.feed.like`.
//!
//! The most specific rule that fits decides, in whatever order they stand: the collection itself before `app.bsky.feed.*` before
//! `app.bsky.*` before `*`. A list that is written from the general to the particular, as in a `.gitignore`, so means the same as
//! there. Where none fits, a collection is carried unless the list names one that is: `!app.bsky.feed.like` alone leaves out likes
//! and nothing else, `app.bsky.feed.post` alone carries posts and nothing else.

use std::collections::HashMap;
use std::fmt;

use thiserror::Error;

use super::LeftOutBy;

/// How many rules there may be: each is a label of a metric.
const MOST: usize = 200;

/// The longest NSID, in bytes.
const LONGEST: usize = 317;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CollectionRule {
    is_kept: bool,
    /// The collection, `app.bsky.` with the dot for what is below, or empty for every collection.
    key: Box<str>,
}

/// Rules by collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collections {
    rules: Vec<CollectionRule>,
    /// By [`CollectionRule::key`]: whether it is kept, and which rule says so.
    by_key: HashMap<Box<str>, (bool, u16)>,
    /// Whether some rule names what is carried, so that nothing else is.
    is_list: bool,
}

/// Why rules are refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// A rule is none.
    #[error("rule {rule:?}: {why}")]
    Rule {
        /// The rule, shortened.
        rule: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two rules contradict each other.
    #[error("rules {pattern:?} and \"!{pattern}\" contradict each other: remove one of them")]
    Both {
        /// What both are of.
        pattern: String,
    },
    /// There are too many.
    #[error("{count} rules are too many: at most {MOST}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

// === impl CollectionRule ===

impl CollectionRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, RuleError> {
        let (is_kept, pattern) = match text.strip_prefix('!') {
            Some(rest) => (false, rest.trim_start()),
            None => (true, text),
        };
        let wrong = |why| RuleError::Rule { rule: text.chars().take(100).collect(), why };
        let key = match pattern.strip_suffix('*') {
            Some("") => "",
            Some(under) if under.ends_with('.') => under,
            Some(_) => return Err(wrong("* stands for whole names after a dot, as in app.bsky.*")),
            None => pattern,
        };
        if key.contains('*') {
            return Err(wrong("* may stand at the end only, as in app.bsky.*"));
        }
        if key.contains('/') {
            return Err(wrong("a rule is of a collection, without a record's key"));
        }
        if key.starts_with("did:") {
            return Err(wrong("a repo belongs to filter.repos or filter.excludeRepos"));
        }
        let names: Vec<_> = key.strip_suffix('.').unwrap_or(key).split('.').collect();
        let is_everything = key.is_empty() && pattern == "*";
        if key.len() > LONGEST || !(is_everything || names.iter().all(|name| is_name(name))) {
            return Err(wrong(
                "no name of a collection; it looks like app.bsky.feed.post, or app.bsky.* for all below",
            ));
        }
        if !key.is_empty() && !key.ends_with('.') && names.len() < 3 {
            return Err(wrong(
                "a collection has three names at least, as app.bsky.feed.post; for all below write app.bsky.*",
            ));
        }
        Ok(Self { is_kept, key: key.into() })
    }

    /// Says whether it carries what it fits, or leaves it out.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Returns the collection it names; none where it is of several.
    #[must_use]
    pub fn collection(&self) -> Option<&str> {
        (!self.key.is_empty() && !self.key.ends_with('.')).then_some(&*self.key)
    }

    /// Returns what it is of, as it is written: `app.bsky.feed.post`, `app.bsky.*` or `*`.
    pub(super) fn pattern(&self) -> String {
        if self.collection().is_some() { self.key.to_string() } else { format!("{}*", self.key) }
    }

    /// Returns a collection that it fits, and no more specific rule: one whose last name nobody uses.
    pub(super) fn example(&self) -> String {
        self.collection().map_or_else(|| format!("{}\u{0}", self.key), str::to_owned)
    }
}

impl fmt::Display for CollectionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_kept { "" } else { "!" }, self.pattern())
    }
}

// === impl Collections ===

impl Collections {
    /// Checks rules, and combines them.
    ///
    /// # Errors
    /// Two of them contradict each other, or there are too many.
    pub fn new(rules: Vec<CollectionRule>) -> Result<Self, RuleError> {
        if rules.len() > MOST {
            return Err(RuleError::TooMany { count: rules.len() });
        }
        let mut by_key = HashMap::with_capacity(rules.len());
        for (index, rule) in (0_u16..).zip(&rules) {
            if let Some((is_kept, _)) = by_key.insert(rule.key.clone(), (rule.is_kept, index))
                && is_kept != rule.is_kept
            {
                return Err(RuleError::Both { pattern: rule.pattern() });
            }
        }
        let is_list = rules.iter().any(CollectionRule::is_kept);
        Ok(Self { rules, by_key, is_list })
    }

    /// Reads rules: separated by commas or lines, with comments behind `#`.
    ///
    /// # Errors
    /// Names the rule that is wrong.
    pub fn read(text: &str) -> Result<Self, RuleError> {
        Self::new(super::lines::entries(text).map(|(_, entry)| CollectionRule::read(entry)).collect::<Result<_, _>>()?)
    }

    /// Returns the rules as they are written.
    #[must_use]
    pub fn rules(&self) -> &[CollectionRule] {
        &self.rules
    }

    /// Returns one of them.
    #[must_use]
    pub fn rule(&self, index: u16) -> Option<&CollectionRule> {
        self.rules.get(usize::from(index))
    }

    /// Says whether every collection is carried.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.rules.iter().all(CollectionRule::is_kept) && (!self.is_list || self.by_key.contains_key(""))
    }

    /// Returns why a collection is left out, if it is.
    #[must_use]
    pub fn left_out(&self, collection: &str) -> Option<LeftOutBy> {
        if self.rules.is_empty() {
            return None;
        }
        let mut key = collection;
        loop {
            if let Some((is_kept, index)) = self.by_key.get(key) {
                return if *is_kept { None } else { Some(LeftOutBy::Rule(*index)) };
            }
            if key.is_empty() {
                return if self.is_list { Some(LeftOutBy::Unlisted) } else { None };
            }
            let above = key.strip_suffix('.').unwrap_or(key);
            key = above.rfind('.').and_then(|dot| above.get(..=dot)).unwrap_or_default();
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_decides_in_whatever_order() {
        let table: &[(&[&str], &[&str], &[&str])] = &[
            (&[], &["a.b.c", "app.bsky.feed.post"], &[]),
            (&["*"], &["a.b.c"], &[]),
            (
                &["app.bsky.feed.post"],
                &["app.bsky.feed.post"],
                &["app.bsky.feed.posts", "app.bsky.feed.post.x", "a.b.c"],
            ),
            (
                &["app.bsky.*"],
                &["app.bsky.feed.post", "app.bsky.x"],
                &["app.bskyx.feed", "app.other.feed.post", "a.b.c"],
            ),
            (&["!app.bsky.feed.like"], &["app.bsky.feed.post", "a.b.c"], &["app.bsky.feed.like"]),
            (
                &["app.bsky.*", "!app.bsky.feed.*", "app.bsky.feed.post"],
                &["app.bsky.graph.follow", "app.bsky.feed.post"],
                &["app.bsky.feed.like", "a.b.c"],
            ),
            (&["*", "!app.bsky.*", "app.bsky.feed.post"], &["a.b.c", "app.bsky.feed.post"], &["app.bsky.feed.like"]),
            (&["!*", "app.bsky.feed.post"], &["app.bsky.feed.post"], &["a.b.c"]),
        ];
        for (rules, kept, left_out) in table {
            let mut rules: Vec<_> = rules.to_vec();
            for _ in 0..rules.len().max(1) {
                let read = Collections::read(&rules.join(",")).unwrap();
                kept.iter().for_each(|name| assert_eq!(read.left_out(name), None, "{rules:?} {name}"));
                left_out.iter().for_each(|name| assert!(read.left_out(name).is_some(), "{rules:?} {name}"));
                assert_eq!(read.is_everything(), left_out.is_empty(), "{rules:?}");
                if !rules.is_empty() {
                    rules.rotate_left(1);
                }
            }
        }
    }

    /// A .gitignore, from the general to the particular: the last rule that fits decides.
    #[test]
    fn a_list_from_the_general_to_the_particular_means_what_it_means_in_a_gitignore() {
        let last = |rules: &[CollectionRule], name: &str| {
            let fits = |rule: &&CollectionRule| match rule.collection() {
                Some(collection) => collection == name,
                None => name.starts_with(&*rule.key),
            };
            let start = !rules.iter().any(CollectionRule::is_kept);
            rules.iter().rev().find(fits).map_or(start, CollectionRule::is_kept)
        };
        let patterns = ["*", "a.*", "a.b.*", "a.b.c.*", "a.b.c", "a.b.c.d"];
        let names = ["a.b.c", "a.b.c.d", "a.b.c.e", "a.b.x", "a.x.y", "x.y.z"];
        for choice in 0..3_usize.pow(6) {
            let signs = (0..6).map(|place| choice / 3_usize.pow(place) % 3);
            let rules: Vec<_> = signs
                .zip(patterns)
                .filter(|(sign, _)| *sign > 0)
                .map(|(sign, pattern)| format!("{}{pattern}", if sign == 1 { "" } else { "!" }))
                .collect();
            let read = Collections::read(&rules.join("\n")).unwrap();
            for name in names {
                assert_eq!(read.left_out(name).is_none(), last(read.rules(), name), "{rules:?} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        for bad in [
            "app.bsky.feed*",
            "*.post",
            "app.*.post",
            "app",
            "app.bsky",
            "!",
            "app..bsky.feed",
            "app.bsky.feed.post/3k",
            "did:plc:abc",
            "app.bsky.féed.post",
            "!!a.b.c",
            ".*",
            "a b.c.d",
        ] {
            let error = Collections::read(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        let both = Collections::read("a.b.*, !a.b.*").unwrap_err().to_string();
        assert_eq!(both, "rules \"a.b.*\" and \"!a.b.*\" contradict each other: remove one of them");
        assert!(Collections::read("a.b.*, a.b.*").is_ok(), "said twice");
        let many = (0..201).map(|nth| format!("a.b.c{nth}")).collect::<Vec<_>>().join(",");
        assert_eq!(Collections::read(&many), Err(RuleError::TooMany { count: 201 }));
    }

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        for rule in ["*", "!*", "app.*", "!app.bsky.*", "app.bsky.feed.post", "!app.bsky.feed.post"] {
            assert_eq!(CollectionRule::read(rule).unwrap().to_string(), rule);
        }
    }
}

//! Which events are wanted.

use penstock_core::wildcard;
use url::form_urlencoded;

use crate::ConsoleError;
use crate::api::Event;

/// The most values of one parameter that a dashboard takes.
const MOST_VALUES: usize = 20;

/// The longest value that a dashboard takes, in bytes.
const LONGEST_VALUE: usize = 256;

/// A text with `*` for any number of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) String);

/// Which events are wanted: of any of these collections, and of any of these accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    collections: Vec<Pattern>,
    dids: Vec<Pattern>,
}

/// Returns the query for the live stream that wants events of which each word is held.
pub(crate) fn query_of_words(words: &str) -> String {
    query(&words.split_whitespace().map(|word| ("text", word.to_owned())).collect::<Vec<_>>())
}

/// Writes a query; none where a dashboard would not take it, as it has bounds.
fn query(parameters: &[(&str, String)]) -> String {
    let count = |name: &str| parameters.iter().filter(|(other, _)| *other == name).count();
    if parameters.iter().any(|(name, value)| count(name) > MOST_VALUES || value.len() > LONGEST_VALUE) {
        return String::new();
    }
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

// === impl Filter ===

impl Filter {
    /// Reads patterns; none of a kind lets everything through.
    ///
    /// A collection without `*` stands for itself and for what is below it: `app.bsky.feed` for `app.bsky.feed.post` too.
    ///
    /// # Errors
    /// [`ConsoleError::Filter`] for what no collection and no DID looks like.
    pub fn new(collections: &[String], dids: &[String]) -> Result<Self, ConsoleError> {
        for given in collections {
            if !given.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'*')) || given.is_empty()
            {
                let how = "give a collection such as app.bsky.feed.post, or app.bsky.feed.*";
                return Err(ConsoleError::Filter { flag: "collection", given: given.clone(), how });
            }
        }
        for given in dids {
            let fits = given.starts_with("did:") || given.starts_with('*');
            if !fits || given.contains(char::is_whitespace) {
                let how = "give a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz, or did:web:*; a handle is none";
                return Err(ConsoleError::Filter { flag: "did", given: given.clone(), how });
            }
        }
        let patterns = |given: &[String]| given.iter().cloned().map(Pattern).collect();
        Ok(Self { collections: patterns(collections), dids: patterns(dids) })
    }

    /// Returns what a dashboard is asked for, so that it sends nothing else: a query of the live stream.
    ///
    /// Dashboards that know no filters send everything: what comes is asked again.
    pub(crate) fn query(&self) -> String {
        let of = |name: &'static str, patterns: &[Pattern]| -> Vec<(&str, String)> {
            patterns.iter().map(|pattern| (name, pattern.0.clone())).collect()
        };
        query(&[of("collection", &self.collections), of("did", &self.dids)].concat())
    }

    /// Says whether an event is wanted.
    #[must_use]
    pub fn lets_through(&self, event: &Event) -> bool {
        let any =
            |patterns: &[Pattern], fits: &dyn Fn(&Pattern) -> bool| patterns.is_empty() || patterns.iter().any(fits);
        any(&self.collections, &|pattern| pattern.fits_name(&event.lexicon))
            && any(&self.dids, &|pattern| pattern.fits(&event.did))
    }
}

// === impl Pattern ===

impl Pattern {
    /// Says whether a name is this one, or below it.
    fn fits_name(&self, name: &str) -> bool {
        wildcard::fits_name(&self.0, name)
    }

    pub(crate) fn fits(&self, text: &str) -> bool {
        wildcard::fits(&self.0, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_through(collections: &[&str], dids: &[&str], lexicon: &str, did: &str) -> bool {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let event = Event { lexicon: lexicon.into(), did: did.into(), ..Event::default() };
        Filter::new(&owned(collections), &owned(dids)).unwrap().lets_through(&event)
    }

    #[test]
    fn collections_are_named_whole_by_parent_or_with_stars() {
        let post = "app.bsky.feed.post";
        let cases: [(&[&str], &str, bool); 13] = [
            (&[], post, true),
            (&["app.bsky.feed.post"], post, true),
            (&["app.bsky.feed"], post, true),
            (&["app.bsky.feed.*"], post, true),
            (&["*.post"], post, true),
            (&["app.*.post"], post, true),
            (&["*"], post, true),
            (&["app.bsky.feed.post"], "app.bsky.feed.postgate", false),
            (&["app.bsky.feed.p"], post, false),
            (&["app.bsky.graph.*"], post, false),
            (&["app.bsky.graph.*", "*feed*"], post, true),
            (&["*.post.*"], post, false),
            (&["app.bsky.feed.post*post"], post, false),
        ];
        for (patterns, lexicon, expected) in cases {
            assert_eq!(lets_through(patterns, &[], lexicon, "did:plc:a"), expected, "{patterns:?} {lexicon}");
        }
    }

    #[test]
    fn both_kinds_must_fit_and_a_did_is_whole_without_a_star() {
        let of = |dids: &[&str], did| lets_through(&["app.bsky.feed.*"], dids, "app.bsky.feed.like", did);
        assert!(
            of(&["did:plc:aa"], "did:plc:aa")
                && of(&["did:plc:a*"], "did:plc:aa")
                && of(&["did:web:*", "*aa"], "did:plc:aa")
        );
        assert!(!of(&["did:plc:a"], "did:plc:aa") && !of(&["did:web:*"], "did:plc:aa"));
        assert!(!lets_through(&["a.b"], &["did:plc:aa"], "app.bsky.feed.like", "did:plc:aa"));
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        for (collection, did) in
            [("app bsky", ""), ("", ""), ("app/bsky", ""), ("ok.ok", "alice.test"), ("ok.ok", "did:a b")]
        {
            let refused = Filter::new(&[collection.to_owned()], &[did.to_owned()]).unwrap_err();
            assert!(refused.is_usage() && refused.to_string().contains(" such as "), "{refused}");
        }
    }

    #[test]
    fn a_dashboard_is_asked_for_no_more_than_it_takes() {
        let query = |collections: &[String], dids: &[String]| Filter::new(collections, dids).unwrap().query();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(query(&[], &[]), "");
        assert_eq!(
            query(&owned(&["app.bsky.feed.*", "a.b"]), &owned(&["did:web:*"])),
            "collection=app.bsky.feed.*&collection=a.b&did=did%3Aweb%3A*"
        );
        assert_eq!(query(&vec!["a.b".to_owned(); 21], &[]), "");
        assert_eq!(query(&["a".repeat(257)], &[]), "");
        assert_eq!(query_of_words("  like  a&b "), "text=like&text=a%26b");
        assert_eq!(query_of_words(" "), "");
    }
}

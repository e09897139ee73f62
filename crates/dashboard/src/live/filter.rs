//! Which events a client wants: read once when it comes, asked of every event from then on.

use std::borrow::Cow;

use penstock_core::wildcard;
use serde::Deserialize;
use thiserror::Error;

/// The most values that one part of a filter has.
const MOST_VALUES: usize = 20;

/// The longest value, in bytes.
const LONGEST_VALUE: usize = 256;

/// The most of the newest matches that a client may ask for.
pub(crate) const MOST_RECENT: u16 = 200;

const TYPES: [&str; 3] = ["commit", "identity", "account"];

/// What may have happened; `handle` is an identity that tells a handle.
const ACTIONS: [&str; 6] = ["create", "update", "delete", "handle", "active", "inactive"];

/// The beginning of an action that tells a handle.
const HANDLE: &str = "→";

/// Which events a client wants: of each part that has values one must fit, of the texts each.
///
/// Letters of ASCII are compared without their case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// A bit for each of [`TYPES`]; none: all of them.
    types: u8,
    /// A bit for each of [`ACTIONS`]; none: all of them.
    actions: u8,
    /// Names of collections, or patterns.
    collections: Vec<String>,
    /// DIDs, or patterns.
    dids: Vec<String>,
    /// Patterns that each must fit the whole of an event's words.
    texts: Vec<String>,
}

/// What a client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) filter: Filter,
    /// How many of the newest matches it gets at first.
    pub(crate) recent: u16,
}

/// Why a filter is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum FilterError {
    #[error("{name} must be one of {}; it may be given more than once", known.join(", "))]
    Unknown { name: &'static str, known: &'static [&'static str] },
    #[error("{0} may be given at most {MOST_VALUES} times")]
    TooMany(&'static str),
    #[error("{0} must be at most {LONGEST_VALUE} bytes of text without control characters")]
    NoText(&'static str),
    #[error("recent must be an integer from 0 to {MOST_RECENT}: how many of the newest matching events to send first")]
    NoRecent,
}

/// What filters ask of the events of one sending: one text holds the words of all, each followed by a line break.
#[derive(Debug, Default)]
pub(super) struct Traits {
    words: String,
    events: Vec<Trait>,
    /// Where the names of collections stand, each different one once: so a filter asks for each once, not for every event.
    names: Vec<(u32, u32)>,
}

/// A filter that looks at the events of one sending.
#[derive(Debug)]
pub(super) struct Look<'t> {
    filter: &'t Filter,
    traits: &'t Traits,
    /// A bit for each of the names that it lets through.
    names: u64,
}

/// What one event is, and where its words stand.
#[derive(Clone, Copy, Debug)]
struct Trait {
    types: u8,
    actions: u8,
    /// Which of the names its collection has; none of them where there are too many.
    name: Option<u8>,
    /// Where its words begin.
    begin: u32,
    /// Where the name of its collection ends.
    collection: u32,
    /// Where its DID ends.
    did: u32,
    end: u32,
}

/// The fields of an event that filters know; whatever else it is, those that it lacks are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Words<'e> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'e, str>,
    #[serde(borrow)]
    lexicon: Cow<'e, str>,
    #[serde(borrow)]
    did: Cow<'e, str>,
    #[serde(borrow)]
    action: Cow<'e, str>,
    #[serde(borrow)]
    rkey: Cow<'e, str>,
}

// === impl Wish ===

impl Wish {
    /// Reads the parameters of a query; those of other names are not looked at, and empty ones say nothing.
    pub(crate) fn read<'q>(query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Result<Self, FilterError> {
        let mut wish = Self::default();
        let Filter { types, actions, collections, dids, texts } = &mut wish.filter;
        for (name, value) in query {
            let value = value.trim();
            match name {
                _ if value.is_empty() => {}
                "type" => *types |= one_of("type", &TYPES, value.trim_start_matches('#'))?,
                "action" => *actions |= one_of("action", &ACTIONS, value)?,
                "collection" => add("collection", collections, value.to_owned())?,
                "did" => add("did", dids, value.to_owned())?,
                "text" => add("text", texts, format!("*{value}*"))?,
                "recent" => {
                    let most = |recent: &u16| *recent <= MOST_RECENT;
                    wish.recent = value.parse().ok().filter(most).ok_or(FilterError::NoRecent)?;
                }
                _ => {}
            }
        }
        Ok(wish)
    }
}

fn one_of(name: &'static str, known: &'static [&'static str], value: &str) -> Result<u8, FilterError> {
    let place = known.iter().position(|known| known.eq_ignore_ascii_case(value));
    place.map(|place| 1 << place).ok_or(FilterError::Unknown { name, known })
}

fn add(name: &'static str, values: &mut Vec<String>, mut value: String) -> Result<(), FilterError> {
    if values.len() == MOST_VALUES {
        return Err(FilterError::TooMany(name));
    }
    // The stars around a text do not count.
    if value.len() > LONGEST_VALUE + 2 || value.contains(char::is_control) {
        return Err(FilterError::NoText(name));
    }
    value.make_ascii_lowercase();
    values.push(value);
    Ok(())
}

// === impl Filter ===

impl Filter {
    /// Says whether it lets everything through.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at a sending.
    pub(super) fn look<'t>(&'t self, traits: &'t Traits) -> Look<'t> {
        let bit =
            |(at, (begin, end)): (usize, &(u32, u32))| u64::from(self.wants_name(traits.word(*begin, *end))) << at;
        let names = traits.names.iter().enumerate().map(bit).fold(0, |names, bit| names | bit);
        Look { filter: self, traits, names }
    }

    fn wants_name(&self, name: &str) -> bool {
        self.collections.is_empty() || self.collections.iter().any(|wanted| wildcard::fits_name(wanted, name))
    }
}

// === impl Look ===

impl Look<'_> {
    /// Says whether the filter lets an event through, by its place in the sending.
    pub(super) fn lets_through(&self, event: usize) -> bool {
        let Self { filter, traits, names } = self;
        let Some(of) = traits.events.get(event) else { return false };
        let name = || match of.name {
            Some(name) => names & (1 << name) != 0,
            None => filter.wants_name(traits.word(of.begin, of.collection)),
        };
        let did = || traits.word(of.collection + 1, of.did);
        (filter.types == 0 || filter.types & of.types != 0)
            && (filter.actions == 0 || filter.actions & of.actions != 0)
            && name()
            && (filter.dids.is_empty() || filter.dids.iter().any(|wanted| wildcard::fits(wanted, did())))
            && filter.texts.iter().all(|text| wildcard::fits(text, traits.word(of.begin, of.end)))
    }
}

// === impl Traits ===

impl Traits {
    /// Adds what filters ask of one event, given as JSON. Of what is no event of ours, only an open filter lets it through.
    pub(super) fn add(&mut self, json: &str) {
        let event: Words<'_> = serde_json::from_str(json).unwrap_or_default();
        let action = if event.action.starts_with(HANDLE) { "handle" } else { &*event.action };
        let kind = event.kind.trim_start_matches('#');
        let begin = self.end();
        let words = [&*event.lexicon, &*event.did, &*event.action, kind, &*event.rkey];
        let [collection, did, .., end] = words.map(|word| self.add_word(word));
        let name = self.name(begin, collection);
        self.events.push(Trait {
            types: bit(&TYPES, kind),
            actions: bit(&ACTIONS, action),
            name,
            begin,
            collection,
            did,
            end,
        });
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() + self.events.len() * size_of::<Trait>()
    }

    /// Adds a word and a line break, which no text that is looked for has; returns where the word ends.
    fn add_word(&mut self, word: &str) -> u32 {
        self.words.extend(word.chars().map(|letter| letter.to_ascii_lowercase()));
        let end = self.end();
        self.words.push('\n');
        end
    }

    /// Returns the number of a name among those that differ, of which 64 are known.
    fn name(&mut self, begin: u32, end: u32) -> Option<u8> {
        let name = self.word(begin, end);
        let known = self.names.iter().position(|(begin, end)| self.word(*begin, *end) == name);
        let place = known.or_else(|| (self.names.len() < u64::BITS as usize).then_some(self.names.len()))?;
        if known.is_none() {
            self.names.push((begin, end));
        }
        u8::try_from(place).ok()
    }

    fn word(&self, begin: u32, end: u32) -> &str {
        self.words.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn end(&self) -> u32 {
        // A sending has 64 kB and what one event has.
        u32::try_from(self.words.len()).unwrap_or(u32::MAX)
    }
}

/// The bit of a word among those that are known; none of another word.
fn bit(known: &[&str], word: &str) -> u8 {
    known.iter().position(|known| *known == word).map_or(0, |place| 1 << place)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Query<'q> = &'q [(&'q str, &'q str)];

    fn read(query: Query<'_>) -> Filter {
        Wish::read(query.iter().copied()).unwrap().filter
    }

    fn events() -> Vec<Value> {
        let event = |kind: &str, lexicon: &str, did: &str, action: &str, rkey: Option<&str>| {
            let mut event =
                json!({"type": kind, "lexicon": lexicon, "did": did, "action": action, "timestamp": "14:00:00"});
            rkey.into_iter().for_each(|rkey| event["rkey"] = rkey.into());
            event
        };
        vec![
            event("#commit", "app.bsky.feed.post", "did:plc:aaa", "create", Some("3kA")),
            event("#commit", "app.bsky.feed.postgate", "did:plc:aab", "update", Some("3kb")),
            event("#commit", "app.bsky.graph.listItem", "did:web:bob.test", "delete", None),
            event("#identity", "com.atproto.identity", "did:plc:aaa", "→ Alice.test", None),
            event("#identity", "com.atproto.identity", "did:plc:ccc", "update", None),
            event("#account", "com.atproto.account", "did:plc:ccc", "inactive", None),
            json!("no event"),
            json!({"type": 7}),
        ]
    }

    /// The numbers of the events that a query lets through.
    fn let_through(query: Query<'_>) -> Vec<usize> {
        let (filter, events) = (read(query), events());
        let mut traits = Traits::default();
        events.iter().for_each(|event| traits.add(&event.to_string()));
        let look = filter.look(&traits);
        (0..events.len()).filter(|event| look.lets_through(*event)).collect()
    }

    #[test]
    fn each_parameter_lets_through_what_it_says() {
        let cases: [(Query<'_>, &[usize]); 29] = [
            (&[], &[0, 1, 2, 3, 4, 5, 6, 7]),
            (&[("collection", ""), ("did", " "), ("other", "x")], &[0, 1, 2, 3, 4, 5, 6, 7]),
            (&[("type", "commit")], &[0, 1, 2]),
            (&[("type", "#Identity")], &[3, 4]),
            (&[("type", "identity"), ("type", "account")], &[3, 4, 5]),
            (&[("collection", "app.bsky.feed.post")], &[0]),
            (&[("collection", "app.bsky.feed")], &[0, 1]),
            (&[("collection", "app.bsky.feed.*")], &[0, 1]),
            (&[("collection", "*post*")], &[0, 1]),
            (&[("collection", "app.bsky.graph.LISTITEM")], &[2]),
            (&[("collection", "app.bsky")], &[0, 1, 2]),
            (&[("collection", "*.post"), ("collection", "com.atproto.*")], &[0, 3, 4, 5]),
            (&[("collection", "feed")], &[]),
            (&[("did", "did:plc:aaa")], &[0, 3]),
            (&[("did", "did:plc:aa")], &[]),
            (&[("did", "did:plc:a*")], &[0, 1, 3]),
            (&[("did", "did:web:*"), ("did", "*ccc")], &[2, 4, 5]),
            (&[("action", "create")], &[0]),
            (&[("action", "update")], &[1, 4]),
            (&[("action", "handle")], &[3]),
            (&[("action", "delete"), ("action", "inactive")], &[2, 5]),
            (&[("text", "ALICE")], &[3]),
            (&[("text", "3ka")], &[0]),
            (&[("text", "bsky"), ("text", "bob")], &[2]),
            (&[("text", "feed*update")], &[1]),
            (&[("text", "post"), ("text", "alice")], &[]),
            // From one word into the next.
            (&[("text", "postdid")], &[]),
            (&[("collection", "*feed*"), ("did", "*aa?")], &[]),
            (&[("collection", "*feed*"), ("did", "*aa*"), ("action", "update"), ("type", "commit")], &[1]),
        ];
        for (query, expected) in cases {
            assert_eq!(let_through(query), expected, "{query:?}");
        }
    }

    #[test]
    fn any_two_parameters_let_through_what_both_do() {
        let parts = [
            ("type", "commit"),
            ("type", "identity"),
            ("collection", "app.bsky.feed"),
            ("collection", "com.*"),
            ("did", "*a*"),
            ("did", "did:plc:ccc"),
            ("action", "update"),
            ("action", "handle"),
            ("text", "a"),
            ("text", "test"),
        ];
        for one in parts {
            for other in parts {
                let (first, second) = (let_through(&[one]), let_through(&[other]));
                let either = one.0 == other.0 && one.0 != "text";
                let expected: Vec<usize> = (0..events().len())
                    .filter(|event| {
                        let (first, second) = (first.contains(event), second.contains(event));
                        if either { first || second } else { first && second }
                    })
                    .collect();
                assert_eq!(let_through(&[one, other]), expected, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_sending_of_very_many_collections_is_filtered_as_any_other() {
        let mut traits = Traits::default();
        let name = |number: usize| format!("org.example.n{}", number % 150);
        for number in 0..300 {
            traits.add(&json!({"lexicon": name(number), "did": "did:plc:a"}).to_string());
        }
        for wanted in ["org.example.n7", "org.example.n63", "org.example.n64", "org.example.n149", "*n10*", "org"] {
            let filter = read(&[("collection", wanted)]);
            let look = filter.look(&traits);
            let through: Vec<_> = (0..300).filter(|number| look.lets_through(*number)).collect();
            let expected: Vec<_> = (0..300).filter(|number| wildcard::fits_name(wanted, &name(*number))).collect();
            assert_eq!(through, expected, "{wanted}");
            assert!(!expected.is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (long, many) = ("x".repeat(300), vec![("did", "did:plc:a"); 21]);
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("type", "commits")], "type must be one of commit, identity, account; it may be given more than once"),
            (&[("action", "deleted")], "action must be one of create, update, delete, handle, active, inactive"),
            (&[("collection", &long)], "collection must be at most 256 bytes"),
            (&[("text", "a\nb")], "text must be at most 256 bytes of text without control characters"),
            (&many, "did may be given at most 20 times"),
            (&[("recent", "-1")], "recent must be an integer from 0 to 200"),
            (&[("recent", "201")], "recent must be"),
            (&[("recent", "x")], "recent must be"),
        ];
        for (query, expected) in cases {
            let refused = Wish::read(query.iter().copied()).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
        assert_eq!(Wish::read([("recent", "200")]).unwrap(), Wish { filter: Filter::default(), recent: 200 });
    }
}

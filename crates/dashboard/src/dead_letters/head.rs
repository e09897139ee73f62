//! What is known of a dead letter without its data: whose it is, why it failed, what it has in common with others.

use penstock_core::data::EventKind;
use penstock_core::stream::{StreamId, field};
use penstock_core::{dead_letter, wildcard};
use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

/// How much of the data is looked at for whose it is, in bytes; producers write that at the beginning.
pub(crate) const DATA_LOOK: usize = 512;

/// How much of an error is kept, in bytes.
pub(crate) const ERROR_LOOK: usize = 500;

/// The longest reason, in bytes.
const LONGEST_REASON: usize = 200;

/// The longest value of a filter, in bytes.
const LONGEST_VALUE: usize = 500;

/// What stands in a reason for what differs from letter to letter.
const ANYTHING: &str = "…";

/// Where a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterSource")]
pub(crate) enum Source {
    /// In Redis, and most often in PostgreSQL too.
    Redis,
    /// Only in PostgreSQL.
    Postgres,
}

/// A dead letter without its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterHead")]
pub(crate) struct Head {
    /// Where it is: `redis`, or `postgres` where only the table `penstock.dead_letters` has it.
    pub(crate) source: Source,
    /// Its ID there.
    pub(crate) id: String,
    /// When it was added, epoch milliseconds.
    pub(crate) at: u64,
    /// `commit`, `identity`, `account`; `raw` and `message` cannot be replayed.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Why it failed, cut after 500 bytes; empty if unknown.
    pub(crate) error: String,
    /// The same without what differs from letter to letter: letters are grouped by it.
    pub(crate) reason: String,
    /// The DID of its repo; null if unknown.
    pub(crate) repo: Option<String>,
    /// The URI of its first record; null if unknown.
    pub(crate) uri: Option<String>,
    /// The relay's sequence number; empty if there was none.
    pub(crate) seq: String,
    /// Its original ID in the stream; empty if it was never there.
    pub(crate) orig_id: String,
    /// Number of deliveries.
    pub(crate) deliveries: String,
    /// The consumer that gave it up.
    pub(crate) consumer: String,
    /// The length of its data.
    pub(crate) bytes: u64,
    /// Whether it is an event of the stream.
    pub(crate) replayable: bool,
}

/// Which letters are wanted; empty parts say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) reason: Option<String>,
    kind: Option<String>,
    source: Option<Source>,
    /// A pattern.
    did: Option<String>,
    /// A pattern that one of the fields must fit.
    text: Option<String>,
}

/// Why a filter is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum WantedError {
    #[error("{0} must be at most {LONGEST_VALUE} bytes")]
    TooLong(&'static str),
    #[error("source must be redis or postgres")]
    NoSource,
}

// === impl Head ===

impl Head {
    /// Fills in what follows from the rest and from the beginning of the data.
    pub(crate) fn complete(mut self, data: &[u8]) -> Self {
        self.error.truncate(self.error.floor_char_boundary(ERROR_LOOK));
        self.reason = reason(&self.error);
        self.replayable = is_event(&self.kind);
        let of_data = || dead_letter::repo_of(data).map(str::to_owned);
        self.repo = self.repo.take().filter(|repo| !repo.is_empty()).or_else(of_data);
        self.uri = uri_in(self.repo.as_deref(), data, &self.error);
        self
    }

    /// Identifies what it is a letter of, whichever place it is read from.
    pub(crate) fn identity(&self) -> (&str, &str, &str, u64) {
        match self.orig_id.parse::<StreamId>() {
            Ok(_) => (&self.orig_id, "", "", 0),
            // A frame never was in the stream: it is told by what it says.
            Err(_) => (&self.kind, &self.seq, &self.error, self.bytes),
        }
    }

    /// The order of the list, the newest first.
    pub(crate) fn order(&self) -> (std::cmp::Reverse<u64>, std::cmp::Reverse<&str>) {
        (std::cmp::Reverse(self.at), std::cmp::Reverse(&self.id))
    }

    /// Says by a field of Redis what it tells.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match name {
            field::TYPE => self.kind = value,
            field::SEQ => self.seq = value,
            field::ORIG_ID => self.orig_id = value,
            field::DELIVERIES => self.deliveries = value,
            field::ERROR => self.error = value,
            field::CONSUMER => self.consumer = value,
            field::REPO => self.repo = Some(value),
            _ => {}
        }
    }

    /// One of which nothing is known but where it is.
    pub(crate) fn new(source: Source, id: String, at: u64, bytes: u64) -> Self {
        Self {
            source,
            id,
            at,
            kind: String::new(),
            error: String::new(),
            reason: String::new(),
            repo: None,
            uri: None,
            seq: String::new(),
            orig_id: String::new(),
            deliveries: String::new(),
            consumer: String::new(),
            bytes,
            replayable: false,
        }
    }
}

/// Says whether an entry of this type may stand in the stream.
pub(crate) fn is_event(kind: &str) -> bool {
    [EventKind::Commit, EventKind::Identity, EventKind::Account].iter().any(|known| known.as_str() == kind)
}

/// Takes out of an error what differs from letter to letter: numbers, DIDs, URIs, CIDs, keys, what is quoted.
pub(crate) fn reason(error: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut quoted = false;
    for word in error.split_whitespace() {
        let quotes = word.matches(['"', '“', '”']).count();
        let inside = quoted;
        quoted ^= quotes % 2 == 1;
        let bare = word.trim_matches(|c: char| matches!(c, ',' | ';' | ':' | '.' | '(' | ')' | '[' | ']' | '#'));
        if !(inside || quotes > 0 || differs(bare)) {
            words.push(word.to_owned());
            continue;
        }
        let end = if inside && quotes == 0 { "" } else { word.rsplit(['"', '”']).next().unwrap_or_default() };
        let end: String = end.chars().rev().take_while(|c| matches!(c, ',' | ';' | ':' | ')')).collect();
        let end: String = end.chars().rev().collect();
        match words.last_mut() {
            Some(last) if last == ANYTHING => last.push_str(&end),
            _ => words.push(format!("{ANYTHING}{end}")),
        }
    }
    let reason = words.join(" ");
    reason.get(..reason.floor_char_boundary(LONGEST_REASON)).unwrap_or_default().to_owned()
}

/// Says whether a word is a name or a number of one letter, not of its kind.
fn differs(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    ["did:", "at://"].iter().any(|begin| word.contains(begin))
        || has_digit && word.bytes().all(|byte| byte.is_ascii_digit() || b"-+.,:_/%".contains(&byte))
        || has_digit && word.len() >= 10
        // A record's path.
        || word.split_once('/').is_some_and(|(name, _)| name.matches('.').count() >= 2)
}

/// Finds the first record of an entry, or else of an error that names one.
fn uri_in(repo: Option<&str>, data: &[u8], error: &str) -> Option<String> {
    let beginning = String::from_utf8_lossy(data.get(..DATA_LOOK).unwrap_or(data));
    // Before the first record: nothing of an author's comes earlier.
    let ours = beginning.split("\"record\"").next().unwrap_or_default();
    let path = ours.split("\"path\":").nth(1).and_then(|rest| rest.trim_start().strip_prefix('"')?.split_once('"'));
    let whole = |(path, _): (&str, &str)| {
        let is_path =
            path.split_once('/').is_some_and(|(collection, rkey)| collection.contains('.') && !rkey.is_empty());
        repo.filter(|_| is_path && !path.contains('\\')).map(|repo| format!("at://{repo}/{path}"))
    };
    let named = || {
        let uri = error.split_whitespace().find_map(|word| word.find("at://").and_then(|at| word.get(at..)))?;
        Some(uri.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned())
    };
    path.and_then(whole).or_else(named)
}

// === impl Wanted ===

impl Wanted {
    /// Reads the parameters of a query; those of other names are not looked at, and empty ones say nothing.
    pub(crate) fn read<'q>(query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Result<Self, WantedError> {
        let mut wanted = Self::default();
        for (name, value) in query {
            let value = value.trim();
            let (name, place) = match name {
                _ if value.is_empty() => continue,
                "reason" => ("reason", &mut wanted.reason),
                "type" => ("type", &mut wanted.kind),
                "did" => ("did", &mut wanted.did),
                "text" => ("text", &mut wanted.text),
                "source" => {
                    wanted.source = Some(match value {
                        "redis" => Source::Redis,
                        "postgres" => Source::Postgres,
                        _ => return Err(WantedError::NoSource),
                    });
                    continue;
                }
                _ => continue,
            };
            if value.len() > LONGEST_VALUE {
                return Err(WantedError::TooLong(name));
            }
            *place = Some(match name {
                "did" => value.to_ascii_lowercase(),
                "text" => format!("*{}*", value.to_lowercase()),
                _ => value.to_owned(),
            });
        }
        Ok(wanted)
    }

    /// Says whether nothing is asked for.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Says whether a letter is wanted.
    pub(crate) fn lets_through(&self, head: &Head) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let repo = || head.repo.as_deref().unwrap_or_default().to_ascii_lowercase();
        let words = [&head.error, &head.id, &head.orig_id, &head.seq, &head.consumer, &head.kind];
        let named = [head.uri.as_ref(), head.repo.as_ref()];
        let mut texts = words.into_iter().chain(named.into_iter().flatten());
        is(&self.reason, &head.reason)
            && is(&self.kind, &head.kind)
            && self.source.is_none_or(|source| source == head.source)
            && self.did.as_deref().is_none_or(|did| wildcard::fits(did, &repo()))
            && self.text.as_deref().is_none_or(|text| texts.any(|own| wildcard::fits(text, &own.to_lowercase())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_kind_have_one_reason() {
        for (errors, expected) in [
            (
                ["op 0: uri is longer than 512 bytes", "op 17: uri is longer than 64 bytes"],
                "op …: uri is longer than … bytes",
            ),
            (
                [
                    "op 1: invalid byte sequence for encoding \"UTF8\"",
                    "op 2: invalid byte sequence for encoding \"LATIN 1\"",
                ],
                "op …: invalid byte sequence for encoding …",
            ),
            (
                [
                    "left out of #commit 28123 op at://did:plc:a/app.bsky.feed.post/3k cid bafyreib2rxk3rybk of did:plc:a rev 3m5xq2k7c2s2a: too deep",
                    "left out of #commit 7 op at://did:web:b.test/a.b.c/x cid bafyreib2rxk3rybz of did:web:b.test rev 3m5xq2k7c2s2b: too deep",
                ],
                "left out of #commit … op … cid … of … rev …: too deep",
            ),
            (
                ["the record of app.bsky.feed.like/3k1 is a list", "the record of app.bsky.feed.post/3k2 is a list"],
                "the record of … is a list",
            ),
            (["", ""], ""),
            (["not json", "not json"], "not json"),
        ] {
            assert_eq!(errors.map(reason), [expected; 2], "{errors:?}");
        }
        assert_ne!(reason("op 0: too long"), reason("op 0: too deep"));
        assert!(reason(&"word ".repeat(1000)).len() <= LONGEST_REASON);
        assert!(reason(&"ä".repeat(1000)).len() <= LONGEST_REASON);
    }

    fn head(kind: &str, error: &str, data: &str) -> Head {
        let head = Head::new(Source::Redis, "5-1".to_owned(), 5, data.len() as u64);
        Head { kind: kind.to_owned(), error: error.to_owned(), ..head }.complete(data.as_bytes())
    }

    #[test]
    fn a_letter_names_its_first_record_and_no_other() {
        let uri = |kind, error, data| head(kind, error, data).uri;
        let op =
            r#"{"repo":"did:plc:a","ops":[{"action":"create","path":"app.bsky.feed.post/3k","cid":"b","record":{}}]}"#;
        assert_eq!(uri("commit", "x", op).unwrap(), "at://did:plc:a/app.bsky.feed.post/3k");
        let spaced = r#"{"repo": "did:plc:a", "ops": [{"action": "delete", "path": "app.bsky.feed.post/3k"}]}"#;
        assert_eq!(uri("commit", "x", spaced).unwrap(), "at://did:plc:a/app.bsky.feed.post/3k");
        let inner = r#"{"repo":"did:plc:a","ops":[{"record":{"path":"app.bsky.feed.post/theirs"}}]}"#;
        for data in [inner, r#"{"repo":"did:plc:a","ops":[{"path":"x"}]}"#, "", "{}", "AAEC"] {
            assert_eq!(uri("commit", "x", data), None, "{data}");
        }
        let named = "left out of #commit 7 op at://did:plc:a/app.bsky.feed.like/3k: too deep";
        assert_eq!(uri("raw", named, "AAEC").unwrap(), "at://did:plc:a/app.bsky.feed.like/3k");
        assert_eq!(head("account", "x", r#"{"did":"did:plc:c","active":true}"#).repo.unwrap(), "did:plc:c");
        // Cut in the middle of a letter.
        assert_eq!(uri("commit", "x", &format!("{}{}", "ä".repeat(300), op)), None);
    }

    #[test]
    fn a_filter_takes_what_fits_every_part() {
        let op = r#"{"repo":"did:plc:Abc","ops":[{"action":"create","path":"app.bsky.feed.post/3kX"}]}"#;
        let letter = head("commit", "op 3: too long", op);
        let cases: [(&[(&str, &str)], bool); 15] = [
            (&[], true),
            (&[("reason", ""), ("other", "x")], true),
            (&[("reason", "op …: too long")], true),
            (&[("reason", "op …")], false),
            (&[("type", "commit")], true),
            (&[("type", "raw")], false),
            (&[("source", "redis")], true),
            (&[("source", "postgres")], false),
            (&[("did", "did:plc:abc")], true),
            (&[("did", "did:plc:*")], true),
            (&[("did", "did:plc:ab")], false),
            (&[("text", "3KX")], true),
            (&[("text", "too*long")], true),
            (&[("text", "too short")], false),
            (&[("type", "commit"), ("text", "did:web")], false),
        ];
        for (query, expected) in cases {
            let wanted = Wanted::read(query.iter().copied()).unwrap();
            assert_eq!(wanted.lets_through(&letter), expected, "{query:?}");
        }
        assert_eq!(Wanted::read([("source", "disk")]), Err(WantedError::NoSource));
        assert_eq!(Wanted::read([("text", "x".repeat(501).as_str())]), Err(WantedError::TooLong("text")));
    }
}

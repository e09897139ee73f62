//! The export of the directory of did:plc: JSON lines, an operation each, read for what they say of an account now.
//!
//! Lines of both exports are read: those paged by time, with `nullified`, and those paged by `seq`; and the operations of before 2023,
//! of the type `create`. Whether an operation was signed by whom it should be is the directory's business; what is trusted is the file.
//! <https://web.plc.directory/spec/v0.1/did-plc>

use std::borrow::Cow;

use penstock_wire::Key;
use serde::Deserialize;
use thiserror::Error;

use crate::did::Did;
use crate::document::{Document, origin};
use crate::handle;

/// The longest line that is read, in bytes; the directory's operations have up to 7,500.
pub const LONGEST_LINE: usize = 64 * 1024;

/// An operation, as far as it says what an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose it is.
    pub did: Box<str>,
    /// When the directory took it, in microseconds since 1970.
    pub at: i64,
    /// What holds from then on; none of a tombstone.
    pub document: Option<Document>,
}

/// Why a line tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadLine {
    /// It is longer than any operation.
    #[error("the line has more than {LONGEST_LINE} bytes")]
    TooLong,
    /// It is not JSON of the export's shape.
    #[error("{why}")]
    Json {
        /// What is wrong with it, and at which byte of the line.
        why: String,
    },
    /// It is of a DID that is none of the directory's.
    #[error("did is not a did:plc of 24 letters")]
    Did,
    /// Its time cannot be read.
    #[error("createdAt is not a time such as 2026-11-21T07:43:44.864Z")]
    Time,
    /// It is an operation that this version does not know.
    #[error("operation.type is not plc_operation, create or plc_tombstone")]
    Kind,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    #[serde(borrow)]
    operation: Raw<'a>,
    #[serde(default)]
    nullified: bool,
    #[serde(borrow, rename = "createdAt")]
    created_at: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, rename = "verificationMethods")]
    methods: Methods<'a>,
    #[serde(borrow, default, rename = "alsoKnownAs")]
    also_known_as: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    services: Services<'a>,
    #[serde(borrow, default, rename = "signingKey")]
    signing_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    handle: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    service: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Methods<'a> {
    #[serde(borrow, default)]
    atproto: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Services<'a> {
    #[serde(borrow, default)]
    atproto_pds: Option<Service<'a>>,
}

#[derive(Deserialize)]
struct Service<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
}

/// Reads a line, and tells of each operation in it; of those that were nullified only `nullified` is told, as none. Returns with the
/// first that cannot be read.
///
/// Pages of an export end without a line break, so that several put one behind the other have two operations in one line.
///
/// # Errors
/// The line is none of the export's; operations before the bad one have been told.
pub fn read_line(line: &[u8], mut tell: impl FnMut(Option<Operation>)) -> Result<(), BadLine> {
    if line.len() > LONGEST_LINE {
        return Err(BadLine::TooLong);
    }
    for read in serde_json::Deserializer::from_slice(line).into_iter::<Line<'_>>() {
        tell(read.map_err(|error| BadLine::Json { why: short(&error.to_string()) })?.operation()?);
    }
    Ok(())
}

// === impl Line ===

impl Line<'_> {
    fn operation(self) -> Result<Option<Operation>, BadLine> {
        if Did::parse(&self.did) != Ok(Did::Plc) {
            return Err(BadLine::Did);
        }
        let at = penstock_core::time::parse(&self.created_at).ok_or(BadLine::Time)?.as_microsecond();
        if self.nullified {
            return Ok(None);
        }
        let document = match &*self.operation.kind {
            "plc_operation" => Some(self.operation.document()),
            "create" => Some(self.operation.first()),
            "plc_tombstone" => None,
            _ => return Err(BadLine::Kind),
        };
        Ok(Some(Operation { did: self.did.into(), at, document }))
    }
}

// === impl Raw ===

impl Raw<'_> {
    /// Reads what every operation is today.
    fn document(&self) -> Document {
        let service = self.services.atproto_pds.as_ref().filter(|pds| pds.kind == "AtprotoPersonalDataServer");
        Document {
            key: self.methods.atproto.as_deref().and_then(key),
            host: service.and_then(|pds| origin(&pds.endpoint)).map(Into::into),
            handle: self.also_known_as.iter().find_map(|uri| handle::claimed(uri)).map(Into::into),
        }
    }

    /// Reads what a first operation was before 2023; its service and handle stand without a scheme too.
    fn first(&self) -> Document {
        let with = |text: &str, schemes: &[&str], scheme: &str| {
            if schemes.iter().any(|known| text.starts_with(known)) {
                text.to_owned()
            } else {
                format!("{scheme}{text}")
            }
        };
        let service = self.service.as_deref().map(|service| with(service, &["http://", "https://"], "https://"));
        let bare = |handle: &str| handle.replace("http://", "").replace("https://", "");
        let handle = self.handle.as_deref().map(|handle| with(&bare(handle), &["at://"], "at://"));
        Document {
            key: self.signing_key.as_deref().and_then(key),
            host: service.and_then(|service| origin(&service)).map(Into::into),
            handle: handle.and_then(|handle| handle::claimed(&handle)).map(Into::into),
        }
    }
}

/// Leaves the middle out of a text that repeats what stands in the line: what was found is at its beginning, and where at its end.
fn short(text: &str) -> String {
    const END: usize = 100;
    let letters = text.chars().count();
    if letters <= 2 * END {
        return text.to_owned();
    }
    let (first, last) = (text.chars().take(END), text.chars().skip(letters - END));
    first.chain(['…']).chain(last).collect()
}

/// Keys are multikeys with `did:key:` before them; those of other curves sign no commits.
fn key(text: &str) -> Option<Key> {
    text.starts_with("did:key:").then(|| Key::from_multikey(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo";
    const K256: &str = "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc";

    fn read(line: &str) -> Result<Vec<Option<Operation>>, BadLine> {
        let mut operations = Vec::new();
        read_line(line.as_bytes(), |operation| operations.push(operation)).map(|()| operations)
    }

    fn line(operation: &str) -> String {
        format!(
            r#"{{"did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","operation":{operation},"cid":"bafyrei","nullified":false,"createdAt":"2023-04-26T06:19:25.508Z"}}"#
        )
    }

    fn document(operation: &str) -> Document {
        let operation = read(&line(operation)).unwrap().remove(0).unwrap();
        assert_eq!(&*operation.did, "did:plc:ewvi7nxzyoun6zhxrhs64oiz");
        assert_eq!(operation.at, 1_682_489_965_508_000);
        operation.document.unwrap()
    }

    fn said(key: Option<&str>, host: Option<&str>, handle: Option<&str>) -> Document {
        let key = key.map(|key| Key::from_multikey(key).unwrap());
        Document { key, host: host.map(Into::into), handle: handle.map(Into::into) }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_where_however_long_the_line_is() {
        let line = format!("\"{}é\"", "x".repeat(50_000));
        let said = read(&line).unwrap_err().to_string();
        assert!(said.starts_with("invalid type: string \"xxx") && said.ends_with("at line 1 column 50004"), "{said}");
        assert!(said.chars().count() <= 201, "{said}");
    }

    #[test]
    fn each_kind_of_operation_says_what_it_says() {
        let ed25519 = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
        let pds = |endpoint: &str| {
            format!(r#"{{"atproto_pds":{{"type":"AtprotoPersonalDataServer","endpoint":"{endpoint}"}}}}"#)
        };
        let operation = |key: &str, names: &str, services: &str| {
            format!(
                r#"{{"sig":"x","prev":null,"type":"plc_operation","services":{services},"alsoKnownAs":{names},"rotationKeys":["{K256}"],"verificationMethods":{{"atproto":"{key}","other":"{ed25519}"}}}}"#
            )
        };
        let create = |handle: &str, service: &str| {
            format!(
                r#"{{"sig":"x","prev":null,"type":"create","handle":"{handle}","service":"{service}","signingKey":"{P256}","recoveryKey":"{K256}"}}"#
            )
        };
        let (host, name) = (Some("https://pds.example.com"), Some("alice.example.com"));
        for (operation, expected) in [
            (operation(K256, r#"["at://alice.example.com"]"#, &pds("https://pds.example.com")), said(Some(K256), host, name)),
            (operation(P256, r#"["at://ALICE.example.com"]"#, &pds("https://pds.example.com/")), said(Some(P256), host, name)),
            (operation(K256, r#"["https://a.com","at://alice.example.com","at://b.com"]"#, "{}"), said(Some(K256), None, name)),
            (operation(ed25519, r#"["at://not a handle"]"#, &pds("ftp://pds.example.com")), said(None, None, None)),
            (operation("zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc", "[]", "{}"), said(None, None, None)),
            (
                r#"{"type":"plc_operation","services":{"atproto_labeler":{"type":"AtprotoLabeler","endpoint":"https://a.com"}},"alsoKnownAs":[],"rotationKeys":[],"verificationMethods":{}}"#.to_owned(),
                said(None, None, None),
            ),
            (
                r#"{"type":"plc_operation","services":{"atproto_pds":{"type":"Other","endpoint":"https://pds.example.com"}},"alsoKnownAs":[],"verificationMethods":{"atproto":null}}"#.to_owned(),
                said(None, None, None),
            ),
            (create("alice.example.com", "pds.example.com"), said(Some(P256), host, name)),
            (create("at://alice.example.com", "https://pds.example.com"), said(Some(P256), host, name)),
            (create("https://alice.example.com", "http://pds.example.com"), said(Some(P256), Some("http://pds.example.com"), name)),
        ] {
            assert_eq!(document(&operation), expected, "{operation}");
        }
    }

    #[test]
    fn tombstones_and_what_was_nullified_say_that_there_is_nothing() {
        let tombstone = read(&line(r#"{"type":"plc_tombstone","prev":"bafyrei","sig":"x"}"#)).unwrap();
        assert!(matches!(tombstone.as_slice(), [Some(Operation { document: None, .. })]));
        let nullified = line(r#"{"type":"plc_tombstone"}"#).replace("false", "true");
        assert_eq!(read(&nullified).unwrap(), [None]);
        let numbered =
            line(r#"{"type":"plc_tombstone"}"#).replace(r#""nullified":false"#, r#""seq":7,"type":"sequenced_op""#);
        assert_eq!(read(&numbered).unwrap().len(), 1, "the export by number has no nullified");
    }

    #[test]
    fn pages_put_together_without_a_line_break_are_read() {
        let one = line(r#"{"type":"plc_tombstone"}"#);
        assert_eq!(read(&format!("{one}{one} {one}")).unwrap().len(), 3);
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read(" \r").unwrap(), []);
        let mut before = 0;
        assert!(read_line(format!("{one}{{").as_bytes(), |_| before += 1).is_err());
        assert_eq!(before, 1);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let tombstone = line(r#"{"type":"plc_tombstone"}"#);
        for (bad, expected) in [
            (tombstone.replace("ewvi7nxzyoun6zhxrhs64oiz", "ewvi"), BadLine::Did),
            (tombstone.replace("did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:a.com"), BadLine::Did),
            (tombstone.replace("2023-04-26T06:19:25.508Z", "yesterday"), BadLine::Time),
            (tombstone.replace("plc_tombstone", "plc_other"), BadLine::Kind),
            (format!("{tombstone}{}", " ".repeat(LONGEST_LINE)), BadLine::TooLong),
        ] {
            assert_eq!(read(&bad), Err(expected));
        }
        for bad in ["{", "[]", "null", "{}", r#"{"did":7}"#, &tombstone.replace("operation", "op"), "\u{0}"] {
            assert!(matches!(read(bad), Err(BadLine::Json { .. })), "{bad}");
        }
        let why = read("nonsense").unwrap_err().to_string();
        assert_eq!(why, "expected ident at line 1 column 2");
    }
}

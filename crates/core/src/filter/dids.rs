//! Many DIDs in little memory: 15 bytes for one of the usual kind, without hashing, so that two are never taken for one.

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::LazyLock;
use thiserror::Error;

/// What the usual kind begins with; 24 characters of base32 follow.
const PLC: &str = "did:plc:";

/// The 24 characters as bytes: they sort alike, since the digits of base32 come after its letters in both.
type Packed = [u8; 15];

/// A set of DIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dids {
    /// Those of did:plc, sorted.
    packed: Vec<Packed>,
    /// The others, sorted.
    others: Vec<Box<str>>,
}

/// A line that is no DID.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {text:?} is no DID (did:plc:… or did:web:…)")]
pub struct DidError {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there, shortened.
    pub text: String,
}

/// One DID, packed where it can be.
enum Form<'a> {
    Packed(Packed),
    Other(&'a str),
}

// === impl Dids ===

impl Dids {
    /// Reads DIDs: one a line or separated by commas, with comments behind `#`.
    ///
    /// # Errors
    /// Names the first line that is none.
    pub fn read(text: &str) -> Result<Self, DidError> {
        let mut dids = Self::default();
        for (line, did) in super::lines::entries(text) {
            if !is_did(did) {
                return Err(DidError { line, text: did.chars().take(100).collect() });
            }
            match form(did) {
                Form::Packed(packed) => dids.packed.push(packed),
                Form::Other(did) => dids.others.push(did.into()),
            }
        }
        dids.packed.sort_unstable();
        dids.packed.dedup();
        dids.packed.shrink_to_fit();
        dids.others.sort_unstable();
        dids.others.dedup();
        Ok(dids)
    }

    /// Says whether a DID is among them.
    #[must_use]
    pub fn contains(&self, did: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        match form(did) {
            Form::Packed(packed) => self.packed.binary_search(&packed).is_ok(),
            Form::Other(did) => self.others.binary_search_by(|held| (**held).cmp(did)).is_ok(),
        }
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty() && self.others.is_empty()
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packed.len() + self.others.len()
    }

    /// Returns them, those of one kind in order.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let packed = self.packed.iter().map(|packed| Cow::Owned(unpack(packed)));
        packed.chain(self.others.iter().map(|did| Cow::Borrowed(&**did)))
    }

    /// Returns those that are not among others.
    pub fn without<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = Cow<'a, str>> {
        let packed = missing(&self.packed, &others.packed).map(|packed| Cow::Owned(unpack(packed)));
        packed.chain(missing(&self.others, &others.others).map(|did| Cow::Borrowed(&**did)))
    }
}

/// Walks through two sorted lists, and returns what stands in the first alone.
fn missing<'a, T: Ord>(these: &'a [T], others: &'a [T]) -> impl Iterator<Item = &'a T> {
    let mut rest = others;
    these.iter().filter(move |this| {
        while let Some((first, after)) = rest.split_first() {
            match first.cmp(*this) {
                Ordering::Less => rest = after,
                Ordering::Equal => return false,
                Ordering::Greater => return true,
            }
        }
        true
    })
}

/// The base32 of did:plc: lower case.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut lower = Specification::new();
    lower.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // Infallible: 32 different symbols.
    lower.encoding().unwrap_or(BASE32_NOPAD)
});

fn form(did: &str) -> Form<'_> {
    let mut packed = Packed::default();
    match did.strip_prefix(PLC).filter(|id| id.len() == 24) {
        Some(id) if BASE32.decode_mut(id.as_bytes(), &mut packed).is_ok() => Form::Packed(packed),
        _ => Form::Other(did),
    }
}

fn unpack(packed: &Packed) -> String {
    let mut did = PLC.to_owned();
    BASE32.encode_append(packed, &mut did);
    did
}

/// Whether a text is a DID, of whatever method.
fn is_did(text: &str) -> bool {
    let Some((method, id)) = text.strip_prefix("did:").and_then(|rest| rest.split_once(':')) else { return false };
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'%' | b'-');
    text.len() <= 2_048
        && !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_lowercase())
        && !id.is_empty()
        && !id.ends_with([':', '%'])
        && id.bytes().all(is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_did_is_found_and_no_other() {
        let dids: Vec<String> = (0_u32..2_000)
            .map(|nth| match nth % 3 {
                0 | 1 => unpack(&std::array::from_fn(|at| {
                    (nth.wrapping_mul(2_654_435_761) >> (at % 4 * 8)) as u8 ^ at as u8
                })),
                _ => format!("did:web:host{nth}.example"),
            })
            .collect();
        let (held, left) = dids.split_at(1_000);
        let read = Dids::read(&held.join("\n")).unwrap();
        let known: std::collections::BTreeSet<_> = held.iter().collect();
        assert_eq!(read.len(), known.len());
        held.iter().for_each(|did| assert!(read.contains(did), "{did}"));
        left.iter().filter(|did| !known.contains(did)).for_each(|did| assert!(!read.contains(did), "{did}"));
        let listed: std::collections::BTreeSet<_> = read.iter().map(Cow::into_owned).collect();
        assert_eq!(listed.iter().collect::<std::collections::BTreeSet<_>>(), known);
    }

    #[test]
    fn the_difference_of_two_sets_is_that_of_their_texts() {
        let did = |nth: usize| if nth.is_multiple_of(2) { unpack(&[nth as u8; 15]) } else { format!("did:web:h{nth}") };
        let set =
            |mask: usize| (0..8).filter(|nth| mask >> nth & 1 == 1).map(did).collect::<std::collections::BTreeSet<_>>();
        let read = |set: &std::collections::BTreeSet<String>| {
            Dids::read(&set.iter().map(String::as_str).collect::<Vec<_>>().join("\n")).unwrap()
        };
        for one in 0..256 {
            for other in (0..256).step_by(7) {
                let (one, other) = (set(one), set(other));
                let found: std::collections::BTreeSet<_> =
                    read(&one).without(&read(&other)).map(Cow::into_owned).collect();
                assert_eq!(found, &one - &other);
            }
        }
    }

    #[test]
    fn a_did_that_is_only_like_the_usual_ones_is_kept_as_it_is() {
        let odd = [
            "did:plc:short",
            "did:plc:ABCDEFGHIJKLMNOPQRSTUVWX",
            "did:plc:0189abcdefghijklmnopqrst",
            "did:web:a.example",
        ];
        let read = Dids::read(&odd.join("\n")).unwrap();
        assert_eq!(read.packed.len(), 0);
        odd.iter().for_each(|did| assert!(read.contains(did), "{did}"));
        assert!(!read.contains("did:plc:abcdefghijklmnopqrstuvwx"));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let read = Dids::read("# friends\ndid:web:a # one\n\n  did:web:b\t\r\nalice.example\n");
        assert_eq!(read, Err(DidError { line: 5, text: "alice.example".into() }));
        for bad in ["did:", "did:web:", "did:WEB:a", "did:web:a b", "did:web:a:", "at://did:web:a"] {
            assert!(Dids::read(bad).is_err(), "{bad}");
        }
    }
}

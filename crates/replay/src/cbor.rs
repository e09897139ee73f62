//! DAG-CBOR as the relay needs it: a walk that knows where each item lies, and the few messages the relay says itself.

use bytes::Bytes;
use ciborium::Value;
use ciborium_ll::{Decoder, Header};

use crate::error::Malformed;

/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 512;
const TAG_CID: u64 = 42;

/// What an item is, as far as rewriting cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bytes,
    /// A CID link; the item's content is the binary CID without the leading zero byte.
    Link,
    Unsigned(u64),
}

/// Tells where one item of a walked object lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    /// The map key it stands under; empty in an array and at the top.
    pub(crate) key: &'a [u8],
    /// Containers around it: 1 for a value of the top-level map.
    pub(crate) depth: usize,
    pub(crate) kind: Kind,
    /// Where its header begins.
    pub(crate) head: usize,
    /// Where its content begins.
    pub(crate) at: usize,
    /// Where its content ends.
    pub(crate) end: usize,
}

/// Walks the object that begins at `at`, telling `visit` of every text, byte string, link and unsigned integer in the order
/// of the bytes; map keys are not visited. Returns where the object ends.
pub(crate) fn walk<'a>(
    bytes: &'a [u8],
    at: usize,
    visit: &mut dyn FnMut(Item<'a>) -> Result<(), Malformed>,
) -> Result<usize, Malformed> {
    Walk { bytes, visit }.item(at, b"", 0)
}

struct Walk<'a, 'v> {
    bytes: &'a [u8],
    visit: &'v mut dyn FnMut(Item<'a>) -> Result<(), Malformed>,
}

impl<'a> Walk<'a, '_> {
    fn item(&mut self, head: usize, key: &'a [u8], depth: usize) -> Result<usize, Malformed> {
        let malformed = Malformed::Cbor { at: head };
        if depth > MAX_DEPTH {
            return Err(malformed);
        }
        let (header, at) = self.header(head)?;
        let item = Item { key, depth, kind: Kind::Text, head, at, end: at };
        match header {
            Header::Positive(n) => self.tell(Item { kind: Kind::Unsigned(n), ..item }),
            Header::Negative(_) | Header::Float(_) | Header::Simple(_) => Ok(at),
            Header::Text(Some(length)) => self.tell(Item { end: self.end(at, length)?, ..item }),
            Header::Bytes(Some(length)) => self.tell(Item { kind: Kind::Bytes, end: self.end(at, length)?, ..item }),
            Header::Tag(TAG_CID) => {
                let (Header::Bytes(Some(length)), zero) = self.header(at)? else { return Err(malformed) };
                let end = self.end(zero, length)?;
                if self.bytes.get(zero) != Some(&0) || length == 0 {
                    return Err(malformed);
                }
                self.tell(Item { kind: Kind::Link, at: zero + 1, end, ..item })
            }
            Header::Array(Some(length)) => {
                let mut next = at;
                for _ in 0..length {
                    next = self.item(next, b"", depth + 1)?;
                }
                Ok(next)
            }
            Header::Map(Some(length)) => {
                let mut next = at;
                for _ in 0..length {
                    let (Header::Text(Some(length)), text) = self.header(next)? else { return Err(malformed) };
                    let value = self.end(text, length)?;
                    next = self.item(value, &self.bytes[text..value], depth + 1)?;
                }
                Ok(next)
            }
            _ => Err(malformed),
        }
    }

    fn tell(&mut self, item: Item<'a>) -> Result<usize, Malformed> {
        (self.visit)(item)?;
        Ok(item.end)
    }

    fn header(&self, at: usize) -> Result<(Header, usize), Malformed> {
        let malformed = Malformed::Cbor { at };
        let mut decoder = Decoder::from(self.bytes.get(at..).ok_or(malformed)?);
        let header = decoder.pull().map_err(|_| malformed)?;
        Ok((header, at + decoder.offset()))
    }

    fn end(&self, at: usize, length: usize) -> Result<usize, Malformed> {
        at.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(Malformed::Cbor { at })
    }
}

/// Appends an unsigned integer (`major` 0) or a text's head (`major` 3) in its shortest form, as DAG-CBOR demands.
pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    match n {
        0..=23 => out.push(major | n as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, n as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

/// Builds an `#info` frame.
pub(crate) fn info_frame(name: &str, message: &str) -> Bytes {
    frame([text("t", "#info"), number("op", 1)], [text("name", name), text("message", message)])
}

/// Builds an error frame.
pub(crate) fn error_frame(error: &str, message: &str) -> Bytes {
    frame([number("op", -1)], [text("error", error), text("message", message)])
}

// Keys are given in DAG-CBOR's order: shorter first, then by their bytes.
fn frame<const N: usize, const M: usize>(header: [(Value, Value); N], body: [(Value, Value); M]) -> Bytes {
    let mut out = Vec::with_capacity(128);
    for object in [Value::Map(header.into()), Value::Map(body.into())] {
        // Writing to a Vec cannot fail, nor can a map of texts and integers be refused.
        let _ = ciborium::into_writer(&object, &mut out);
    }
    Bytes::from(out)
}

fn text(key: &str, value: &str) -> (Value, Value) {
    (Value::from(key), Value::from(value))
}

fn number(key: &str, value: i64) -> (Value, Value) {
    (Value::from(key), Value::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_those_ciborium_writes() {
        for n in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_head(&mut ours, 0, n);
            ciborium::into_writer(&n, &mut theirs).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn cut_or_indefinite_objects_are_refused() {
        let mut visit = |_: Item<'_>| Ok(());
        assert_eq!(walk(&[0xa1, 0x61, b'a', 0x01], 0, &mut visit), Ok(4));
        assert_eq!(walk(&[0xa1, 0x61, b'a'], 0, &mut visit), Err(Malformed::Cbor { at: 3 }));
        assert_eq!(walk(&[0xbf, 0xff], 0, &mut visit), Err(Malformed::Cbor { at: 0 }));
        assert_eq!(walk(&[0x81; 1000], 0, &mut visit), Err(Malformed::Cbor { at: MAX_DEPTH + 1 }));
    }
}

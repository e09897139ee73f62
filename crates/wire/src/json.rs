//! A record's DAG-CBOR, written as lexicon JSON without a tree between.
//!
//! The reader is strict: shortest heads, definite lengths, keys unique and in order, 64-bit floats only and none of them
//! NaN, infinite or -0, no tag but 42. Anything else is an error.

use std::fmt;

use penstock_core::data::write_string;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_ipld_dagcbor::DecodeError;

use crate::cid::Link;
use crate::deep;
use crate::quick;
use crate::record::{RecordFault, write_bytes, write_float, write_link};

/// The message by which this module tells its own refusal from the reader's.
const TOO_DEEP: &str = "nested too deeply";

/// What is said of a key or CID in pieces. The reader refuses that in values alone: here it glues the pieces together, and
/// so hands over a text of its own instead of one borrowed from the block.
const INDEFINITE: &str = "indefinite length";

/// Writes one value to `out`; `depth` more maps or lists may be entered.
struct Value<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

/// Writes a map's key.
struct Key<'o>(&'o mut Vec<u8>);

/// Appends a record as lexicon JSON. On an error `out` holds a torso.
pub(crate) fn write_record(out: &mut Vec<u8>, block: &[u8], nesting: usize) -> Result<(), RecordFault> {
    // Major type 5, in the upper three bits, is a map.
    if block.first().is_none_or(|head| head >> 5 != 5) {
        return Err(RecordFault::NotMap);
    }
    out.reserve(block.len());
    let before = out.len();
    if quick::write_record(out, block, nesting).is_some() {
        return Ok(());
    }
    out.truncate(before);
    write_strictly(out, block, nesting)
}

/// Appends a record that is unusual, or says what is wrong with it.
pub(crate) fn write_strictly(out: &mut Vec<u8>, block: &[u8], nesting: usize) -> Result<(), RecordFault> {
    let before = out.len();
    let mut input = serde_ipld_dagcbor::de::Deserializer::from_slice(block);
    let written = Value { out, depth: nesting }.deserialize(&mut input).and_then(|()| input.end());
    match written {
        Ok(()) => Ok(()),
        Err(DecodeError::Msg(message)) if message == TOO_DEEP => Err(RecordFault::TooDeep),
        // The reader's own bound, 127: beyond it another one goes on.
        Err(DecodeError::DepthOverflow { .. }) => {
            out.truncate(before);
            deep::write_record(out, block, nesting)
        }
        Err(other) => Err(RecordFault::Unreadable(other.to_string())),
    }
}

// === impl Value ===

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the atproto data model")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        write_float(self.out, value);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        write_string(self.out, text);
        Ok(())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        write_bytes(self.out, bytes);
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        struct LinkVisitor<'o>(&'o mut Vec<u8>);

        impl<'de> Visitor<'de> for LinkVisitor<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cid")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<(), E> {
                write_link(self.0, Link(bytes)).map_err(E::custom)
            }

            fn visit_byte_buf<E: Error>(self, _: Vec<u8>) -> Result<(), E> {
                Err(E::custom(INDEFINITE))
            }
        }

        input.deserialize_bytes(LinkVisitor(self.out))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let out = self.out;
        out.push(b'[');
        let start = out.len();
        // A comma goes first and is taken back at the end: only the reader knows whether another item comes.
        while items.next_element_seed(Value { out, depth })?.is_some() {
            out.push(b',');
        }
        close(out, start, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let out = self.out;
        out.push(b'{');
        let start = out.len();
        while entries.next_key_seed(Key(out))?.is_some() {
            entries.next_value_seed(Value { out, depth })?;
            out.push(b',');
        }
        close(out, start, b'}');
        Ok(())
    }
}

/// Closes a list or map that began at `start`: over the last comma, if there is one.
fn close(out: &mut Vec<u8>, start: usize, bracket: u8) {
    if out.len() > start {
        out.pop();
    }
    out.push(bracket);
}

// === impl Key ===

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        write_string(self.0, text);
        self.0.push(b':');
        Ok(())
    }

    fn visit_string<E: Error>(self, _: String) -> Result<(), E> {
        Err(E::custom(INDEFINITE))
    }
}

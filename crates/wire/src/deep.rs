//! A record's DAG-CBOR, written as lexicon JSON without recursion: as strict as the usual reader, and slower.
//!
//! The usual one stops at 127 levels. Servers accept more, so a record that is deeper is read here.

use std::cmp::Ordering;

use penstock_core::data::write_string;

use crate::cbor::{Head, Input, Malformed, major};
use crate::cid::Link;
use crate::record::{RecordFault, write_bytes, write_float, write_link};

/// A list or a map that is being written.
struct Level<'a> {
    /// How many items are left, or entries.
    left: u64,
    /// The last key of a map.
    key: Option<&'a str>,
    is_map: bool,
    is_empty: bool,
}

/// Appends a record as lexicon JSON. On an error `out` holds a torso.
pub(crate) fn write_record(out: &mut Vec<u8>, block: &[u8], nesting: usize) -> Result<(), RecordFault> {
    let mut input = Input::new(block);
    let mut levels: Vec<Level<'_>> = Vec::new();
    loop {
        if let Some(opened) = write_value(out, &mut input)? {
            if levels.len() == nesting {
                return Err(RecordFault::TooDeep);
            }
            levels.push(opened);
        }
        // Whatever is full is closed, and the next value prepared.
        loop {
            let Some(level) = levels.last_mut() else {
                return if input.is_empty() { Ok(()) } else { Err(fault("there is more behind the record")) };
            };
            if level.left > 0 {
                level.left -= 1;
                if !level.is_empty {
                    out.push(b',');
                }
                level.is_empty = false;
                if level.is_map {
                    level.key = Some(write_key(out, &mut input, level.key)?);
                }
                break;
            }
            out.push(if level.is_map { b'}' } else { b']' });
            levels.pop();
        }
    }
}

/// Writes a value that is one, or opens the list or map that it is.
fn write_value<'a>(out: &mut Vec<u8>, input: &mut Input<'a>) -> Result<Option<Level<'a>>, RecordFault> {
    let head = input.head()?;
    if head.major == major::SIMPLE {
        match (head.info, head.value) {
            (20, _) => out.extend_from_slice(b"false"),
            (21, _) => out.extend_from_slice(b"true"),
            (22, _) => out.extend_from_slice(b"null"),
            (27, bits) => {
                let float = f64::from_bits(bits);
                if !float.is_finite() || bits == (-0.0_f64).to_bits() {
                    return Err(fault("a float is not of the data model"));
                }
                write_float(out, float);
            }
            _ => return Err(fault("a simple value is not of the data model")),
        }
        return Ok(None);
    }
    check(head)?;
    match head.major {
        major::UNSIGNED => out.extend_from_slice(itoa::Buffer::new().format(head.value).as_bytes()),
        major::NEGATIVE => {
            let value = i64::try_from(head.value).map_err(|_| fault("an integer is beyond 64 bits"))?;
            out.extend_from_slice(itoa::Buffer::new().format(-1 - value).as_bytes());
        }
        major::BYTES => write_bytes(out, input.take(head.value)?),
        major::TEXT => write_string(out, utf8(input.take(head.value)?)?),
        major::TAG => {
            let bytes = input.head()?;
            check(bytes)?;
            if (head.info, head.value, bytes.major) != (24, 42, major::BYTES) {
                return Err(fault("a tag is not that of a cid"));
            }
            let cid =
                input.take(bytes.value)?.strip_prefix(&[0]).ok_or_else(|| fault("a cid has no zero before it"))?;
            write_link(out, Link(cid)).map_err(fault)?;
        }
        _ => {
            let is_map = head.major == major::MAP;
            out.push(if is_map { b'{' } else { b'[' });
            return Ok(Some(Level { left: head.value, key: None, is_map, is_empty: true }));
        }
    }
    Ok(None)
}

/// Writes a key, which has to come behind the one before: shorter ones first, then bytewise.
fn write_key<'a>(out: &mut Vec<u8>, input: &mut Input<'a>, before: Option<&str>) -> Result<&'a str, RecordFault> {
    let head = input.head()?;
    check(head)?;
    if head.major != major::TEXT {
        return Err(fault("a key is no text"));
    }
    let key = utf8(input.take(head.value)?)?;
    if before.is_some_and(|before| before.len().cmp(&key.len()).then_with(|| before.cmp(key)) != Ordering::Less) {
        return Err(fault("a key is not in its place"));
    }
    write_string(out, key);
    out.push(b':');
    Ok(key)
}

fn check(head: Head) -> Result<(), RecordFault> {
    match head {
        _ if head.is_indefinite() => Err(fault("a length is indefinite")),
        _ if !head.is_minimal() => Err(fault("a head is not minimal")),
        _ => Ok(()),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, RecordFault> {
    str::from_utf8(bytes).map_err(|_| fault("a text is not utf-8"))
}

fn fault(detail: &str) -> RecordFault {
    RecordFault::Unreadable(detail.to_owned())
}

impl From<Malformed> for RecordFault {
    fn from(Malformed(detail): Malformed) -> Self {
        fault(detail)
    }
}

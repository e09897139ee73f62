//! What both readers of records share: the values that lexicon JSON writes in a way of its own, and why a record is refused.

use data_encoding::BASE64_NOPAD;

use crate::cid::Link;

/// Why a record was not written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordFault {
    /// It is nested over the bound.
    TooDeep,
    /// It is no map.
    NotMap,
    /// It is not strict DAG-CBOR.
    Unreadable(String),
}

/// Appends a float: the shortest text that reads back as the same one; Debug's exponents are JSON's.
pub(crate) fn write_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(format!("{value:?}").as_bytes());
}

/// Appends bytes as the data model has them in JSON.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(br#"{"$bytes":""#);
    let start = out.len();
    out.resize(start + BASE64_NOPAD.encode_len(bytes.len()), 0);
    BASE64_NOPAD.encode_mut(bytes, out.get_mut(start..).unwrap_or_default());
    out.extend_from_slice(br#""}"#);
}

/// Appends a link as the data model has it in JSON.
pub(crate) fn write_link(out: &mut Vec<u8>, link: Link<'_>) -> Result<(), &'static str> {
    out.extend_from_slice(br#"{"$link":""#);
    link.write(out)?;
    out.extend_from_slice(br#""}"#);
    Ok(())
}

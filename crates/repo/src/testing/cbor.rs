//! JSON of the data model, written as DAG-CBOR.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};
use serde_json::Value;

/// Writes a value as DAG-CBOR: keys in order, heads as short as they can be, `$link` and `$bytes` as what they stand for.
#[must_use]
pub fn dag_cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xF6),
        Value::Bool(value) => out.push(if *value { 0xF5 } else { 0xF4 }),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => head(out, 0x00, number),
            (None, Some(number), _) => head(out, 0x20, (-1 - number).unsigned_abs()),
            (None, None, number) => {
                out.push(0xFB);
                out.extend_from_slice(&number.unwrap_or_default().to_be_bytes());
            }
        },
        Value::String(text) => string(out, text),
        Value::Array(items) => {
            head(out, 0x80, items.len() as u64);
            items.iter().for_each(|item| write(out, item));
        }
        Value::Object(fields) => {
            let only = |name: &str| fields.get(name).and_then(Value::as_str).filter(|_| fields.len() == 1);
            if let Some(cid) = only("$link").and_then(|link| link.strip_prefix('b')) {
                link(out, &BASE32_NOPAD.decode(cid.to_ascii_uppercase().as_bytes()).unwrap_or_default());
            } else if let Some(bytes) = only("$bytes") {
                let bytes = BASE64_NOPAD.decode(bytes.as_bytes()).unwrap_or_default();
                head(out, 0x40, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            } else {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| (name.len(), *name));
                head(out, 0xA0, fields.len() as u64);
                for (name, value) in fields {
                    string(out, name);
                    write(out, value);
                }
            }
        }
    }
}

/// Appends a text.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    head(out, 0x60, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a link to these bytes of a CID.
pub(super) fn link(out: &mut Vec<u8>, cid: &[u8]) {
    out.extend_from_slice(&[0xD8, 0x2A]);
    head(out, 0x40, cid.len() as u64 + 1);
    out.push(0);
    out.extend_from_slice(cid);
}

/// Appends the head of an item, as short as it can be.
pub(super) fn head(out: &mut Vec<u8>, kind: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (info, used) = match value {
        0..24 => return out.push(kind | bytes[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(kind | info);
    out.extend(bytes.iter().skip(8 - used));
}

//! As much of an encoder as a commit frame needs: DAG-CBOR and CARv1 with every length and hash right.

use sha2::{Digest, Sha256};

/// Returns the CID of a DAG-CBOR block: 36 bytes.
pub(crate) fn cid(block: &[u8]) -> Vec<u8> {
    [&[0x01, 0x71, 0x12, 0x20], Sha256::digest(block).as_slice()].concat()
}

pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    head(out, 0, value);
}

pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, 2, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn list(out: &mut Vec<u8>, len: usize) {
    head(out, 4, len as u64);
}

pub(crate) fn map(out: &mut Vec<u8>, len: usize) {
    head(out, 5, len as u64);
}

pub(crate) fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xF5 } else { 0xF4 });
}

pub(crate) fn link(out: &mut Vec<u8>, cid: &[u8]) {
    out.extend_from_slice(&[0xD8, 0x2A]);
    bytes(out, &[&[0], cid].concat());
}

/// Appends one length-prefixed section of a CAR.
pub(crate) fn section(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let mut len = parts.iter().map(|part| part.len()).sum::<usize>();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let (short, bytes) = (value.to_be_bytes(), major << 5);
    match value {
        0..=23 => out.push(bytes | value as u8),
        24..=0xFF => out.extend_from_slice(&[&[bytes | 24], &short[7..]].concat()),
        0x100..=0xFFFF => out.extend_from_slice(&[&[bytes | 25], &short[6..]].concat()),
        0x1_0000..=0xFFFF_FFFF => out.extend_from_slice(&[&[bytes | 26], &short[4..]].concat()),
        _ => out.extend_from_slice(&[&[bytes | 27], &short[..]].concat()),
    }
}

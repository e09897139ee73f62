//! CIDs as atproto uses them: version 1, DAG-CBOR or raw, SHA-256; 36 bytes, 59 characters.

use std::fmt;

use ipld_core::cid::serde::CID_SERDE_PRIVATE_IDENTIFIER;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Version 1, then the codec, then SHA-256 of 32 bytes.
const DAG_CBOR: [u8; 4] = [0x01, 0x71, 0x12, 0x20];
const RAW: [u8; 4] = [0x01, 0x55, 0x12, 0x20];

/// Two characters of base32 for each ten bits.
const PAIRS: [[u8; 2]; 1_024] = pairs();

/// The bytes of a CID as they stand under tag 42, of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a>(pub(crate) &'a [u8]);

/// A CID of version 1 with SHA-256, DAG-CBOR or raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cid<'a>(&'a [u8; 36]);

/// The text of a [`Cid`]: `b` and 58 characters of base32.
#[derive(Clone, Copy)]
pub(crate) struct CidText([u8; 59]);

const fn pairs() -> [[u8; 2]; 1_024] {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut pairs = [[0; 2]; 1_024];
    let mut ten = 0;
    while ten < pairs.len() {
        pairs[ten] = [ALPHABET[ten >> 5], ALPHABET[ten & 31]];
        ten += 1;
    }
    pairs
}

// === impl Link ===

impl<'a> Link<'a> {
    /// Returns the CID if it is that of a DAG-CBOR block.
    pub(crate) fn dag_cbor(self) -> Option<Cid<'a>> {
        Cid::take(self.0).and_then(|(cid, rest)| (rest.is_empty() && cid.0.starts_with(&DAG_CBOR)).then_some(cid))
    }

    /// Appends the text of the CID, of whatever kind; fails if it is none.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if let Some((cid, [])) = Cid::take(self.0) {
            out.extend_from_slice(cid.text().as_str().as_bytes());
            return Ok(());
        }
        match ipld_core::cid::Cid::try_from(self.0) {
            // Written again: a number beyond 64 bits is read as what is left of it.
            Ok(cid) if cid.to_bytes() == self.0 => {
                out.extend_from_slice(cid.to_string().as_bytes());
                Ok(())
            }
            _ => Err("invalid cid"),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Link<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct LinkVisitor;

        impl<'de> Visitor<'de> for LinkVisitor {
            type Value = Link<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cid")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
                input.deserialize_bytes(self)
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Link(bytes))
            }
        }

        input.deserialize_newtype_struct(CID_SERDE_PRIVATE_IDENTIFIER, LinkVisitor)
    }
}

// === impl Cid ===

impl<'a> Cid<'a> {
    /// Takes a CID from the start of `bytes`.
    pub(crate) fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (cid, rest) = bytes.split_first_chunk()?;
        (cid.starts_with(&DAG_CBOR) || cid.starts_with(&RAW)).then_some((Self(cid), rest))
    }

    /// Returns the SHA-256 of the block.
    pub(crate) fn digest(self) -> &'a [u8] {
        self.0.get(4..).unwrap_or_default()
    }

    /// Returns the SHA-256 of the block as a value of its own.
    pub(crate) fn sha256(self) -> [u8; 32] {
        self.0.last_chunk().copied().unwrap_or_default()
    }

    /// Returns the 36 bytes of the CID.
    pub(crate) fn bytes(self) -> &'a [u8; 36] {
        self.0
    }

    pub(crate) fn text(self) -> CidText {
        let mut text = [b'b'; 59];
        // Five bytes are eight characters; the last byte alone is two, padded with zero bits.
        for (group, place) in self.0.chunks(5).zip(text.get_mut(1..).unwrap_or_default().chunks_mut(8)) {
            let mut bits = [0; 8];
            for (bit, byte) in bits.iter_mut().skip(3).zip(group) {
                *bit = *byte;
            }
            let bits = u64::from_be_bytes(bits);
            let (pairs, _) = place.as_chunks_mut();
            for (index, pair) in pairs.iter_mut().enumerate() {
                let ten = (bits >> (30 - 10 * index)) & 1_023;
                *pair = PAIRS.get(ten as usize).copied().unwrap_or_default();
            }
        }
        CidText(text)
    }
}

// === impl CidText ===

impl CidText {
    pub(crate) fn as_str(&self) -> &str {
        // Only characters of the alphabet stand in it.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(codec: u8, seed: u8) -> [u8; 36] {
        let mut bytes = [seed; 36];
        bytes[..4].copy_from_slice(&[1, codec, 0x12, 0x20]);
        for (index, byte) in bytes.iter_mut().enumerate().skip(4) {
            *byte = byte.wrapping_mul(31).wrapping_add(index as u8);
        }
        bytes
    }

    #[test]
    fn text_is_that_of_the_reference_crate() {
        for seed in 0..=255 {
            for codec in [0x71, 0x55] {
                let bytes = bytes(codec, seed);
                let expected = ipld_core::cid::Cid::try_from(&bytes[..]).unwrap().to_string();
                let (cid, rest) = Cid::take(&bytes).unwrap();
                assert_eq!(cid.text().as_str(), expected);
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn links_of_other_kinds_are_written_and_bogus_ones_refused() {
        let mut out = Vec::new();
        let v0 = [&[0x12, 0x20][..], &[7; 32]].concat();
        Link(&v0).write(&mut out).unwrap();
        assert!(out.starts_with(b"Qm"), "version 0 is base58");
        let mut out = Vec::new();
        let identity = [0x01, 0x55, 0x00, 0x03, 1, 2, 3];
        Link(&identity).write(&mut out).unwrap();
        assert_eq!(out, b"bafkqaaybaibq");
        // A codec of 65 bits.
        let beyond = [&[0x01][..], &[0xFF; 9], &[0x03, 0x00, 0x03, 1, 2, 3]].concat();
        assert_eq!(ipld_core::cid::Cid::try_from(&beyond[..]).unwrap().codec(), u64::MAX, "what the library reads");
        for bogus in [&b"."[..], b"", &bytes(0x71, 1)[..35], &[&bytes(0x71, 1)[..], b"x"].concat(), &beyond] {
            assert!(Link(bogus).write(&mut out).is_err());
            assert!(Link(bogus).dag_cbor().is_none());
        }
        assert!(Link(&bytes(0x55, 1)).dag_cbor().is_none());
    }
}

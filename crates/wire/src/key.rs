//! Signing keys of accounts, and signatures held against them: P-256 and K-256, as atproto has them
//! (<https://atproto.com/specs/cryptography>).
//!
//! Keys are written compressed, signatures are 64 bytes, and their S is in the lower half: of the two that would do, one counts.

use std::fmt;

use ipld_core::cid::multibase;
use p256::elliptic_curve::sec1::ToSec1Point;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest text that is read as a key, in bytes: an uncompressed one in base 2 would be shorter.
const TEXT: usize = 600;

/// What stands before a key's point in a multikey, as a varint: `p256-pub` and `secp256k1-pub`
/// (<https://github.com/multiformats/multicodec>).
const P256_PUB: [u8; 2] = [0x80, 0x24];
const K256_PUB: [u8; 2] = [0xE7, 0x01];

/// Half of each group's order, rounded down: the greatest S that counts.
const P256_HALF: [u8; 32] = [
    0x7F, 0xFF, 0xFF, 0xFF, 0x80, 0x00, 0x00, 0x00, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xDE, 0x73, 0x7D,
    0x56, 0xD3, 0x8B, 0xCF, 0x42, 0x79, 0xDC, 0xE5, 0x61, 0x7E, 0x31, 0x92, 0xA8,
];
const K256_HALF: [u8; 32] = [
    0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x5D, 0x57, 0x6E,
    0x73, 0x57, 0xA4, 0x50, 0x1D, 0xDF, 0xE9, 0x2F, 0x46, 0x68, 0x1B, 0x20, 0xA0,
];

/// The public key that an account's commits are signed with, in 66 bytes.
///
/// Hold the key itself where it is needed often: to read it from its compressed form takes a fifth of the time of a signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    curve: Curve,
    /// The point as SEC 1 has it, uncompressed. It is on the curve.
    point: [u8; 65],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Curve {
    P256,
    K256,
}

/// Why a text or bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The text is not multibase, or far too long for a key.
    #[error("key is not multibase")]
    Text,
    /// It is a key of another kind, such as Ed25519.
    #[error("key is neither of P-256 nor of K-256")]
    Kind,
    /// The point is not of the length that its kind has, or not on the curve.
    #[error("key is not a point of its curve")]
    Point,
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureFault {
    /// It is not 64 bytes.
    #[error("signature is not of 64 bytes")]
    Length,
    /// Its S is in the upper half: anyone could have made it from the right one.
    #[error("signature is not low-S")]
    HighS,
    /// It is not of this key, or not of this commit.
    #[error("signature does not match the key and the commit")]
    Mismatch,
}

// === impl Key ===

impl Key {
    /// Reads a key as a `Multikey` or a `did:key:` has it: the base, the kind, the compressed point.
    ///
    /// # Errors
    /// A text that is no multibase, another kind of key, or a point that is none.
    pub fn from_multikey(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text.strip_prefix("did:key:").unwrap_or(text))?;
        let (kind, point) = bytes.split_first_chunk().ok_or(KeyError::Kind)?;
        let curve = match *kind {
            P256_PUB => Curve::P256,
            K256_PUB => Curve::K256,
            _ => return Err(KeyError::Kind),
        };
        // Only compressed points have a kind before them.
        if point.len() == 33 { Self::of_point(curve, point) } else { Err(KeyError::Point) }
    }

    /// Reads a key as a DID document's verification method has it: its `type`, and its `publicKeyMultibase`.
    ///
    /// Of the older types the text is the point alone, compressed or not.
    ///
    /// # Errors
    /// Those of [`Key::from_multikey`], and a type that is not known.
    pub fn from_method(kind: &str, text: &str) -> Result<Self, KeyError> {
        let curve = match kind {
            "Multikey" => return Self::from_multikey(text),
            "EcdsaSecp256r1VerificationKey2019" => Curve::P256,
            "EcdsaSecp256k1VerificationKey2019" => Curve::K256,
            _ => return Err(KeyError::Kind),
        };
        let bytes = decode(text)?;
        // Some documents have the new form under the old name.
        if bytes.len() == 35 { Self::from_multikey(text) } else { Self::of_point(curve, &bytes) }
    }

    /// Returns the key in 34 bytes: the first byte of its kind's multicodec, and the compressed point.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        let [kind, sign, x @ ..] = &mut bytes;
        let [_, point @ ..] = &self.point;
        let (own_x, y) = point.split_at(32);
        *kind = self.curve.codec()[0];
        *sign = 2 | y.last().map_or(0, |low| low & 1);
        x.copy_from_slice(own_x);
        bytes
    }

    /// Reads what [`Key::to_bytes`] returned.
    ///
    /// # Errors
    /// Bytes of another length or kind, or a point that is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (kind, point) = bytes.split_first().ok_or(KeyError::Kind)?;
        let curve = [Curve::P256, Curve::K256].into_iter().find(|curve| curve.codec()[0] == *kind);
        if point.len() == 33 { Self::of_point(curve.ok_or(KeyError::Kind)?, point) } else { Err(KeyError::Point) }
    }

    /// Holds a signature of 64 bytes against what was signed.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureFault> {
        let signature: &[u8; 64] = signature.try_into().map_err(|_| SignatureFault::Length)?;
        let half = match self.curve {
            Curve::P256 => &P256_HALF,
            Curve::K256 => &K256_HALF,
        };
        if signature.last_chunk::<32>().is_none_or(|s| s > half) {
            return Err(SignatureFault::HighS);
        }
        let holds = match self.curve {
            Curve::P256 => self.verify_p256(message, signature),
            Curve::K256 => self.verify_k256(message, signature),
        };
        if holds.is_some() { Ok(()) } else { Err(SignatureFault::Mismatch) }
    }

    fn verify_p256(&self, message: &[u8], signature: &[u8; 64]) -> Option<()> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).ok()
    }

    fn verify_k256(&self, message: &[u8], signature: &[u8; 64]) -> Option<()> {
        let key = secp256k1::PublicKey::from_byte_array_uncompressed(self.point).ok()?;
        let signature = secp256k1::ecdsa::Signature::from_compact(signature).ok()?;
        let digest = secp256k1::Message::from_digest(Sha256::digest(message).into());
        signature.verify(digest, &key).ok()
    }

    fn of_point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        let is_sec1 = matches!((point.first(), point.len()), (Some(2 | 3), 33) | (Some(4), 65));
        let whole = match curve {
            _ if !is_sec1 => None,
            // ring takes whole points only.
            Curve::P256 => p256::PublicKey::from_sec1_bytes(point)
                .ok()
                .and_then(|key| key.to_sec1_point(false).as_bytes().try_into().ok()),
            Curve::K256 => secp256k1::PublicKey::from_slice(point).ok().map(|key| key.serialize_uncompressed()),
        };
        whole.map(|point| Self { curve, point }).ok_or(KeyError::Point)
    }
}

impl fmt::Display for Key {
    /// Writes it as a `Multikey` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, point @ ..] = self.to_bytes();
        let bytes = [&self.curve.codec()[..], &point].concat();
        f.write_str(&multibase::encode(multibase::Base::Base58Btc, bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

// === impl Curve ===

impl Curve {
    fn codec(self) -> [u8; 2] {
        match self {
            Self::P256 => P256_PUB,
            Self::K256 => K256_PUB,
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len() > TEXT {
        return Err(KeyError::Text);
    }
    multibase::decode(text).map(|(_, bytes)| bytes).map_err(|_| KeyError::Text)
}
